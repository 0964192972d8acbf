"""HTTP API: probe services, measurements, private entry points."""

__version__ = "0.1.0"

APP = "api"
"""Name in settings, logs and the database."""

JOURNAL_IDENTIFIER = "gunicorn3"
"""Identifier in the system journal: what the documented `journalctl --identifier` commands ask for."""
