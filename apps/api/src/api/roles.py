"""The roles of accounts."""

USER, ADMIN = "user", "admin"
ROLES = (USER, ADMIN)
