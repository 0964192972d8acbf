"""Benchmarks of the whole pipeline; see bench.py."""
