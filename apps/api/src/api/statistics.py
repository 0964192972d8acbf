"""The statistics under `/api/_/`: all answered from the counters, none from a scan of the measurements."""

from api import (
    statistics_circumvention,
    statistics_coverage,
    statistics_domains,
    statistics_messaging,
    statistics_networks,
    statistics_overview,
    statistics_websites,
)

BLUEPRINTS = (
    statistics_overview.blueprint,
    statistics_coverage.blueprint,
    statistics_networks.blueprint,
    statistics_domains.blueprint,
    statistics_websites.blueprint,
    statistics_messaging.blueprint,
    statistics_circumvention.blueprint,
)
"""The routes, in the order of the contract's groups."""
