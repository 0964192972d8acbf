"""Synthetic rows as many as one likes: `make load-sample ROWS=1000000`, and the data of `make bench-api`."""
