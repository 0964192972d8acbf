"""Tokens of programs: random, kept as a hash, known by their beginning.

They have 256 random bits, so a fast hash is enough: nobody can try them out.
"""

import hashlib
import secrets

PREFIX = "ooni_"
"""How access tokens begin, so that scanners for secrets can find them, and that nobody takes them for sessions."""

LENGTH = len(PREFIX) + 43
"""Number of characters of an access token."""

READ, WRITE = "read", "write"
SCOPES = (READ, WRITE)
"""What a token is good for: `read` for own quotas and what its account may see, `write` also for what users do."""


def new_token() -> str:
    """Return a new random token."""
    return PREFIX + secrets.token_urlsafe(32)


def hash_of(token: str) -> bytes:
    """Return what is stored of a token: its SHA-256, 32 bytes."""
    return hashlib.sha256(token.encode()).digest()


def is_access_token(text: str) -> bool:
    """Return whether a credential has the form of an access token."""
    return text.startswith(PREFIX) and len(text) == LENGTH and text.isascii()
