"""One measurement in, one outcome out: the whole of scoring as a function without side effects.

Signatures that the daemon and the rerun command use:

    fingerprints.load_files(directory) / from_rows(dns_rows, http_rows) -> FingerprintSet
    Matcher(fingerprint_set, mode="declared" | "reference")     immutable; build a new one and swap the reference;
                                                                safe to use from many threads
    process(uid, body, matcher, *, report_id=None) -> Outcome   never raises; the mode is the matcher's
    outcome.row.as_dict()                                       the columns by name; `test_name` is the name as sent

`Outcome.kind`:

    "row"        `row` is to be written; `scores` and `flags` are set. `reason` is None for an ordinary row, else says
                 why the document could not be scored (accuracy 0: a failed measurement, never anomaly nor confirmed)
    "discarded"  not to be written on purpose: `no_report_id`, `country_unknown`, `network_unknown`
    "rejected"   nothing can be written, because not even country, network and time are known; quarantine it under
                 `reason`

A `reason` that starts with `internal_error:` is a defect of this program: count and log it, keep the body.
"""

from typing import Literal

import msgspec

from core.envelope import DocumentError
from fastpath.document import COUNTRY_UNKNOWN, NETWORK_UNKNOWN, Document, discard_reason, open_document, salvage
from fastpath.matcher import Matcher
from fastpath.openvpn_rows import TEST_NAME as OPENVPN
from fastpath.openvpn_rows import observe
from fastpath.row import Row, RowError, Unidentifiable, build_row, fallback_row
from fastpath.score import score_measurement
from fastpath.score.common import failed_scores
from fastpath.score.flags import Flags, check_start_time, derive_flags
from fastpath.shape import JsonObject, ShapeError

Kind = Literal["row", "discarded", "rejected"]


class Outcome(msgspec.Struct, frozen=True):
    """What became of one measurement; see the module's description."""

    kind: Kind
    reason: str | None = None
    scores: JsonObject | None = None
    flags: Flags | None = None
    row: Row | None = None


def process(uid: str, body: bytes, matcher: Matcher, *, report_id: str | None = None) -> Outcome:
    """Score the measurement `uid` with the decompressed `body`.

    `report_id` is the one that the measurement was submitted under, for documents that do not tell it.
    """
    if not uid:
        return Outcome("rejected", "no_measurement_uid")
    document: Document | None = None
    try:
        document = open_document(body, uid)
        measurement = document.measurement
        discarded = discard_reason(measurement)
        if discarded is not None:
            return Outcome("discarded", discarded)
        scores = score_measurement(measurement, matcher)
        started = check_start_time(scores, measurement, uid)
        flags = derive_flags(scores)
        row = _observed(build_row(uid, document, scores, flags, started), document)
    except (DocumentError, RowError) as error:
        reason = error.reason
    except ShapeError as error:
        reason = f"scorer_type_error:{error.place}"
    except RecursionError:
        reason = "too_deep"
    except Exception as error:  # noqa: BLE001 no document may stop the others; the reason makes the defect visible
        reason = _internal(error)
    else:
        return Outcome("row", None, scores, flags, row)
    return _without_scores(uid, document or salvage(body), reason, report_id)


def _without_scores(uid: str, document: Document | None, reason: str, report_id: str | None) -> Outcome:
    try:
        row = _observed(fallback_row(uid, document, reason, report_id), document)
    except Unidentifiable as error:
        return Outcome("rejected", f"unidentifiable:{error.field}:{reason}")
    except Exception as error:  # noqa: BLE001 as above
        return Outcome("rejected", _internal(error))
    if row.probe_cc.upper() == "ZZ":
        return Outcome("discarded", COUNTRY_UNKNOWN)
    if row.probe_asn == 0:
        return Outcome("discarded", NETWORK_UNKNOWN)
    return Outcome("row", reason, failed_scores(), Flags(anomaly=False, confirmed=False, msm_failure=True), row)


def _observed(row: Row, document: Document | None) -> Row:
    """Return the row with what the document observed besides, for the one test that has a table of its own."""
    if row.test_name != OPENVPN or document is None:
        return row
    return msgspec.structs.replace(row, observation=observe(document.measurement))


def _internal(error: Exception) -> str:
    return f"internal_error:{type(error).__name__}"
