"""Descriptions of the routes about test lists and the order of their URLs."""

from api.openapi.model import (
    EMPTY,
    INTEGER,
    NUMBER,
    QUERY_ERRORS,
    TEXT,
    Operation,
    Parameter,
    Reply,
    Schema,
    listed,
    nullable,
    record,
    ref,
    text,
)
from api.openapi.schemas import URL, comma_list, flag

TAG = "test lists"

_CATEGORIES = comma_list("category_codes", "Categories to choose from; all when empty.", "NEWS", item="[A-Za-z]{1,20}")
_LIMIT = Parameter("limit", {**INTEGER, "minimum": -1, "default": -1}, "Number of URLs; -1 for all.", example=10)
_CC = text("([A-Za-z]{2})?")
_RULE = {"category_code": "NEWS", "cc": "*", "domain": "*", "priority": 100, "url": "*"}
_EXPLAINED: dict[str, Schema] = {
    "category_code": TEXT,
    "country_code": TEXT,
    "msmt_cnt": INTEGER,
    "priority": INTEGER,
    "url": TEXT,
    "weight": NUMBER,
}

OPERATIONS = (
    Operation(
        "get",
        "/api/v1/test-list/urls",
        TAG,
        "List URLs to measure in a country",
        text="Probes ask this: what cannot be understood is answered with 200 and an empty object.",
        parameters=(
            Parameter("country_code", _CC, "Country; the global list alone when there is none.", example="IT"),
            Parameter("probe_cc", _CC, "The same, when there is no country_code.", example="IT"),
            _CATEGORIES,
            comma_list("category_code", "The same, when there are no category_codes.", "NEWS", item="[A-Za-z]{1,20}"),
            _LIMIT,
            flag("debug", "Whether to add what the order is made of."),
        ),
        replies={
            200: Reply(
                "The URLs, the most wanted first.",
                {
                    "anyOf": [
                        record(
                            {
                                "metadata": record(
                                    {
                                        "count": INTEGER,
                                        "current_page": INTEGER,
                                        "limit": INTEGER,
                                        "next_url": TEXT,
                                        "pages": INTEGER,
                                    }
                                ),
                                "results": listed(record(_EXPLAINED, optional=("msmt_cnt", "priority", "weight"))),
                            }
                        ),
                        EMPTY,
                    ]
                },
                {
                    "metadata": {"count": 1, "current_page": -1, "limit": -1, "next_url": "", "pages": 1},
                    "results": [{"category_code": "NEWS", "country_code": "XX", "url": URL}],
                },
            )
        },
    ),
    Operation(
        "get",
        "/api/_/debug_prioritization",
        TAG,
        "Show how URLs are ranked for one network",
        parameters=(
            Parameter("probe_cc", _CC, "Country; the global list alone when there is none.", example="IT"),
            Parameter("probe_asn", text("((AS)?[0-9]{1,10})?"), "Network; all when there is none.", example="AS30722"),
            _CATEGORIES,
            _LIMIT,
        ),
        replies={
            200: Reply(
                "The result, all candidates, and the rules considered.",
                record(
                    {
                        "entries": listed({"type": "object"}),
                        "prio_rules": listed(ref("Rule")),
                        "test_items": listed(record(_EXPLAINED)),
                    }
                ),
                {
                    "entries": [
                        {"category_code": "NEWS", "cc": "ZZ", "domain": "www.example.org", "msmt_cnt": 5, "url": URL}
                    ],
                    "prio_rules": [_RULE],
                    "test_items": [
                        {
                            "category_code": "NEWS",
                            "country_code": "XX",
                            "msmt_cnt": 5,
                            "priority": 100,
                            "url": URL,
                            "weight": 20.0,
                        }
                    ],
                },
            )
        },
        errors=QUERY_ERRORS,
    ),
    Operation(
        "get",
        "/api/_/show_countries_prioritization",
        TAG,
        "Show the priority of every entry of every list",
        parameters=(Parameter("format", text("([Jj][Ss][Oo][Nn]|[Cc][Ss][Vv])?"), "JSON or CSV.", example="JSON"),),
        replies={
            200: (
                Reply(
                    "All entries, by country and priority, with the measurements of the last week.",
                    listed(
                        record(
                            {
                                "anomaly_perc": nullable(INTEGER),
                                "category_code": TEXT,
                                "cc": TEXT,
                                "domain": TEXT,
                                "msmt_cnt": INTEGER,
                                "priority": INTEGER,
                                "url": TEXT,
                            }
                        )
                    ),
                    [
                        {
                            "anomaly_perc": 10,
                            "category_code": "NEWS",
                            "cc": "IT",
                            "domain": "www.example.org",
                            "msmt_cnt": 5,
                            "priority": 100,
                            "url": URL,
                        }
                    ],
                ),
                Reply("The same as CSV.", TEXT, media="text/csv"),
            )
        },
        errors=QUERY_ERRORS,
    ),
    Operation(
        "get",
        "/api/_/url-priorities/list",
        TAG,
        "List the rules that the order of URLs comes from",
        replies={200: Reply("The rules.", record({"rules": listed(ref("Rule"))}), {"rules": [_RULE]})},
        errors=(503, 504),
    ),
)
