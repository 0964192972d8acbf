"""The address of the current request's client. Used in memory only: never stored or logged."""

from flask import request

from api.proxies import Address, network_of
from api.services import services

__all__ = ["Address", "client_address", "network_of"]


def client_address() -> Address | None:
    """Return the address of the current request's client, None when it cannot be known. Never log or store it."""
    return services().trusted_proxies.client(request.environ)
