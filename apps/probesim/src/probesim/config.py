"""Settings of a replay, filled from the command line."""

import msgspec

DEFAULT_URL = "http://127.0.0.1:8080"


class ReplaySettings(msgspec.Struct, frozen=True, kw_only=True):
    """How documents are submitted."""

    # Base address of the API, without a slash at the end.
    url: str = DEFAULT_URL
    # Number of probes that submit at the same time.
    concurrency: int = 8
    # Most submissions per second, over all probes; 0 for no limit.
    rate: float = 0.0
    # Seconds for which one submission is repeated while the API is unreachable or asks to try later.
    patience_s: float = 60.0
    # PEM file with the certificates to believe, for an API whose certificate is self-signed; empty for the usual ones.
    ca_file: str = ""
