"""What the measurements API costs over many rows, against an embedded ClickHouse: `make bench-api ROWS=20000000`."""
