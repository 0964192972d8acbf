"""Simulated probes of every generation: samples, replay and load."""

__version__ = "0.1.0"
