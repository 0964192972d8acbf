"""Numbers of run links and of their revisions in paths; anything else in their place is no such path."""

from flask.blueprints import BlueprintSetupState
from werkzeug.routing import BaseConverter

LATEST = "latest"


class LinkConverter(BaseConverter):
    """The number of a run link, of at most 18 digits: more fit no column."""

    regex = "[0-9]{1,18}"

    def to_python(self, value: str) -> int:
        """Return the number."""
        return int(value)


class RevisionConverter(BaseConverter):
    """The number of a revision, None for `latest`."""

    regex = f"{LATEST}|[0-9]{{1,9}}"

    def to_python(self, value: str) -> int | None:
        """Return the number."""
        return None if value == LATEST else int(value)


def know_numbers(state: BlueprintSetupState) -> None:
    """Make both known to the application, as `<link:…>` and `<revision:…>`."""
    state.app.url_map.converters.update(link=LinkConverter, revision=RevisionConverter)
