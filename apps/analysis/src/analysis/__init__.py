"""Jobs that timers start: each one does its work once and ends with an exit code."""

__version__ = "0.1.0"
