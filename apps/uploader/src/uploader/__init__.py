"""Packs the disk queue into postcans and jsonl objects in the object store."""

__version__ = "0.1.0"
