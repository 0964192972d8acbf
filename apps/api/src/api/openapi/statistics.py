"""Descriptions of the statistics under `/api/_/`."""

from api.openapi import statistics_blocking
from api.openapi.model import INTEGER, TEXT, Parameter, listed, record, text
from api.openapi.schemas import comma_list
from api.openapi.statistic_forms import (
    COUNTRY,
    DAY,
    EXCLUSIVE,
    METADATA,
    METADATA_EXAMPLE,
    MIDNIGHT,
    PAGE,
    TAG,
    required,
    statistic,
    versioned,
)
from api.statistics_coverage import TEST_GROUPS

__all__ = ["OPERATIONS", "TAG"]

_MONTHS = listed(record({"date": MIDNIGHT, "value": INTEGER}))
_MONTHS_EXAMPLE = [{"date": "2024-01-01T00:00:00+00:00", "value": 3}]

_GLOBAL = (
    statistic(
        "asn_by_month",
        "Count networks by month",
        _MONTHS,
        _MONTHS_EXAMPLE,
        more="The last 24 months, the current one included; a month without measurements has 0.",
    ),
    statistic(
        "countries_by_month",
        "Count countries by month",
        _MONTHS,
        _MONTHS_EXAMPLE,
        more="The last 24 months, the current one included; a month without measurements has 0.",
    ),
    statistic(
        "global_overview",
        "Count networks, countries and measurements",
        record({"network_count": INTEGER, "country_count": INTEGER, "measurement_count": INTEGER}),
        {"network_count": 3, "country_count": 3, "measurement_count": 90},
        more="Of all time.",
        csv=False,
    ),
    statistic(
        "global_overview_by_month",
        "Count networks, countries and measurements by month",
        record({"networks_by_month": _MONTHS, "countries_by_month": _MONTHS, "measurements_by_month": _MONTHS}),
        dict.fromkeys(("networks_by_month", "countries_by_month", "measurements_by_month"), _MONTHS_EXAMPLE),
        more="The last 24 months, the current one included; a month without measurements has 0.",
        csv=False,
    ),
    statistic(
        "countries",
        "List countries",
        record({"countries": listed(record({"alpha_2": TEXT, "name": TEXT, "count": INTEGER}))}),
        {"countries": [{"alpha_2": "IT", "name": "Italy", "count": 70}]},
        more="With their measurements of all time; codes that are no country's are left out.",
    ),
    statistic(
        "country_overview",
        "Count networks and measurements of a country",
        record({"first_bucket_date": DAY, "measurement_count": INTEGER, "network_count": INTEGER}),
        {"first_bucket_date": "2024-01-01", "measurement_count": 70, "network_count": 1},
        more="Since December 2012. The first day is that of the oldest measurement, or today when there is none.",
        parameters=(COUNTRY,),
        csv=False,
    ),
)

_TESTS = (
    statistic(
        "test_names",
        "Name the tests for people",
        record({"test_names": listed(record({"id": TEXT, "name": TEXT}))}),
        {"test_names": [{"id": "bridge_reachability", "name": "Bridge Reachability"}]},
    ),
    statistic(
        "test_coverage",
        "Show how much was measured in a country lately",
        record(
            {
                "network_coverage": listed(record({"test_day": DAY, "count": INTEGER})),
                "test_coverage": listed(
                    record({"test_day": DAY, "test_group": text(enum=list(TEST_GROUPS)), "count": INTEGER})
                ),
            }
        ),
        {
            "network_coverage": [{"test_day": "2024-01-01", "count": 1}],
            "test_coverage": [{"test_day": "2024-01-01", "test_group": "websites", "count": 4}],
        },
        more="Networks that measured, and measurements of each group of tests, on the 30 days before yesterday.",
        parameters=(
            COUNTRY,
            comma_list("test_groups", "Groups whose tests make a network count; all when empty.", "websites,im"),
        ),
        csv=False,
    ),
)

_NETWORKS = (
    statistic(
        "networks",
        "List networks",
        versioned(record({"probe_asn": INTEGER, "cnt": INTEGER, "org_name": TEXT})),
        {"results": [{"probe_asn": 30722, "cnt": 70, "org_name": "Example ISP"}], "v": 0},
        more="All that were ever measured from, by number; the name is empty when it is not known.",
    ),
    statistic(
        "asnmeta",
        "Name a network",
        record({"org_name": TEXT}),
        {"org_name": "Example ISP"},
        more="The latest name, or Unknown.",
        parameters=(
            required(Parameter("asn", text("(AS)?[0-9]{1,10}"), "Network, with or without AS.", example="30722")),
        ),
        csv=False,
    ),
    statistic(
        "network_stats",
        "List the networks of a country",
        record(
            {
                "metadata": METADATA,
                "results": listed(
                    record(
                        {
                            "anomaly_count": INTEGER,
                            "confirmed_count": INTEGER,
                            "failure_count": INTEGER,
                            "last_tested": DAY,
                            "measurement_count": INTEGER,
                            "ok_count": INTEGER,
                            "org_name": TEXT,
                            "probe_asn": INTEGER,
                        }
                    )
                ),
            }
        ),
        {
            "metadata": METADATA_EXAMPLE,
            "results": [
                {
                    "anomaly_count": 1,
                    "confirmed_count": 1,
                    "failure_count": 1,
                    "last_tested": "2024-01-30",
                    "measurement_count": 60,
                    "ok_count": 57,
                    "org_name": "Example ISP",
                    "probe_asn": 30722,
                }
            ],
        },
        more=f"With the measurements of the last 31 days, the busiest first. {EXCLUSIVE}",
        parameters=(COUNTRY, *PAGE),
    ),
)

OPERATIONS = (*_GLOBAL, *_TESTS, *_NETWORKS, *statistics_blocking.OPERATIONS)
