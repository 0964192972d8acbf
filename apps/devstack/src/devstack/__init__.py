"""The one-command local stack behind `make run`."""

__version__ = "0.1.0"
