"""Scores measurements in real time and writes them to the database."""

__version__ = "0.1.0"
