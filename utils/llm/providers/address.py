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


def is_own(url: str, own_url: str) -> bool:
    """Return whether an address is the provider's own, by HTTPS; a regional one (eu.api.openai.com) is."""
    parts, own = urlsplit(url), urlsplit(own_url).hostname
    return parts.scheme == "https" and (parts.hostname == own or (parts.hostname or "").endswith(f".{own}"))


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


def key_from(variable: str, given: str | None, url: str, own_url: str, environment: Mapping[str, str]) -> str:
    """Return the key for an address, empty where none is needed.

    Args:
        variable: the environment variable of the provider's own key, which no other server gets.
        given: the variable that --api_key_env names, or None.
        url: the address.
        own_url: the provider's own address.
        environment: the environment variables.

    Returns:
        The key.

    Raises:
        UserError: no key is there for a server of another machine, or it is no key.
    """
    if given is None and not is_own(url, own_url):
        if is_loopback(url):
            return ""
        raise UserError(
            f"no key for {url}: {variable} is for {urlsplit(own_url).hostname} alone; give --api_key_env NAME, the "
            "environment variable that holds this server's key"
        )
    variable = given or variable
    key = environment.get(variable, "").strip()
    if not key:
        raise UserError(f"no key for {url}: the environment variable {variable} is not set; export {variable}=…")
    if not key.isascii() or any(not character.isprintable() or character == " " for character in key):
        raise UserError(f"{variable} holds a space, a line break or a letter beyond ASCII, as no key does; set it anew")
    return key
