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
    hub = urlsplit(constants.ENDPOINT)
    proxy = None if proxy_bypass(hub.hostname) else getproxies().get(hub.scheme)
    place = urlsplit(proxy if "//" in proxy else f"//{proxy}") if proxy else hub
    port = place.port or (80 if place.scheme == "http" else 443)
    try:
        socket.create_connection((place.hostname, port), PATIENCE).close()
    except OSError:
        constants.HF_HUB_OFFLINE = True
        os.environ["HF_HUB_OFFLINE"] = "1"  # read by `datasets` when it is imported
        if "datasets" in sys.modules:
            sys.modules["datasets"].config.HF_HUB_OFFLINE = True
