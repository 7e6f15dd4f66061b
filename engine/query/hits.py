"""What a search returns."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, overload

from gingham.errors import InvalidArgument
from gingham.query.explain import Explanation, Step

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    import pandas as pd
    import pyarrow as pa

    from gingham.query.token_matches import TokenMatches
    from gingham.types import UserId


@dataclass(frozen=True)
class Completeness:
    """Whether a result holds everything that was asked for; true in a condition when it does.

    Attributes
    ----------
    complete : no eligible row was left out
    why : in words, why there are fewer hits than k; empty where there are k
    """

    complete: bool
    why: str = ""

    def __bool__(self) -> bool:
        return self.complete


@dataclass(frozen=True)
class Span:
    """A place in a text, in characters: ``text[start:end]``."""

    start: int
    end: int


@dataclass(frozen=True)
class Hit(Mapping[str, Any]):
    """One row found; its payload is read like a dict.

    Attributes
    ----------
    id : the user's id
    score : greater is better for every metric
    fields : payload
    brought_by : id of the row found whose neighbour this one is, where it was not found itself but came by
        ``expand``; its score is that of this row until a step above scores it itself (``rerank``) or adds to it
        (``boost``)
    """

    id: UserId
    score: float
    fields: dict[str, Any] = field(repr=False)
    brought_by: UserId | None = field(default=None, repr=False)

    def __getitem__(self, name: str) -> Any:
        return self.fields[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.fields)

    def __len__(self) -> int:
        return len(self.fields)


class Hits(Sequence[Hit]):
    """Rows found for one query, best first.

    Attributes
    ----------
    ids : user ids
    scores : float32 array, descending unless the query was diversified or expanded
    complete : whether every eligible row was considered, and why there are fewer than k
    brought_by : of each hit what :attr:`Hit.brought_by` says; all None without ``expand``
    """

    def __init__(
        self,
        ids: list[UserId],
        scores: np.ndarray[Any, Any],
        table: pa.Table,
        complete: Completeness,
        explanation: Explanation,
        highlighters: Mapping[str, Callable[[str], list[Span]]] | None = None,
        json_fields: Sequence[str] = (),
        matches: Callable[[], list[TokenMatches]] | None = None,
    ) -> None:
        self.ids = ids
        self.scores = scores
        self.complete = complete
        self.brought_by: list[UserId | None] = [None] * len(ids)
        self._table = table
        self._explanation = explanation
        self._highlighters = highlighters or {}
        self._json = json_fields
        self._matches = matches
        self._rows: list[dict[str, Any]] | None = None

    def __len__(self) -> int:
        return len(self.ids)

    @overload
    def __getitem__(self, index: int) -> Hit: ...
    @overload
    def __getitem__(self, index: slice) -> list[Hit]: ...
    def __getitem__(self, index: int | slice) -> Hit | list[Hit]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if self._rows is None:
            self._rows = self._table.to_pylist() if self._table.num_columns else [{} for _ in self.ids]
            for name in self._json:
                for row in self._rows:
                    row[name] = None if row[name] is None else json.loads(row[name])
        return Hit(self.ids[index], float(self.scores[index]), self._rows[index], self.brought_by[index])

    def __iter__(self) -> Iterator[Hit]:
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        shown = ", ".join(f"{i!r}: {s:.4f}" for i, s in list(zip(self.ids, self.scores, strict=True))[:5])
        return f"<Hits {len(self)} {{{shown}{', …' if len(self) > 5 else ''}}}>"

    def arrow(self) -> pa.Table:
        """Columns ``id``, ``score`` and the payload; JSON as its text."""
        import pyarrow as pa

        from gingham.query.ids import id_column, schema_with_ids

        head = {"id": id_column(self.ids), "score": pa.array(self.scores, pa.float32())}
        columns = {**head, **{name: self._table[name] for name in self._table.column_names}}
        return pa.Table.from_arrays(list(columns.values()), schema=schema_with_ids(self.ids, columns))

    def pandas(self) -> pd.DataFrame:
        """The same as a data frame; raises MissingExtra where pandas is not installed."""
        from gingham.query.ids import data_frame

        return data_frame(self.ids, self.arrow())

    def highlights(self, field: str) -> list[list[Span]]:
        """Where the words that were searched for stand in a text field of each hit.

        Raises
        ------
        InvalidArgument : the query did not search the field by its words, or the field was not returned
        """
        if not isinstance(field, str) or field not in self._highlighters:
            raise InvalidArgument(
                f"highlights() expects a field that match() searched, one of {sorted(self._highlighters)}, "
                f"found {field!r}"
            )
        if field not in self._table.column_names:
            raise InvalidArgument(f"highlights() needs the text of {field!r}; leave fields= out or add it")
        find = self._highlighters[field]
        return [find(text or "") for text in self._table[field].to_pylist()]

    def explain_tokens(self) -> list[TokenMatches]:
        """Which tokens of the query met which of each hit; each prints as a heat map.

        Raises
        ------
        InvalidArgument : tokens were not searched by or reranked with, or there are more than 100 hits
        """
        if self._matches is None:
            raise InvalidArgument(
                "explain_tokens() expects up to 100 hits of a search of tokens, such as near('tokens', Q), found others"
            )
        return self._matches()

    def explain(self) -> Explanation:
        """How the search went: steps, choices, time and rows."""
        return self._explanation


class BatchHits(Sequence[Hits]):
    """Results of many queries, in their order."""

    def __init__(self, results: list[Hits]) -> None:
        self._results = results

    def __len__(self) -> int:
        return len(self._results)

    @overload
    def __getitem__(self, index: int) -> Hits: ...
    @overload
    def __getitem__(self, index: slice) -> list[Hits]: ...
    def __getitem__(self, index: int | slice) -> Hits | list[Hits]:
        return self._results[index]

    def __repr__(self) -> str:
        return f"<BatchHits of {len(self)} queries>"

    @property
    def ids(self) -> list[list[UserId]]:
        """User ids per query."""
        return [hits.ids for hits in self._results]

    @property
    def scores(self) -> list[np.ndarray[Any, Any]]:
        """Scores per query."""
        return [hits.scores for hits in self._results]

    @property
    def complete(self) -> Completeness:
        """Complete where every result is; the first reason otherwise."""
        broken = [hits.complete for hits in self._results if not hits.complete]
        whys = [hits.complete.why for hits in self._results if hits.complete.why]
        return broken[0] if broken else Completeness(True, whys[0] if whys else "")

    def arrow(self) -> pa.Table:
        """All hits in one table with a column ``query``."""
        import numpy as np
        import pyarrow as pa

        from gingham.query.ids import id_column, schema_with_ids

        if not self._results:
            return pa.table({})
        ids = self._all_ids()
        numbers = np.repeat(np.arange(len(self)), [len(hits) for hits in self])
        head = {
            "query": pa.array(numbers, pa.int64()),
            "id": id_column(ids),
            "score": pa.array(np.concatenate([hits.scores for hits in self]), pa.float32()),
        }
        rest = pa.concat_tables([hits._table for hits in self])
        columns = {**head, **{name: rest[name] for name in rest.column_names}}
        return pa.Table.from_arrays(list(columns.values()), schema=schema_with_ids(ids, columns))

    def _all_ids(self) -> list[UserId]:
        return [user_id for hits in self for user_id in hits.ids]

    def pandas(self) -> pd.DataFrame:
        """The same as a data frame; raises MissingExtra where pandas is not installed."""
        from gingham.query.ids import data_frame

        return data_frame(self._all_ids(), self.arrow())

    def explain(self) -> Explanation:
        """How the batch went; one search serves all queries."""
        return self._results[0].explain() if self._results else Explanation(Step("search", "no queries"))
