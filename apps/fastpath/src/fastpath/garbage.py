"""How the garbage collector is set in processes that decode documents."""

import gc


def tune_garbage_collector() -> None:
    """Have the collector look rarely: decoded documents hold no cycles, and a large one has a million containers.

    With the default thresholds such a document costs four times as much, all of it in the collector.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
