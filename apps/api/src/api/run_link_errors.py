"""What is wrong with a run link or with a question about one, in the forms of both generations of routes.

The older routes answer 400 with the text under `error`. The newer ones answer in the form that clients of the reference
know, and in ours: the text under `error`, and the same, or a list of `loc`, `msg` and `type`, under `detail`.
"""

from api.errors import ApiError, bad_request
from api.typed_errors import typed_error

Loc = tuple[str | int, ...]
"""The way to a field from the top of the body: names, and numbers of items."""

EMPTY_TRANSLATION = "empty_translation"
MISSING = "missing"
WRONG = "value_error"


class FieldError(Exception):
    """A field of a body that is missing or wrong; `what` is the rest of a sentence about it."""

    def __init__(self, loc: Loc, what: str, kind: str = WRONG) -> None:
        super().__init__(what)
        self.loc = loc
        self.what = what
        self.kind = kind

    @property
    def sentence(self) -> str:
        """What is wrong, with the name of the field."""
        where = ".".join(str(part) for part in self.loc)
        return f"Invalid value in field {where}: it {self.what}." if where else self.what


def wrong(value: object, loc: Loc, what: str) -> FieldError:
    """Return the error for a value that is not as it must be; null is one that is missing."""
    return FieldError(loc, what, MISSING if value is None else WRONG)


def refused_v1(error: FieldError) -> ApiError:
    """Return the error of the older routes."""
    if error.kind == EMPTY_TRANSLATION:
        return typed_error("err_empty_translation_field", error.sentence, {"field": error.loc[0]})
    if error.loc == ("name",) and error.kind == MISSING:
        return bad_request("'name' field must not be empty", hint="Give the run link a name.")
    return bad_request(error.sentence)


def refused_v2(error: FieldError) -> ApiError:
    """Return the error of the newer routes."""
    detail = [{"loc": ["body", *error.loc], "msg": error.what, "type": error.kind}]
    return ApiError(422, error.sentence, body={"detail": detail})


def detailed(status: int, text: str) -> ApiError:
    """Return an error of the newer routes that is about no field."""
    return ApiError(status, text, body={"detail": text})
