"""Scoring: one pure module per experiment, `score(measurement, matcher) -> scores`, and the dispatch by test name.

To add an experiment: write its module here, add it to `SCORERS` and its name to the known test names, and put golden
files named for their reason under tests/golden/<experiment>/.
"""

from collections.abc import Callable
from types import MappingProxyType

from fastpath.matcher import Matcher
from fastpath.score import (
    browser_web,
    dash,
    dns_consistency,
    facebook_messenger,
    http_header_field_manipulation,
    http_invalid_request_line,
    http_requests,
    meek_fronted_requests_test,
    ndt,
    openvpn,
    psiphon,
    riseupvpn,
    signal,
    stunreachability,
    tcp_connect,
    telegram,
    tor,
    torsf,
    vanilla_tor,
    web_connectivity,
    whatsapp,
)
from fastpath.score.common import failed_scores
from fastpath.shape import JsonObject, Measurement, ShapeError

Scorer = Callable[[Measurement, Matcher], JsonObject]

SCORERS: MappingProxyType[str, Scorer] = MappingProxyType(
    {
        module.__name__.rpartition(".")[2]: module.score
        for module in (
            telegram,
            facebook_messenger,
            http_header_field_manipulation,
            http_invalid_request_line,
            whatsapp,
            vanilla_tor,
            web_connectivity,
            ndt,
            tcp_connect,
            dash,
            meek_fronted_requests_test,
            psiphon,
            tor,
            http_requests,
            dns_consistency,
            signal,
            stunreachability,
            torsf,
            riseupvpn,
            openvpn,
            browser_web,
        )
    }
)
"""The scored experiments by exact test name (the wire contract, 5.0)."""


def score_measurement(measurement: Measurement, matcher: Matcher) -> JsonObject:
    """Return the scores of a measurement; experiments without a rule count as failed (accuracy 0).

    Raises:
        ShapeError: a value that the rule reads has a type that it cannot work with, or there is no `test_name`.
    """
    if "test_name" not in measurement:
        raise ShapeError("test_name")
    name = measurement["test_name"]
    scorer = SCORERS.get(name) if type(name) is str else None
    return failed_scores() if scorer is None else scorer(measurement, matcher)
