"""How hard a search of dense vectors looks."""

from __future__ import annotations

from dataclasses import dataclass

from gingham.errors import InvalidArgument
from gingham.schema import MOST_LISTS
from gingham.types import whole

MOST_EF = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How hard to look.

    Attributes
    ----------
    exact : scan the vectors, codes or not
    oversample : candidates of the codes that are scored from the vectors, times k, at least 1; None takes 4 k + 64
    ef_search : candidates of a graph that are scored from the vectors, at least k, or ``oversample`` times k where
        that is given; from 1 to 1,048,576, None takes 64
    nprobe : lists that are read of each segment, from 1 to 65,536; None takes 16
    target_recall : in place of ``ef_search`` and ``nprobe``, the share of the k nearest rows that graphs and lists
        should lead to, above 0 and below 1

    Raises
    ------
    InvalidArgument : out of range, or ``target_recall`` beside ``ef_search``, ``nprobe`` or ``oversample``
    """

    exact: bool = False
    oversample: float | None = None
    ef_search: int | None = None
    nprobe: int | None = None
    target_recall: float | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.exact, bool):
            raise InvalidArgument(f"search(exact=) expects True or False, found {self.exact!r:.60}")
        if self.ef_search is not None:
            object.__setattr__(self, "ef_search", whole("search(ef_search=)", self.ef_search, most=MOST_EF))
        if self.nprobe is not None:
            object.__setattr__(self, "nprobe", whole("search(nprobe=)", self.nprobe, most=MOST_LISTS))
        if self.target_recall is not None:
            self._check_target()
        if self.oversample is None:
            return
        kinds = isinstance(self.oversample, (int, float)) and not isinstance(self.oversample, bool)
        if not kinds or not 1 <= self.oversample < float("inf"):
            raise InvalidArgument(f"search(oversample=) expects a number of at least 1, found {self.oversample!r:.60}")

    def _check_target(self) -> None:
        target = self.target_recall
        if isinstance(target, bool) or not isinstance(target, (int, float)) or not 0 < target < 1:
            raise InvalidArgument(
                f"search(target_recall=) expects a number above 0 and below 1, found {target!r:.60}; "
                "exact=True finds all"
            )
        for name, value in {"ef_search": self.ef_search, "nprobe": self.nprobe, "oversample": self.oversample}.items():
            if value is not None:
                raise InvalidArgument(f"search() expects {name}= or target_recall=, found both; give one of them")


DEFAULT_EFFORT = Effort()
