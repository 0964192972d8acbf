"""Text that people write and pages show: bounded, and without characters that deceive or that nothing can store.

Markup is not touched: replies are JSON, and what shows them has to escape it. Refused are control characters (also NUL,
which the database cannot hold), halves of surrogate pairs, characters that reorder what is around them (an address
could look like another one), and invisible ones that only carry hidden text. What joins letters and marks the
direction of a word stays: Persian, Indic scripts and emoji need it.
"""

import re

_REFUSED = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff\ufff9-\ufffb\ufffe\uffff"
    "\U000e0000-\U000e007f]"
)
_LINE_ENDS = re.compile("\r\n?")


def lines(value: object, longest: int) -> str:
    """Return text of several lines, whose ends become `\\n`, of at most `longest` bytes in UTF-8.

    Raises:
        ValueError: what is wrong with it, as the rest of a sentence about it.
    """
    if not isinstance(value, str):
        raise ValueError("must be text")
    text = _LINE_ENDS.sub("\n", value)
    found = _REFUSED.search(text)
    if found is not None:
        raise ValueError(f"holds the character U+{ord(found[0]):04X}, which is not allowed; leave it out")
    if len(text.encode()) > longest:
        raise ValueError(f"is longer than {longest} bytes; shorten it")
    return text


def line(value: object, longest: int) -> str:
    """Return one line, without blanks around it, of at most `longest` characters. Raises ValueError as `lines`."""
    text = lines(value, 4 * longest).strip()
    if len(text) > longest:
        raise ValueError(f"is longer than {longest} characters; shorten it")
    if "\n" in text or "\t" in text:
        raise ValueError("must be a single line")
    return text
