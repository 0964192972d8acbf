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


class SessionSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How whole sessions are played."""

    # Base address of the API, without a slash at the end.
    url: str = DEFAULT_URL
    # Generations in turn, of probesim.vocabulary.GENERATIONS.
    generations: tuple[str, ...] = ("cli", "mobile", "legacy")
    # Countries of the probes; none for all that are simulated.
    countries: tuple[str, ...] = ()
    # Number of sessions.
    sessions: int = 3
    # Sessions that start per second; 0 for as fast as `concurrency` lets them.
    rate: float = 0.0
    # The same seed makes the same probes, which write the same documents as long as the API gives the same answers.
    seed: int = 1
    # Most sessions at the same time.
    concurrency: int = 8
    # Seconds that a call may take. A real probe waits up to five minutes, its user less.
    patience_s: float = 30.0
    # PEM file with the certificates to believe; empty for the usual ones.
    ca_file: str = ""
