"""The row of table `fastpath`: metadata out of the document, the scores as JSON text (the wire contract, 3).

Values are kept as they were sent, with one exception at this boundary: PostgreSQL stores neither NUL characters nor
lone surrogates, so each of them becomes U+FFFD; and JSON knows neither NaN nor infinities, so inside `scores` they
become null. The body keeps what was sent.

A document whose metadata cannot be stored (RowError) still gets a row when country, network and time are known from
somewhere: a failed measurement with a reason, made by `fallback_row`.
"""

import math
import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any, TypeAlias, cast

import msgspec

from core.ids import IdentifierError, MeasurementUid, ReportId, parse_measurement_uid, parse_report_id
from core.testnames import KNOWN_TEST_NAMES
from fastpath.document import UNVERIFIED, Document
from fastpath.observation import Observation
from fastpath.score.common import failed_scores
from fastpath.score.flags import Flags
from fastpath.shape import JsonObject, Measurement
from fastpath.times import parse_time, receive_time
from fastpath.urls import network_location

MAX_SCORES_LENGTH = 1_000_000
"""Longest scores stored, in characters of JSON; only documents made for it come near."""

MAX_ASN = 2**32 - 1
MAX_RUN_LINK_ID = 2**64 - 1
EARLIEST_START = datetime.fromisoformat("1970-01-01 00:00:00")
LATEST_START = datetime.fromisoformat("2106-02-07 06:28:15")
"""Start times outside these make a failed row: no clock that produced them can be trusted."""

MEEK = "meek_fronted_requests_test"
_NAMES_BY_SHORT_NAME = {name.replace("_", ""): name for name in KNOWN_TEST_NAMES}
_OLD_REPORT_ID = re.compile(r"[0-9TZ]{8,20}_AS([0-9]{1,10})_[A-Za-z0-9]{1,80}", re.ASCII)
_DATED_REPORT_ID = re.compile(r"[0-9]{8}T[0-9]{6}Z_", re.ASCII)
_EARLY_UID = re.compile(r"01[0-9]{8}[0-9a-f]{30}", re.ASCII)
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


class Row(msgspec.Struct, frozen=True):
    """One row; times are UTC without a zone.

    `test_name` is the name as sent: whether it goes to the column of that name or to `test_name_other` depends on the
    values of the database's type, which the store knows.
    """

    measurement_uid: str
    report_id: str
    input: str
    domain: str
    probe_cc: str
    test_name: str
    platform: str
    architecture: str
    engine_name: str
    engine_version: str
    software_name: str
    software_version: str
    test_version: str
    test_helper_address: str
    test_helper_type: str
    probe_asn: int
    test_start_time: datetime
    measurement_start_time: datetime
    scores: str
    anomaly: bool
    confirmed: bool
    msm_failure: bool
    blocking_type: str
    test_runtime: float
    ooni_run_link_id: int | None
    is_verified: str
    reason: str | None = None
    observation: Observation | None = None
    """What goes to table `obs_openvpn` along with this row."""

    def as_dict(self) -> dict[str, Any]:
        """Return the values by column name."""
        values = msgspec.structs.asdict(self)
        del values["observation"]
        return values


# The columns before `probe_asn` hold text out of the document; they are checked and cleaned together.
_TEXT_COLUMNS = Row.__struct_fields__[: Row.__struct_fields__.index("probe_asn")]
_Texts: TypeAlias = tuple[str, str, str, str, str, str, str, str, str, str, str, str, str, str, str]


