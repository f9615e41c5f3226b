"""The Hugging Face hub where there is no connection to it."""

from __future__ import annotations

import functools
import os
import socket
import sys
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

PATIENCE = 5.0  # seconds for a connection; a busy network answers within one


@functools.cache
def offline_unless_reachable() -> None:
    """Switch the hub's libraries to what they have cached when neither the hub nor its proxy can be connected to: each
    file asked for would be tried six times within 23 seconds."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return
    place = urlsplit(constants.ENDPOINT)
    proxy = getproxies().get(place.scheme)
    if proxy and not proxy_bypass(place.hostname):
        place = urlsplit(proxy if "//" in proxy else f"//{proxy}")  # some write HOST:PORT alone
    port = place.port or {"http": 80}.get(place.scheme, 443)
    try:
        socket.create_connection((place.hostname, port), PATIENCE).close()
    except OSError:
        # The libraries read the variable when they are imported: this one already is, `datasets` may be.
        constants.HF_HUB_OFFLINE = True
        os.environ["HF_HUB_OFFLINE"] = "1"
        if "datasets" in sys.modules:
            sys.modules["datasets"].config.HF_HUB_OFFLINE = True
