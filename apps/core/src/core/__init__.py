"""What every app shares: identifiers, spool, object store, database, configuration, logging, metrics."""

__version__ = "0.1.0"