class RowError(Exception):
    """A value cannot be stored; `reason` is machine readable, such as `bad_test_start_time` or `bad_type:platform`."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"The measurement cannot be stored as sent: {reason}. Look at the document's source.")
        self.reason = reason


class Unidentifiable(Exception):
    """Neither document nor uid nor report id tell `field`, without which there can be no row."""

    def __init__(self, field: str) -> None:
        super().__init__(f"Nothing tells the {field} of the measurement. Look at the body by hand.")
        self.field = field


def build_row(uid: str, document: Document, scores: JsonObject, flags: Flags, started: datetime | None = None) -> Row:
    """Return the row of a scored measurement; `started` is its start time where that has been parsed already.

    Raises:
        RowError: a value is missing, malformed, or of a type that its column cannot hold.
    """
    measurement = document.measurement
    get = measurement.get
    test_name = get("test_name") or ""
    input_text, domain = input_and_domain(measurement, test_name)
    report_id, country = get("report_id"), get("probe_cc") or ""
    texts = _storable_texts(_texts(uid, report_id, input_text, domain, country, test_name, measurement))
    annotations = get("annotations")
    run_link = annotations.get("ooni_run_link_id") if type(annotations) is dict else None
    asn = parse_asn(get("probe_asn"))
    if asn is None:
        raise RowError("bad_probe_asn")
    test_started = _start_time(measurement, "test_start_time")
    if started is None:
        started = _start_time(measurement, "measurement_start_time")
    elif not EARLIEST_START <= started <= LATEST_START:
        raise RowError("out_of_range:measurement_start_time")
    runtime = get("test_runtime")
    analysis = scores.get("analysis")
    # By position, in the order of the columns: names would double the time.
    return Row(
        *texts,
        asn,
        test_started,
        started,
        encode_scores(scores),
        flags.anomaly,
        flags.confirmed,
        flags.msm_failure,
        analysis.get("blocking_type", "") if analysis else "",
        runtime if type(runtime) is float else _runtime(runtime),
        None if run_link is None else _run_link_id(run_link),
        document.is_verified,
    )


def fallback_row(uid: str, document: Document | None, reason: str, report_id: str | None) -> Row:
    """Return the row of a document that could not be scored or stored as sent.

    Country, network, test and times come from the document, else from the uid (time of receipt, country, test), else
    from the report id of the document or the one given. It is always a failed measurement, neither anomaly nor
    confirmed.

    Raises:
        Unidentifiable: country, network or time are not to be had.
    """
    measurement = {} if document is None else document.measurement
    parsed_uid = _parse_uid(uid)
    own_report_id = measurement.get("report_id")
    report_ids = [text for text in (own_report_id, report_id) if type(text) is str]
    parsed_ids = [parsed for text in report_ids if (parsed := _parse_report_id(text))]
    asns = [parsed.asn for parsed in parsed_ids]
    asns += [int(found[1]) for text in report_ids if (found := _OLD_REPORT_ID.fullmatch(text))]

    country = measurement.get("probe_cc")
    if type(country) is not str or not country:
        country = parsed_uid.cc if parsed_uid else parsed_ids[0].cc if parsed_ids else None
    if country is None:
        raise Unidentifiable("probe_cc")
    asn = parse_asn(measurement.get("probe_asn"))
    if asn is None:
        asn = next((number for number in asns if number <= MAX_ASN), None)
    if asn is None:
        raise Unidentifiable("probe_asn")
    start = _loose_time(measurement, "measurement_start_time")
    test_start = _loose_time(measurement, "test_start_time")
    started = start or test_start or _other_time(uid, report_ids)
    if started is None:
        raise Unidentifiable("measurement_start_time")

    test_name = measurement.get("test_name")
    if type(test_name) is not str or not test_name:
        short = parsed_uid.test_name if parsed_uid else ""
        test_name = _NAMES_BY_SHORT_NAME.get(short, short)
    try:
        input_text, domain = input_and_domain(measurement, test_name)
    except RowError:
        sent = measurement.get("input")
        input_text, domain = (sent if type(sent) is str else ""), ""
    own = _texts(uid, report_ids[0] if report_ids else "", input_text, domain, country, test_name, measurement)
    texts = tuple(text if type(text) is str else None for text in own)
    return Row(
        *_storable_texts(texts),
        probe_asn=asn,
        test_start_time=test_start or started,
        measurement_start_time=started,
        scores=encode_scores(failed_scores()),
        anomaly=False,
        confirmed=False,
        msm_failure=True,
        blocking_type="",
        test_runtime=0.0,
        ooni_run_link_id=None,
        is_verified=UNVERIFIED if document is None else document.is_verified,
        reason=reason,
    )


def encode_scores(scores: JsonObject) -> str:
    """Return the scores as compact JSON text that PostgreSQL can store and read.

    Raises:
        RowError: they are longer than MAX_SCORES_LENGTH or nested too deeply.
    """
    try:
        text = _encode(scores).decode()
    except (UnicodeError, OverflowError, TypeError, ValueError, RecursionError):
        text = ""
    if not text or "\\u0000" in text:
        try:
            text = msgspec.json.encode(_plain(scores)).decode()
        except RecursionError:
            raise RowError("scores_too_deep") from None
    if len(text) > MAX_SCORES_LENGTH:
        raise RowError("scores_too_large")
    return text


_encode = msgspec.json.Encoder().encode


def storable(text: str) -> str:
    """Return text that PostgreSQL can store: NUL and lone surrogates become U+FFFD."""
    if "\0" in text:
        text = text.replace("\0", _REPLACEMENT)
    try:
        text.encode()
    except UnicodeEncodeError:
        return "".join(_REPLACEMENT if "\ud800" <= character <= "\udfff" else character for character in text)
    return text


def input_and_domain(measurement: Measurement, test_name: Any) -> tuple[str, str]:
    """Return the two columns (3.1): the input as sent, and the network location of the URL in it.

    The list that meek sends becomes `{first,second}` with the first element as domain.

    Raises:
        RowError: `bad_input`.
    """
    value = measurement.get("input") or ""
    if type(value) is str:
        try:
            return value, network_location(value) if value else ""
        except ValueError:
            raise RowError("bad_input") from None
    if type(value) is list and test_name == MEEK and all(type(element) is str for element in value):
        return f"{{{','.join(value)}}}", value[0]
    raise RowError("bad_input")


def parse_asn(value: Any) -> int | None:
    """Return the network's number: what follows the first two characters (not checked), as an integer; else None."""
    if type(value) is not str:
        return None
    try:
        asn = int(value[2:])
    except ValueError:
        return None
    return asn if 0 <= asn <= MAX_ASN else None


