"""Descriptions of the statistics of websites, messengers and circumvention tools."""

from api.openapi.model import INTEGER, NUMBER, TEXT, Parameter, listed, nullable, record, text
from api.openapi.schemas import URL
from api.openapi.statistic_forms import (
    COUNTRY,
    DAY,
    EXCLUSIVE,
    METADATA,
    METADATA_EXAMPLE,
    MIDNIGHT,
    NETWORK,
    PAGE,
    required,
    results,
    statistic,
    versioned,
)
from api.statistics_coverage import TEST_GROUPS

_MESSENGERS = TEST_GROUPS["im"]
_WEBSITE_COUNTS = {
    "anomaly_count": INTEGER,
    "confirmed_count": INTEGER,
    "failure_count": INTEGER,
    "total_count": INTEGER,
}
_WEBSITE_EXAMPLE = {"anomaly_count": 1, "confirmed_count": 1, "failure_count": 1, "total_count": 4}
_IM_NETWORKS = listed(record({"asn": INTEGER, "name": TEXT, "total_count": INTEGER, "last_tested": DAY}))

_DOMAINS = (
    statistic(
        "domains",
        "List the domains of the test lists",
        versioned(record({"domain_name": TEXT, "category_code": TEXT, "measurement_count": INTEGER})),
        {"results": [{"domain_name": "www.example.org", "category_code": "NEWS", "measurement_count": 14}], "v": 0},
        more="By name, with the measurements of websites of all time.",
    ),
    statistic(
        "domain_metadata",
        "Show the category of a domain",
        record({"canonical_domain": TEXT, "category_code": TEXT}),
        {"canonical_domain": "www.example.org", "category_code": "NEWS"},
        more="And under which name it is measured: with www or without. MISC when no test list has it.",
        parameters=(required(Parameter("domain", TEXT, "Domain, with www or without.", example="example.org")),),
        csv=False,
    ),
    statistic(
        "website_networks",
        "List the networks of a country that measured websites",
        results(record({"count": INTEGER, "probe_asn": INTEGER})),
        {"results": [{"count": 8, "probe_asn": 30722}]},
        more="In the last 31 days, the busiest first.",
        parameters=(COUNTRY,),
    ),
    statistic(
        "website_stats",
        "Show how a website fared on one network by day",
        results(record({"test_day": DAY, **_WEBSITE_COUNTS})),
        {"results": [{"test_day": "2024-01-01", **_WEBSITE_EXAMPLE}]},
        more=f"In the last 31 days, those on which it was measured. {EXCLUSIVE}",
        parameters=(
            COUNTRY,
            NETWORK,
            required(Parameter("input", TEXT, "The URL as it was measured.", example=URL)),
        ),
    ),
    statistic(
        "website_urls",
        "List the websites that were measured from one network",
        record({"metadata": METADATA, "results": listed(record({"input": TEXT, **_WEBSITE_COUNTS}))}),
        {"metadata": METADATA_EXAMPLE, "results": [{"input": URL, **_WEBSITE_EXAMPLE}]},
        more=f"In the last 31 days, those with confirmed blocking first. {EXCLUSIVE}",
        parameters=(COUNTRY, NETWORK, *PAGE),
    ),
)

_MESSENGING = (
    statistic(
        "im_networks",
        "Show where messengers work in a country",
        {
            "type": "object",
            "properties": {
                test: record({"anomaly_networks": _IM_NETWORKS, "ok_networks": _IM_NETWORKS, "last_tested": DAY})
                for test in _MESSENGERS
            },
            "additionalProperties": False,
        },
        {
            "signal": {
                "anomaly_networks": [],
                "ok_networks": [{"asn": 30722, "name": "Example ISP", "total_count": 4, "last_tested": "2024-01-30"}],
                "last_tested": "2024-01-30",
            }
        },
        more="Networks of the last 31 days, anomalous when of more than 5 measurements less than 60 % were fine.",
        parameters=(COUNTRY,),
        csv=False,
    ),
    statistic(
        "im_stats",
        "Count the tests of a messenger on one network by day",
        results(record({"test_day": MIDNIGHT, "total_count": INTEGER, "anomaly_count": nullable(INTEGER)})),
        {"results": [{"test_day": "2024-01-01T00:00:00+00:00", "total_count": 1, "anomaly_count": None}]},
        more="The last 31 days and today.",
        parameters=(
            COUNTRY,
            NETWORK,
            required(Parameter("test_name", text(enum=list(_MESSENGERS)), "The messenger's test.", example="signal")),
        ),
    ),
)

_CIRCUMVENTION = (
    statistic(
        "vanilla_tor_stats",
        "Show where Tor works in a country",
        record(
            {
                "last_tested": nullable(DAY),
                "networks": listed(
                    record(
                        {
                            "failure_count": INTEGER,
                            "last_tested": DAY,
                            "probe_asn": INTEGER,
                            "success_count": INTEGER,
                            "test_runtime_avg": nullable(NUMBER),
                            "test_runtime_max": nullable(NUMBER),
                            "test_runtime_min": nullable(NUMBER),
                            "total_count": INTEGER,
                        }
                    )
                ),
                "notok_networks": INTEGER,
            }
        ),
        {
            "last_tested": "2024-01-30",
            "networks": [
                {
                    "failure_count": 0,
                    "last_tested": "2024-01-30",
                    "probe_asn": 30722,
                    "success_count": 5,
                    "test_runtime_avg": None,
                    "test_runtime_max": None,
                    "test_runtime_min": None,
                    "total_count": 5,
                }
            ],
            "notok_networks": 0,
        },
        more="In the last six months. A network is not OK when of more than 5 measurements less than 60 % were fine.",
        parameters=(COUNTRY,),
    ),
    statistic(
        "circumvention_stats_by_country",
        "Count tests of circumvention tools by country",
        versioned(record({"probe_cc": TEXT, "cnt": INTEGER})),
        {"results": [{"probe_cc": "IT", "cnt": 25}], "v": 0},
        more="In the last six months, without yesterday and today.",
    ),
    statistic(
        "circumvention_runtime_stats",
        "Show how long tests of circumvention tools take",
        versioned(record({"date": DAY, "probe_cc": TEXT, "test_name": TEXT, "v": {"type": "array", "items": NUMBER}})),
        {"results": [{"date": "2024-01-01", "probe_cc": "IT", "test_name": "tor", "v": [1.5, 1.5, 1]}], "v": 0},
        more="Median and 90th percentile in seconds, and how many there were, by test, country and day of the last six "
        "months, without yesterday and today; empty when there were none.",
    ),
)

OPERATIONS = (*_DOMAINS, *_MESSENGING, *_CIRCUMVENTION)
