"""Pages and redirects for people, crawlers, and links of earlier years."""

import re
from datetime import date, timedelta
from html import escape
from urllib.parse import quote

from flask import Blueprint, Response
from flask.blueprints import BlueprintSetupState
from werkzeug.routing import BaseConverter, ValidationError
from werkzeug.utils import redirect

from api.errors import bad_request
from api.services import services

_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", re.ASCII)
_CC = re.compile(r"[A-Za-z]{2}", re.ASCII)

ROBOTS = """\
User-agent: *
Disallow: /api/_
Disallow: /api/v1/aggregation
Disallow: /api/v1/measurement_meta
Disallow: /api/v1/raw_measurement
Disallow: /api/v1/test-list/urls
Disallow: /api/v1/torsf_stats
Disallow: /files
Disallow: /stats
Disallow: /201
Disallow: /202
Crawl-delay: 300
"""

_LANDING = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Measurement API</title>
<style>
body {{ font: 1rem/1.5 system-ui, sans-serif; margin: 3rem auto; max-width: 40rem; padding: 0 1rem; }}
code {{ background: #eee; padding: 0 .2em; }}
</style>
</head>
<body>
<h1>Welcome to the measurement API</h1>
<p>It takes measurements of Internet censorship from probes, and lets everybody search and read them.</p>
<ul>
<li><a href="/apidocs/">Documentation of the API</a></li>
<li><a href="{explorer}">Explore the measurements</a></li>
<li>Latest measurements as JSON: <a href="/api/v1/measurements?limit=10"><code>/api/v1/measurements</code></a></li>
</ul>
</body>
</html>
"""


class DayConverter(BaseConverter):
    """A day in a path, written 2024-01-31; days that never were do not match."""

    regex = _DAY.pattern

    def to_python(self, value: str) -> date:
        """Return the day. Raises ValidationError, which makes the path unknown."""
        try:
            return _with_next(date.fromisoformat(value))[0]
        except ValueError:
            raise ValidationError from None


blueprint = Blueprint("pages", __name__)


@blueprint.record_once
def _know_days(state: BlueprintSetupState) -> None:
    state.app.url_map.converters["day"] = DayConverter


@blueprint.get("/")
def landing() -> Response:
    """A page for people who open the address in a browser."""
    return Response(_LANDING.format(explorer=escape(_explorer(), quote=True)), mimetype="text/html")


@blueprint.get("/robots.txt")
def robots() -> Response:
    """What crawlers should leave alone."""
    response = Response(ROBOTS, mimetype="text/plain")
    response.headers["Cache-Control"] = "max-age=86400"
    return response


@blueprint.get("/stats")
def stats() -> Response:
    """Statistics are in the user interface."""
    return _moved("")


@blueprint.get("/files")
@blueprint.get("/files/by_date")
@blueprint.get("/files/by_country")
def files() -> Response:
    """Lists of files became a search."""
    return _moved("/search")


@blueprint.get("/files/by_date/<text>")
def files_by_date(text: str) -> Response:
    """The files of a day became a search."""
    try:
        if _DAY.fullmatch(text):
            return _moved_day(date.fromisoformat(text))
    except (ValueError, OverflowError):
        pass
    raise bad_request("Invalid date format", hint="Parameter date must be a day, written like 2024-01-31.")


@blueprint.get("/files/by_country/<cc>")
def files_by_country(cc: str) -> Response:
    """The files of a country became a search."""
    if not _CC.fullmatch(cc):
        raise bad_request("Country code must be two characters", hint="Parameter country must be like IT.")
    return _moved(f"/search?probe_cc={cc.upper()}")


@blueprint.get("/<day:day>")
def dated(day: date) -> Response:
    """The oldest form of links to the files of a day."""
    return _moved_day(day)


@blueprint.get("/<day:day>/<name>.json")
def dated_file(day: date, name: str) -> Response:  # noqa: ARG001 the file's name says it all
    """The oldest form of links to a file."""
    return _redirect(f"/files/download/{quote(name, safe='')}.json", 302)


@blueprint.get("/files/download/<path:name>")
def files_download(name: str) -> Response:  # noqa: ARG001 no file is offered any more
    """Files are no longer offered; the measurements that were in them are in the user interface."""
    return _moved("/search")


def _moved_day(day: date) -> Response:
    since, until = _with_next(day)
    return _moved(f"/search?until={until}&since={since}")


def _with_next(day: date) -> tuple[date, date]:
    try:
        return day, day + timedelta(days=1)
    except OverflowError:
        raise ValueError("the last day of the calendar") from None


def _moved(path: str) -> Response:
    return _redirect(_explorer() + path, 301)


def _explorer() -> str:
    return services().settings.explorer_url


def _redirect(location: str, status: int) -> Response:
    return redirect(location, status, Response)  # type: ignore[return-value]  # of the class given
