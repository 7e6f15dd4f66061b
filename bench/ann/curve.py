"""Speed at a recall, from points of recall and speed."""

from __future__ import annotations

import math
from typing import Any


def at(points: list[dict[str, Any]], target: float, key: str = "queries/s") -> float | None:
    """Queries a second at a recall; None where no point reaches it.

    Between two points its logarithm is linear in recall. Where the first point already finds more, it is that point's.
    """
    before = None
    for point in points:
        if point["recall"] >= target:
            if before is None or point["recall"] == before["recall"]:
                return float(point[key])
            share = (target - before["recall"]) / (point["recall"] - before["recall"])
            return math.exp((1 - share) * math.log(before[key]) + share * math.log(point[key]))
        before = point
    return None
