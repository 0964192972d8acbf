"""How long answers take: one request after the other, and sixteen at the same time."""

import asyncio
import math
import time
from collections.abc import Sequence

from tests.load.bench_api.http import Connection, Failed

CLIENTS = 16
_AGAIN_S = 0.1
_MOST, _FEWEST = 100, 30
_SECONDS = 1.2  # after which _FEWEST samples are enough
_LONGEST_S = 10.0  # after which any number is
_AT_ONCE_MOST, _AT_ONCE_FEWEST = 320, 64


async def one_client(connection: Connection, path: str) -> list[float]:
    """Return the seconds of each request, ascending; the first two, which warm up, are left out."""
    for _ in range(2):
        await connection.get(path)
    taken: list[float] = []
    started = time.perf_counter()
    while len(taken) < _MOST:
        before = time.perf_counter()
        await connection.get(path)
        after = time.perf_counter()
        taken.append(after - before)
        if (after - started > _SECONDS and len(taken) >= _FEWEST) or after - started > _LONGEST_S:
            break
    return sorted(taken)


async def many_clients(connections: Sequence[Connection], path: str) -> tuple[list[float], int]:
    """Have all connections ask all the time.

    Returns the seconds of each request that was answered, ascending, and how many were refused: a server that has too
    much to do says so, and is asked again.
    """
    taken: list[float] = []
    refused = 0
    started = time.perf_counter()

    async def ask(connection: Connection) -> None:
        nonlocal refused
        while len(taken) < _AT_ONCE_MOST:
            before = time.perf_counter()
            try:
                await connection.get(path)
            except Failed:
                refused += 1
                await asyncio.sleep(_AGAIN_S)
                after = time.perf_counter()
            else:
                after = time.perf_counter()
                taken.append(after - before)
            if (after - started > _SECONDS and len(taken) >= _AT_ONCE_FEWEST) or after - started > _LONGEST_S:
                return

    await asyncio.gather(*map(ask, connections))
    return sorted(taken), refused


def percentile(ordered: Sequence[float], share: float) -> float:
    """Return the value below which `share` of ascending values are (nearest rank), in milliseconds."""
    return ordered[min(len(ordered) - 1, math.ceil(len(ordered) * share) - 1)] * 1000 if ordered else math.nan
