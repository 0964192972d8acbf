"""facebook_messenger: DNS consistency and reachability of seven services (the wire contract, 5.5)."""

from fastpath.matcher import Matcher
from fastpath.score.common import base_scores
from fastpath.shape import JsonObject, Measurement, get_test_keys

CONSISTENCY_KEYS = (
    "facebook_b_api_dns_consistent",
    "facebook_b_api_reachable",
    "facebook_b_graph_dns_consistent",
    "facebook_b_graph_reachable",
    "facebook_edge_dns_consistent",
    "facebook_edge_reachable",
    "facebook_external_cdn_dns_consistent",
    "facebook_external_cdn_reachable",
    "facebook_scontent_cdn_dns_consistent",
    "facebook_scontent_cdn_reachable",
    "facebook_star_dns_consistent",
    "facebook_star_reachable",
    "facebook_stun_dns_consistent",
)
ANOMALY_KEYS = ("facebook_tcp_blocking", "facebook_dns_blocking")

# When all of these are true and TCP is not blocked, `facebook_dns_blocking` is a known false alarm of the probe.
FALSE_ALARM_KEYS = (
    *(key for key in CONSISTENCY_KEYS if "_cdn_" not in key),
    "facebook_dns_blocking",
)


def score(measurement: Measurement, _matcher: Matcher) -> JsonObject:
    """Half a point per indicator of blocking; each is recorded under its own key."""
    scores = base_scores()
    test_keys = get_test_keys(measurement)
    if test_keys.get("facebook_tcp_blocking") is False and all(test_keys.get(key) is True for key in FALSE_ALARM_KEYS):
        return scores
    total = 0.0
    for key in CONSISTENCY_KEYS:
        if test_keys.get(key) is False:
            scores[key] = False
            total += 0.5
    for key in ANOMALY_KEYS:
        if test_keys.get(key) is True:
            scores[key] = True
            total += 0.5
    scores["blocking_general"] = total
    return scores
