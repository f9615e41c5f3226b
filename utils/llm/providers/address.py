"""Addresses of servers, and the keys for them."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from urllib.parse import urlsplit

from utils.errors import UserError


def is_loopback(url: str) -> bool:
    """Return whether the address is one of this machine's own."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def checked_url(url: str) -> str:
    """Return an address without the slash at its end. Raises UserError for one that cannot be used."""
    shown = url.rpartition("@")[2]
    try:
        parts = urlsplit(url)
        well_formed = parts.scheme in ("http", "https") and parts.hostname and (parts.port is None or parts.port > 0)
    except ValueError:
        well_formed = False
    if not well_formed:
        raise UserError(f"--base_url is {shown!r}; expected an address like http://127.0.0.1:8000/v1")
    if "@" in parts.netloc:
        raise UserError(f"--base_url …@{shown} holds a user name or a password; keys belong in the environment")
    return url.rstrip("/")


def key_from(variable: str, url: str, environment: Mapping[str, str]) -> str:
    """Return the key for an address, empty where none is needed. Raises UserError."""
    key = environment.get(variable, "").strip()
    if not key and not is_loopback(url):
        raise UserError(f"no key for {url}: the environment variable {variable} is not set; export {variable}=…")
    if not key.isascii() or any(not character.isprintable() or character == " " for character in key):
        raise UserError(f"{variable} holds a space, a line break or a letter beyond ASCII, as no key does; set it anew")
    return key
