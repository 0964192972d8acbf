"""Text of strangers in CSV, so that a spreadsheet shows it instead of working it out.

Spreadsheets run cells that begin like a formula, which can fetch addresses or start programs of who opens the file.
"""

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")


def harmless(value: object) -> object:
    """Return the value of a cell; text that begins like a formula gets an apostrophe in front."""
    return f"'{value}" if isinstance(value, str) and value.lstrip(" ").startswith(_FORMULA) else value
