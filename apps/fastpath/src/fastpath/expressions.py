"""What can be told about a regular expression without running it, so that most searches need not be made.

Both functions understand plain concatenations and give up on everything else, which then is searched for in full.
"""

import re

# A class, an escaped character, a counted repetition, any other character.
_PART = re.compile(r"\[\^?\]?(?:\[:\w+:\]|\\.|[^\]\\])*\]|\\.|\{[0-9]*,?[0-9]*\}|.", re.DOTALL)
_CLASS_ESCAPE = re.compile(r"\\[A-Za-z]")
_SPECIAL = frozenset("^$|?*+()[]{}")
# Options, verbs, and escapes that take what follows them along.
_UNUSUAL = re.compile(r"\(\?|\(\*|\\[^dDwWsSbBAzZnrtfavhHvVR\W_]")


def required_literal(pattern: str) -> str | None:
    """Return the longest literal that every match of a regular expression contains; None where none can be told.

    What stands in groups and classes is passed over; alternatives, options and quotations make it give up.
    """
    if _UNUSUAL.search(pattern):
        return None
    runs = [""]
    depth = 0
    for part in _PART.findall(pattern):
        if part == "|" and depth == 0:
            return None
        if part in ("(", ")"):
            depth += 1 if part == "(" else -1
            runs.append("")
        elif depth > 0 or part in (".", "^", "$", "+", "{") or part[0] == "[" or _CLASS_ESCAPE.fullmatch(part):
            runs.append("")
        elif part in ("*", "?") or (part[0] == "{" and len(part) > 1):
            runs[-1] = runs[-1][:-1]  # what stands before may be absent
            runs.append("")
        else:
            runs[-1] += part[-1]
    return max(runs, key=len) or None


def literal_sequence(pattern: str) -> tuple[str, ...] | None:
    """Return the literals of an expression that is nothing but literals with `.*` between; None for any other.

    Where `.` is any character, such an expression is found exactly where its literals occur one after the other.
    """
    if _UNUSUAL.search(pattern):
        return None
    runs = [""]
    parts = _PART.findall(pattern)
    for part, following in zip(parts, [*parts[1:], ""], strict=True):
        if part == "*" and runs[-1] == "":
            continue
        if part == ".":
            if following != "*":
                return None
            runs.append("")
        elif part in _SPECIAL or len(part) > 2 or _CLASS_ESCAPE.fullmatch(part):
            return None
        else:
            runs[-1] += part[-1]
    return tuple(run for run in runs if run) or None
