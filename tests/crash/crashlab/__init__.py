"""A whole host that is killed on purpose, and the account of what it acknowledged."""
