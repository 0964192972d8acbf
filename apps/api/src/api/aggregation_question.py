"""What `/api/v1/aggregation` is asked: its parameters, checked as the wire contract wants it, and grains of time."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from api.domain_names import is_domain
from api.errors import bad_request
from api.params import Params

TIME = "measurement_start_day"
CATEGORY = "category_code"

AXES = ("blocking_type", CATEGORY, "domain", "input", TIME, "probe_asn", "probe_cc", "test_name")
"""What results can be split by."""

FORMATS = ("JSON", "CSV")

Grain = Literal["hour", "day", "week", "month", "year"]
GRAINS = ("hour", "day", "week", "month", "year", "auto")
"""What can be asked for; see `grain_of`."""

_GRAINS: tuple[tuple[timedelta, Mapping[str, Grain]], ...] = (
    (timedelta(days=7), {"hour": "hour", "day": "day", "auto": "hour"}),
    (timedelta(days=30), {"day": "day", "week": "week", "auto": "day"}),
    (timedelta(days=365), {"day": "day", "week": "week", "month": "month", "auto": "day"}),
    (timedelta.max, {"day": "day", "week": "week", "month": "month", "year": "year", "auto": "day"}),
)
"""The grains allowed for windows up to a length."""

_BAD_CHARACTERS = "Invalid characters"
_MAX_ASN = 2**32 - 1
_ASN = re.compile(r"(?:AS)?([0-9]{1,10})", re.ASCII)
_RUN_LINK = re.compile(r"[0-9]{1,20}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Question:
    """What to count. Empty filters and None stand for no condition; measurements started in [since, until).

    Attributes:
        axes: what to split by and sort by, at most two of AXES.
        grain: the width of a bucket of the time axis.
    """

    axes: tuple[str, ...] = ()
    grain: Grain = "day"
    since: datetime | None = None
    until: datetime | None = None
    countries: tuple[str, ...] = ()
    networks: tuple[int, ...] = ()
    test_names: tuple[str, ...] = ()
    domains: tuple[str, ...] = ()
    input: str | None = None
    category: str | None = None
    run_links: tuple[int, ...] = ()

    @property
    def is_void(self) -> bool:
        """Whether no measurement can be in the window."""
        return self.since is not None and self.until is not None and self.until <= self.since


@dataclass(frozen=True, slots=True)
class Asked:
    """A request whose parameters could be read: axes and grain are not checked yet."""

    question: Question
    time_grain: str
    csv: bool
    download: bool


def read(params: Params) -> Asked:
    """Read the parameters.

    Raises:
        ApiError: 400 when one cannot be read; on this route that travels with status 200.
    """
    axes = tuple(_only(params, name, "a-z_") for name in ("axis_x", "axis_y"))
    if axes[0] and axes[0] == axes[1]:
        raise bad_request("Axis X and Y cannot be the same")
    category = _only(params, "category_code", "A-Z")
    format_ = (params.text("format") or "JSON").upper()
    if format_ not in FORMATS:
        raise bad_request("Invalid format; give JSON or CSV.")
    question = Question(
        axes=tuple(axis for axis in axes if axis),
        since=params.time("since"),
        until=params.time("until"),
        countries=countries(params),
        networks=_networks(params),
        test_names=_test_names(params),
        domains=_domains(params),
        input=params.checked_input(),
        category=category or None,
        run_links=_run_links(params),
    )
    return Asked(
        question,
        time_grain=(params.text("time_grain") or "auto").lower(),
        csv=format_ == "CSV",
        download=(params.text("download") or "").lower() == "true",
    )


def check_axes(axes: Sequence[str]) -> None:
    """Check that axes are known. Raises ApiError 400."""
    if not set(axes) <= set(AXES):
        raise bad_request("Invalid axis name", v=0)


def grain_of(asked: str, since: datetime | None, until: datetime | None) -> Grain:
    """Return the grain of a time axis.

    Raises:
        ApiError: 400 when there is no window, or when the grain does not suit its length.
    """
    if since is None or until is None or until <= since:
        raise bad_request("Invalid since and until values", v=0)
    allowed = next(grains for longest, grains in _GRAINS if until - since <= longest)
    grain = allowed.get(asked)
    if grain is None:
        raise bad_request(f"Choose time_grain between {', '.join(allowed)} for the given time range", v=0)
    return grain


def countries(params: Params, refusal: str = _BAD_CHARACTERS) -> tuple[str, ...]:
    """Return the countries of `probe_cc`; unlike in searches, ZZ is one of them. Raises ApiError 400."""
    _only(params, "probe_cc", "A-Z,", refusal)
    codes = params.texts("probe_cc")
    if any(len(code) != 2 for code in codes):
        raise bad_request("Invalid CC value in parameter probe_cc")
    return tuple(codes)


def _only(params: Params, name: str, characters: str, refusal: str = _BAD_CHARACTERS) -> str:
    """Return a value, empty when there is none, that consists of these characters (the inside of a class)."""
    text = params.text(name) or ""
    if not re.fullmatch(f"[{characters}]*", text, re.ASCII):
        raise bad_request(refusal)
    return text


def _networks(params: Params) -> tuple[int, ...]:
    numbers = set()
    for item in params.texts("probe_asn"):
        match = _ASN.fullmatch(item.strip())
        if match is None or int(match[1]) > _MAX_ASN:
            raise bad_request("Invalid ASN value in parameter probe_asn")
        numbers.add(int(match[1]))
    return tuple(sorted(numbers))


def _test_names(params: Params) -> tuple[str, ...]:
    _only(params, "test_name", "a-z_,")
    return tuple(params.texts("test_name"))


def _run_links(params: Params) -> tuple[int, ...]:
    texts = params.texts("ooni_run_link_id")
    if not all(map(_RUN_LINK.fullmatch, texts)):
        raise bad_request("Invalid ooni_run_link_id; give numbers with commas in between.")
    return tuple(sorted({int(text) for text in texts}))


def _domains(params: Params) -> tuple[str, ...]:
    domains = params.texts("domain")
    if not all(map(is_domain, domains)):
        raise bad_request("Invalid characters in domain field")
    return tuple(domains)
