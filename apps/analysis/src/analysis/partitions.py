"""Job `ensure-partitions`: the monthly partitions of this month and the ones ahead, before rows need them.

Rows of a month without a partition go to the default partition. They are found there as well, only slower, and making
the partition later has to move them; so the months ahead are made early.
"""

from analysis.config import AnalysisSettings
from analysis.metrics import Metrics
from analysis.store import Store


def ensure_partitions(store: Store, settings: AnalysisSettings, metrics: Metrics, *, dry_run: bool) -> str:
    """Make what is missing, or only name it; return a sentence. Raises StoreError, DatabaseUnavailable."""
    months = settings.partitions_months_ahead
    if dry_run:
        missing = store.missing_partitions(months)
        return f"would make {', '.join(missing)}" if missing else "all partitions are there"
    made = store.ensure_partitions(months)
    in_default = store.default_rows()
    metrics.partitions_made.set(made)
    metrics.default_rows.set(in_default)
    return f"made {made} partitions; the default partition holds {in_default} rows"
