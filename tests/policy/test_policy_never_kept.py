"""nginx passes by its cache what the API says is never kept, and nothing else."""

import re
from pathlib import Path

import pytest

from api.openapi import caching
from api.openapi.document import OPERATIONS
from api.openapi.model import Operation

TEMPLATE = Path(__file__).parents[2] / "roles/ooni_api/templates/nginx-http.conf.j2"
(MAP,) = re.findall(r"map \$uri \$ooni_api_never_kept \{(.*?)\n\}", TEMPLATE.read_text(), re.DOTALL)
PATTERNS = [re.compile(text) for text in re.findall(r'"~(.+)" 1;', MAP)]
GETS = sorted((operation for operation in OPERATIONS if operation.method == "get"), key=lambda each: each.path)


def is_never_kept(operation: Operation) -> bool:
    """Whether the usual reply may not be kept, be it for its Cache-Control or because it is a refusal."""
    cache = caching.usual(operation) or ""
    refused = all(status >= 400 for status in operation.replies)
    return refused or "no-cache" in cache or cache == "max-age=0"


@pytest.mark.parametrize("operation", GETS, ids=[operation.path for operation in GETS])
def test_what_is_never_kept_passes_the_cache_by(operation: Operation) -> None:
    path = re.sub(r"\{[^}]*\}", "x", operation.path)
    assert any(pattern.search(path) for pattern in PATTERNS) is is_never_kept(operation)


def test_every_pattern_is_of_a_route() -> None:
    paths = [re.sub(r"\{[^}]*\}", "x", operation.path) for operation in GETS]
    assert PATTERNS
    for pattern in PATTERNS:
        assert any(pattern.search(path) for path in paths), pattern.pattern
