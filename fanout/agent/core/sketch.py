"""Metrics that merge: count, sum, min, max, and quantiles within 1% of the true value.  Pure.

The quantiles come from a histogram of logarithmic buckets (DDSketch, Masson et al., VLDB 2019): a value x > 0
falls into bucket ceil(log(x) / log(GAMMA)), and every value of a bucket is within ERROR of the one it is told as.
Merging adds the buckets, so it loses nothing, in any order.  Beyond BUCKETS the lowest are joined, which costs
exactness only at the low end.
"""

from __future__ import annotations

from math import ceil, exp, log

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

ERROR = 0.01
GAMMA = (1 + ERROR) / (1 - ERROR)
_LOG = log(GAMMA)
BUCKETS = 2048
SMALLEST = 1e-12  # nearer to zero counts as zero


class Sketch:
    def __init__(self) -> None:
        self.count = 0
        self.total = 0.0
        self.least = float("inf")
        self.most = float("-inf")
        self.zeros = 0
        self.positive: dict[int, int] = {}
        self.negative: dict[int, int] = {}

    def add(self, value: float) -> None:
        """ValueError for infinities and NaN."""
        if value - value != 0:
            raise ValueError("a metric's value must be finite, not %r" % value)
        self.count += 1
        self.total += value
        self.least = min(self.least, value)
        self.most = max(self.most, value)
        if abs(value) < SMALLEST:
            self.zeros += 1
        else:
            buckets = self.positive if value > 0 else self.negative
            index = ceil(log(abs(value)) / _LOG)
            buckets[index] = buckets.get(index, 0) + 1
            _limit(buckets)

    def merge(self, other: Sketch) -> None:
        self.count += other.count
        self.total += other.total
        self.least = min(self.least, other.least)
        self.most = max(self.most, other.most)
        self.zeros += other.zeros
        for mine, theirs in ((self.positive, other.positive), (self.negative, other.negative)):
            for index, count in theirs.items():
                mine[index] = mine.get(index, 0) + count
            _limit(mine)

    def quantile(self, q: float) -> float:
        """The value at the nearest rank to q (0 to 1), within ERROR; ValueError when empty."""
        if not self.count:
            raise ValueError("no values")
        rank = ceil(q * self.count - 1e-9) - 1
        seen = 0
        for index in sorted(self.negative, reverse=True):
            seen += self.negative[index]
            if seen > rank:
                return self._clamp(-_middle(index))
        seen += self.zeros
        if self.zeros and seen > rank:
            return 0.0
        for index in sorted(self.positive):
            seen += self.positive[index]
            if seen > rank:
                return self._clamp(_middle(index))
        return self.most

    def _clamp(self, value: float) -> float:
        return min(self.most, max(self.least, value))

    def plain(self) -> list[Any]:
        """As plain data, for the wire."""
        return [self.count, self.total, self.least, self.most, self.zeros, self.positive, self.negative]

    @classmethod
    def of(cls, plain: Any) -> Sketch:
        """The inverse of `plain`; TypeError or ValueError for what is none."""
        sketch = cls()
        count, total, least, most, zeros, positive, negative = plain
        sketch.count, sketch.zeros = int(count), int(zeros)
        sketch.total, sketch.least, sketch.most = float(total), float(least), float(most)
        sketch.positive = {int(k): int(v) for k, v in positive.items()}
        sketch.negative = {int(k): int(v) for k, v in negative.items()}
        return sketch


def _middle(index: int) -> float:
    """The value that is within ERROR of everything in the bucket."""
    return 2 * exp(index * _LOG) / (GAMMA + 1)


def _limit(buckets: dict[int, int]) -> None:
    while len(buckets) > BUCKETS:
        lowest, following = sorted(buckets)[:2]
        buckets[following] += buckets.pop(lowest)
