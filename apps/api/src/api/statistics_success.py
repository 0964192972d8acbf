"""When something counts as not working on a network: one rule for Tor and for messengers."""

_FEW = 5
_LEAST_SUCCESS = 0.6


def is_not_ok(anomalies: int, total: int) -> bool:
    """Return whether there are more than 5 measurements, and less than 60 % of them are free of anomalies.

    Args:
        anomalies: measurements with an anomaly, confirmed or not; those that failed are none.
        total: all measurements.
    """
    return total > _FEW and (total - anomalies) / total < _LEAST_SUCCESS