def _texts(
    uid: str, report_id: Any, input_text: str, domain: str, country: Any, test_name: Any, measurement: Measurement
) -> tuple[Any, ...]:
    """Return the text columns as sent; those not given have their defaults where the key is absent."""
    get = measurement.get
    annotations = get("annotations")
    about = annotations.get if type(annotations) is dict else _NOTHING.get
    helpers = get("test_helpers")
    backend = helpers.get("backend") if type(helpers) is dict else None
    helper = backend.get if type(backend) is dict else _NOTHING.get
    return (
        uid,
        report_id,
        input_text,
        domain,
        country,
        test_name,
        about("platform", _UNSET),
        about("architecture", ""),
        about("engine_name", ""),
        about("engine_version", ""),
        get("software_name", ""),
        get("software_version", ""),
        get("test_version", ""),
        helper("address", ""),
        helper("type", ""),
    )


_NOTHING: JsonObject = {}
_UNSET = "unset"
_FIRST_DESCRIPTIVE = _TEXT_COLUMNS.index("platform")


def _without_nulls(texts: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the text columns with the defaults of those that a document may give as null."""
    fixed, descriptive = texts[:_FIRST_DESCRIPTIVE], texts[_FIRST_DESCRIPTIVE:]
    platform, *others = descriptive
    return (*fixed, _UNSET if platform is None else platform, *("" if text is None else text for text in others))


def _storable_texts(texts: tuple[Any, ...]) -> _Texts:
    try:
        joined = "".join(texts)
    except TypeError:
        texts = _without_nulls(texts)
        wrong = [column for column, text in zip(_TEXT_COLUMNS, texts, strict=True) if type(text) is not str]
        if wrong:
            raise RowError(f"bad_type:{wrong[0]}") from None
        joined = "".join(texts)
    if joined.isascii() and "\0" not in joined:
        return cast("_Texts", texts)
    return cast("_Texts", tuple(storable(text) for text in texts))


def _start_time(measurement: Measurement, key: str) -> datetime:
    text = measurement.get(key)
    if type(text) is not str:
        raise RowError(f"bad_{key}")
    try:
        start = parse_time(text)
    except ValueError:
        raise RowError(f"bad_{key}") from None
    if not EARLIEST_START <= start <= LATEST_START:
        raise RowError(f"out_of_range:{key}")
    return start


def _loose_time(measurement: Measurement, key: str) -> datetime | None:
    try:
        return _start_time(measurement, key)
    except RowError:
        return None


def _other_time(uid: str, report_ids: Sequence[str]) -> datetime | None:
    """Return when a measurement was received, to the second, else what its report ids or an early uid tell.

    Report ids of any age start with `<YYYYMMDD>T<hhmmss>Z_`, or tell no time; early uids are `01<YYYYMMDD>…`.
    """
    received = receive_time(uid)
    if received is not None:
        return received.replace(microsecond=0)
    texts = [text[:15] for text in report_ids if _DATED_REPORT_ID.match(text)]
    if _EARLY_UID.fullmatch(uid):
        texts.append(uid[2:10])
    return next(filter(None, map(_time_of_text, texts)), None)


def _time_of_text(text: str) -> datetime | None:
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return None
    return time if EARLIEST_START <= time <= LATEST_START else None


def _runtime(value: Any) -> float:
    if value is None:
        return 0.0
    if isinstance(value, int | float):
        try:
            return float(value)
        except OverflowError:
            pass
    raise RowError("bad_type:test_runtime")


def _run_link_id(value: Any) -> int | None:
    """Return the identifier of the run link (3.2); text that is no integer counts as none."""
    if isinstance(value, str):
        try:
            number = int(value)
        except ValueError:
            return None
    elif isinstance(value, int) or (isinstance(value, float) and math.isfinite(value)):
        number = int(value)
    else:
        raise RowError("bad_type:ooni_run_link_id")
    if not 0 <= number <= MAX_RUN_LINK_ID:
        raise RowError("out_of_range:ooni_run_link_id")
    return number


def _plain(value: Any) -> Any:
    """Return the same JSON value with storable text; numbers that the encoder cannot hold become floats."""
    if isinstance(value, str):
        return storable(value)
    if isinstance(value, dict):
        return {storable(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        try:
            return float(value)
        except OverflowError:
            return None
    return value


def _parse_uid(uid: str) -> MeasurementUid | None:
    try:
        return parse_measurement_uid(uid)
    except IdentifierError:
        return None


def _parse_report_id(text: str) -> ReportId | None:
    try:
        return parse_report_id(text)
    except IdentifierError:
        return None
