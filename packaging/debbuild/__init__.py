"""Builds the Debian packages of this repository with nothing but the standard library of the target's Python."""
