"""Report ids and measurement uids: made, taken apart and checked in one place.

A report id describes itself (time, test, country, network), so nothing about a report is stored when it is opened. A
measurement uid sorts by the time of receipt, which makes it the name of the spool file and the key of the row.
"""

import base64
import hashlib
import re
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime

MAX_REPORT_ID_LENGTH = 256
"""Longest report id accepted on a path, in characters; current ones have about 60, the oldest 80."""

_UID = re.compile(r"(2\d{13})\.(\d{6})_([0-9A-Za-z]{2})_([0-9A-Za-z]{2,29})_([0-9a-f]{16})", re.ASCII)
_PRINTABLE_PART = re.compile(r"[0-9A-Za-z.:+-]+", re.ASCII)
_TEST_NAME = re.compile(r"[0-9A-Za-z]{2,29}", re.ASCII)
_COUNTRY = re.compile(r"[0-9A-Za-z]{2}", re.ASCII)
_ASN = re.compile(r"[0-9]{1,10}", re.ASCII)


class IdentifierError(ValueError):
    """The text is no report id or no measurement uid; the message says which part is wrong."""


@dataclass(frozen=True, slots=True)
class ReportId:
    """The six parts of `<YYYYMMDD>T<HHMMSS>Z_<testname>_<CC>_<asn>_n<collector>_<rand>`.

    `test_name` has no underscores and `asn` no `AS`; `cc` keeps the letter case of the text.
    """

    timestamp: str
    test_name: str
    cc: str
    asn: int
    collector: str
    rand: str

    def __str__(self) -> str:
        return f"{self.timestamp}_{self.test_name}_{self.cc}_{self.asn}_n{self.collector}_{self.rand}"


@dataclass(frozen=True, slots=True)
class MeasurementUid:
    """The parts of `<YYYYMMDDHHMMSS>.<microseconds>_<CC>_<testname>_<hash>`; `received_at` is in UTC."""

    received_at: datetime
    cc: str
    test_name: str
    digest: str

    def __str__(self) -> str:
        return f"{self.received_at:%Y%m%d%H%M%S.%f}_{self.cc}_{self.test_name}_{self.digest}"


def new_report_id(
    now: datetime, test_name: str, cc: str, asn: int, collector_id: str, *, chance: bytes | None = None
) -> str:
    """Return a fresh report id; `now` is an aware time, `test_name` may carry underscores.

    The last part is 12 random bytes in base64 with both of its non-alphanumeric symbols replaced by the letter o.
    `chance` gives these bytes, for an id that has to come out the same again.
    """
    rand = base64.b64encode(secrets.token_bytes(12) if chance is None else chance[:12], altchars=b"oo").decode("ascii")
    stamp = f"{now.astimezone(UTC):%Y%m%dT%H%M%SZ}"
    return str(ReportId(stamp, test_name.replace("_", ""), cc, asn, collector_id, rand))


def parse_report_id(text: str) -> ReportId:
    """Take a report id apart.

    Checks what a submission depends on: six parts, an alphanumeric country code of two characters, an alphanumeric test
    name of 2 to 29, a numeric network. Time and random part are not verified, since ids come from other collectors too;
    they must only be printable, because the text ends up in file headers.

    Raises:
        IdentifierError: naming the part that is wrong.
    """
    if len(text) > MAX_REPORT_ID_LENGTH:
        raise IdentifierError(f"The report id has {len(text)} characters; at most {MAX_REPORT_ID_LENGTH} are allowed.")
    parts = text.split("_")
    if len(parts) != 6:
        raise IdentifierError(f"The report id has {len(parts)} parts; six, separated by '_', are needed.")
    timestamp, test_name, cc, asn, collector, rand = parts
    if not _COUNTRY.fullmatch(cc):
        raise IdentifierError("The country code in the report id is not two letters.")
    if not _TEST_NAME.fullmatch(test_name):
        raise IdentifierError("The test name in the report id is not 2 to 29 letters and digits.")
    if not _ASN.fullmatch(asn):
        raise IdentifierError("The network in the report id is not a number.")
    for part in (timestamp, collector, rand):
        if not _PRINTABLE_PART.fullmatch(part):
            raise IdentifierError("The report id holds characters other than letters, digits and . : + -")
    return ReportId(timestamp, test_name, cc, int(asn), collector.removeprefix("n"), rand)


def new_measurement_uid(now: datetime, cc: str, test_name: str, body: bytes) -> str:
    """Return the uid of a measurement received at `now` (aware) with the decompressed request body `body`.

    The hash is the first 16 hexadecimal digits of the body's SHA-512.
    """
    return measurement_uid_of(now, cc, test_name, hashlib.sha512(body).hexdigest())


def measurement_uid_of(now: datetime, cc: str, test_name: str, sha512: str) -> str:
    """Return the uid as `new_measurement_uid` does, for a body whose SHA-512 is known in hexadecimal digits."""
    digest = sha512[:16]
    return str(MeasurementUid(now.astimezone(UTC), cc, test_name.replace("_", ""), digest))


def parse_measurement_uid(text: str) -> MeasurementUid:
    """Take a measurement uid of the current form apart.

    Raises:
        IdentifierError: the text has another form (such as the synthetic uids of measurements before 2020) or holds an
            impossible time.
    """
    match = _UID.fullmatch(text)
    if match is None:
        raise IdentifierError(
            "The measurement uid does not have the form YYYYMMDDHHMMSS.ffffff_CC_testname_16hexdigits."
        )
    stamp, microseconds, cc, test_name, digest = match.groups()
    try:
        received_at = datetime.strptime(stamp + microseconds, "%Y%m%d%H%M%S%f").replace(tzinfo=UTC)
    except ValueError as error:
        raise IdentifierError(f"The measurement uid holds an impossible time: {error}.") from None
    return MeasurementUid(received_at, cc, test_name, digest)


def spool_directory(uid: str) -> str:
    """Return the name of the directory that a measurement is kept in: `<YYYYMMDDHH>_<CC>_<testname>`.

    Raises:
        IdentifierError: as `parse_measurement_uid`.
    """
    parsed = parse_measurement_uid(uid)
    return f"{uid[:10]}_{parsed.cc}_{parsed.test_name}"


def legacy_measurement_uid(raw: bytes, measurement_start_time: str) -> str:
    """Return the synthetic uid of a measurement that predates uids: `01`, the day, 30 hexadecimal digits.

    `raw` is the record with its line end; the day is eight zeros when `measurement_start_time`
    (`YYYY-MM-DD hh:mm:ss`) does not parse. The digits are SHAKE-128 with 15 bytes of output.
    """
    try:
        day = datetime.strptime(measurement_start_time, "%Y-%m-%d %H:%M:%S").strftime("%Y%m%d")  # noqa: DTZ007 only its date is used
    except ValueError:
        day = "00000000"
    return f"01{day}{hashlib.shake_128(raw).hexdigest(15)}"
