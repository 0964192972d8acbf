"""What signed-in people say that a measurement shows: one status per measurement and account, the last one counts."""

from flask import Blueprint, Response

from api.daily_bounds import check_daily
from api.errors import ApiError, bad_request
from api.json_fields import Fields, json_members
from api.params import is_uid
from api.responses import NO_CACHE, json_response
from api.services import services
from api.signed_in import Account, current_account, require_account
from api.writing import Work, writing

STATUSES = (
    "ok",
    *("down", "down.unreachable", "down.misconfigured"),
    *("blocked", "blocked.blockpage", "blocked.blockpage.http", "blocked.blockpage.dns"),
    *("blocked.blockpage.server_side", "blocked.blockpage.server_side.captcha"),
    *("blocked.dns", "blocked.dns.inconsistent", "blocked.dns.nxdomain", "blocked.tcp", "blocked.tls"),
)
"""What somebody may say."""

MOST_IN_A_DAY = 1_000
"""Times that one account may submit or change feedback in a day."""

SUBMITTED = "feedback.submit"

_SUMMARY = """SELECT status, count(*) AS people, coalesce(bool_or(account_id = %s), false) AS own
    FROM msmt_feedback WHERE measurement_uid = %s GROUP BY status"""
_OWN = "SELECT FROM msmt_feedback WHERE measurement_uid = %s AND account_id = %s AND status = %s"
_REPLACE = """INSERT INTO msmt_feedback (measurement_uid, account_id, status) VALUES (%s, %s, %s)
    ON CONFLICT (measurement_uid, account_id) DO UPDATE SET status = excluded.status, update_time = now()"""

blueprint = Blueprint("feedback", __name__)


@blueprint.get("/api/_/measurement_feedback/<uid>")
def get_msmt_feedback(uid: str) -> Response:
    """Count what people said of a measurement; who is signed in also gets the own answer."""
    if not is_uid(uid):
        raise _bad_uid()
    account = current_account()
    rows = services().reader.rows(_SUMMARY, [account.account_id if account else None, uid], narrow="Try again later.")
    reply: dict[str, object] = {"summary": {row["status"]: row["people"] for row in rows}}
    for row in rows:
        if row["own"]:
            reply["user_feedback"] = row["status"]
    return json_response(reply, cache="max-age=0")


@blueprint.post("/api/_/measurement_feedback")
def submit_msmt_feedback() -> Response:
    """Keep what the signed-in person says of a measurement, in place of what they said before."""
    account = require_account()
    sent = Fields({name: value.strip() if isinstance(value, str) else value for name, value in json_members().items()})
    uid, status = sent.text("measurement_uid"), sent.text("status")
    if not is_uid(uid):
        raise _bad_uid()
    if status not in STATUSES:
        raise bad_request("Invalid status", hint=f"Give one of {', '.join(STATUSES)}.")
    with writing(account) as work:
        _keep(work, account, uid, status)
    return json_response({}, cache=NO_CACHE)


def _keep(work: Work, account: Account, uid: str, status: str) -> None:
    check_daily(work, account, SUBMITTED, MOST_IN_A_DAY)
    if work.connection.execute(_OWN, [uid, account.account_id, status]).fetchone() is not None:
        work.nothing_to_record()
        return
    work.connection.execute(_REPLACE, [uid, account.account_id, status])
    work.record(SUBMITTED, uid, status=status)


def _bad_uid() -> ApiError:
    return bad_request("Invalid measurement_uid field", hint="Give the measurement_uid of a measurement.")
