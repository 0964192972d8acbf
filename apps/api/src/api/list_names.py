"""Names of tests as rows of fastpath have them: as values of type ootest, or as text when it did not have them then.

A name that joins the type leaves earlier rows as they are, and so do hosts that are not upgraded yet. Nor need this
release know all names that the type has. So every name is looked for in both forms, and the type itself is asked.
"""

from collections.abc import Sequence
from enum import Enum, auto
from functools import cached_property

from api.list_counters import Run
from api.list_filter import Conditions


class Form(Enum):
    """Rows in which of the forms: with names that the type has, with others, or any."""

    TYPED = auto()
    TEXT = auto()
    ANY = auto()


class NameForms:
    """Conditions on the names of tests."""

    def __init__(self, run: Run) -> None:
        """Take what runs statements; the database is asked when the first condition is made."""
        self._run = run

    def forms(self, *choices: Sequence[str]) -> list[Form]:
        """Return the forms, TYPED and TEXT, that rows can have whose name is in each of the choices."""
        return [Form.TYPED, Form.TEXT] if all(self._typed(names) for names in choices) else [Form.TEXT]

    def equal(self, names: Sequence[str], form: Form) -> Conditions:
        """Return the condition that a row has one of the names, in this form."""
        typed, text = Conditions(), Conditions()
        known = self._typed(names)
        if known and form is not Form.TEXT:
            marks = ", ".join(["%s::ootest"] * len(known))
            typed.add(f"test_name IN ({marks})" if len(known) > 1 else "test_name = %s::ootest", *known)
        if form is not Form.TYPED:
            text.add("test_name IS NULL")
            text.equal_text("test_name_other", names)
        if not typed.texts or not text.texts:
            return typed if typed.texts else text
        either = Conditions()
        either.add(f"({typed} OR ({text}))", *typed.values, *text.values)
        return either

    def _typed(self, names: Sequence[str]) -> list[str]:
        return [name for name in names if name in self._type]

    @cached_property
    def _type(self) -> frozenset[str]:
        rows = self._run("SELECT enumlabel::text AS name FROM pg_enum WHERE enumtypid = 'ootest'::regtype", [])
        return frozenset(row["name"] for row in rows)
