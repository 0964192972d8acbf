"""Tokens of probes: signed, nameless, worth nothing but access to lists that should not be read in bulk.

A probe registers once and keeps its client id for good, so client ids do not expire. The tokens that it logs in for
live seven days. Their keys sign nothing else, and each kind of token has an audience of its own. Why so:
docs/adr/0011-client-ids-for-good-tokens-for-a-week.md.
"""

import time
from pathlib import Path
from typing import Any

from api.key_file import KeyFile, decode, encode

AUDIENCE_LOGIN = "probe_login"
"""Of client ids, which probes log in with."""

AUDIENCE_TOKEN = "probe_token"  # noqa: S105 a name, no secret
"""Of the tokens that open lists."""

LIFETIME_S = 7 * 86_400
"""How long a token is good for, in seconds."""

KEY_FILE = "probe_token_keys"
"""Name of the file in `state_directory` that a host makes for itself."""

_REQUIRED: dict[str, tuple[str, ...]] = {AUDIENCE_LOGIN: ("aud", "iat"), AUDIENCE_TOKEN: ("aud", "exp")}


class ProbeTokens:
    """Makes and checks tokens with the keys of one file."""

    def __init__(self, path: Path, *, create: bool) -> None:
        """Take the file with the keys; `create` makes it when it is not there, see `KeyFile`."""
        self._keys = KeyFile(path, create=create)

    def new_client_id(self) -> str:
        """Return a client id for a probe that registers. Raises KeysUnavailable."""
        return encode({"iat": int(time.time()), "aud": AUDIENCE_LOGIN}, self._keys)

    def new_token(self, registered_at: int | None, now_s: int) -> str:
        """Return a token good until `LIFETIME_S` after `now_s` (Unix seconds). Raises KeysUnavailable.

        `registered_at` is the time in the client id, None for ids of the time before they were signed.
        """
        claims = {
            "registration_time": registered_at,
            "aud": AUDIENCE_TOKEN,
            "iat": now_s,
            "exp": now_s + LIFETIME_S,
        }
        return encode(claims, self._keys)

    def check(self, token: str, audience: str) -> dict[str, Any]:
        """Return the claims of a token for `audience`. Raises as `key_file.decode`."""
        return decode(token, self._keys, audience=audience, required=_REQUIRED[audience])
