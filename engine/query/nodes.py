"""Queries as values: leaves that find rows, and steps that fuse, filter, reorder and cut them.

Nodes are frozen and chain: ``fuse(near("dense", q), match("body", "words")).group("lang", per=2).limit(10)``.
Every node is a query of its own; without ``limit`` it returns 10 rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from gingham.embed.hyde import Hyde
from gingham.errors import InvalidArgument
from gingham.query.effort import Effort
from gingham.query.values import value_node
from gingham.types import encode_id, finite, is_id, least_score, whole

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gingham.embed.hyde import Written
    from gingham.query.bind import Where
    from gingham.query.values import Arithmetic, ValueNode
    from gingham.types import UserId

MatchOperator = Literal["any", "all", "phrase", "prefix", "fuzzy"]
MATCH_OPERATORS: tuple[MatchOperator, ...] = ("any", "all", "phrase", "prefix", "fuzzy")


class Query:
    """What every query node can do."""

    def where(self, where: Where) -> Filtered:
        """Only rows that a filter selects; it is pushed down into every leaf below."""
        return Filtered(self, where)

    def boost(self, value: Arithmetic | float) -> Boosted:
        """Add a value computed from fields to the score, as in ``0.1 * F.views.log1p()``; null adds nothing.

        The rows reordered are the 100 best, more where more are asked for or the leaf has a greater ``k``. Who pages
        through them gives the leaf a ``k``, so that every page reorders the same rows.
        """
        return Boosted(self, value_node(value))

    def diversify(self, diversity: float, *, using: str | None = None, candidates: int | None = None) -> Diversified:
        """Reorder by maximal marginal relevance.

        Parameters
        ----------
        diversity : 0 keeps the order, 1 only avoids what is similar to rows before
        using : dense vector that similarity is measured by; may be left out where there is one
        candidates : rows to choose from, default 100, more where more are asked for or the leaf has a greater
            ``k``; who pages through them sets it, so that every page reorders the same rows
        """
        share = finite("diversify()", diversity)
        if not 0 <= share <= 1:
            raise InvalidArgument(f"diversify() expects a number from 0 to 1, found {diversity!r}")
        return Diversified(self, share, using, _count("diversify(candidates=)", candidates))

    def rerank(self, by: MaxSim | CrossEncoder, *, k: int = 100) -> Reranked:
        """Score the best rows anew by :func:`maxsim` or :func:`cross_encoder`; rows without what they are scored by are
        left out.

        Parameters
        ----------
        k : rows to score, the best of what stands before
        """
        if not isinstance(by, (MaxSim, CrossEncoder)):
            raise InvalidArgument(
                f"rerank() expects maxsim(field, tokens) or cross_encoder(field, text, model=), found {by!r:.60}"
            )
        return Reranked(self, by, whole("rerank(k=)", k))

    def expand(self, neighbours: int = 1, *, parent: str = "parent", ordinal: str = "ordinal") -> Expanded:
        """Add to each chunk found those before and after it in its text (small-to-big).

        Parameters
        ----------
        neighbours : chunks on each side, by their ordinals
        parent : keyword, text or integer field that says which text a row is a chunk of
        ordinal : integer field that says which chunk it is

        Notes
        -----
        A chunk found stands where it did, among its neighbours in reading order, unless one before it has brought it;
        no row comes twice. A row that was not found has the score of the one that brought it, and
        :attr:`gingham.Hit.brought_by` says which. Above, :meth:`rerank` scores it itself and :meth:`boost` adds its own
        number, both put rows in the order of scores, and ``brought_by`` stays. Rows without a parent or an ordinal
        bring nothing.

        A limit below counts rows found, one above all rows; without any, 10 rows are found and expanded. A filter
        above, or ``where=``, holds for what is brought too, one below only for what is found.
        """
        return Expanded(self, whole("expand()", neighbours), parent, ordinal)

    def group(self, field: str, *, per: int = 1) -> Grouped:
        """At most ``per`` rows of each value of a field, the best ones; null is a value too."""
        return Grouped(self, field, whole("group(per=)", per))

    def limit(self, limit: int) -> Limited:
        """At most so many rows."""
        return Limited(self, whole("limit()", limit), 0)

    def offset(self, offset: int) -> Limited:
        """Leave out the first rows; give it before :meth:`limit` or after."""
        return Limited(self, None, whole("offset()", offset, 0))


@dataclass(frozen=True, eq=False)
class Near(Query):
    """Rows near a vector; see :func:`near`."""

    field: str | None
    query: Any
    k: int | None
    radius: float | None
    effort: Effort


@dataclass(frozen=True, eq=False)
class Match(Query):
    """Rows with the words of a text; see :func:`match`."""

    field: str | None
    text: str | Hyde | Written
    operator: MatchOperator
    k: int | None


@dataclass(frozen=True, eq=False)
class NearSparse(Query):
    """Rows with a large inner product with a sparse vector; see :func:`sparse`."""

    field: str | None
    query: Any
    k: int | None


@dataclass(frozen=True, eq=False)
class Like(Query):
    """Rows near stored rows; see :func:`like`."""

    ids: tuple[bytes, ...]
    unlike: tuple[bytes, ...]
    field: str | None
    k: int | None


@dataclass(frozen=True)
class RRF:
    """Reciprocal rank fusion: the sum over lists of weight / (k + rank), ranks from 1.

    Cormack, Clarke and Buettcher 2009, SIGIR, section 2.

    Parameters
    ----------
    k : damps the first ranks, 60 as in the paper
    weights : one for each branch, from 0; all 1 where left out
    """

    k: float = 60.0
    weights: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if not (isinstance(self.k, (int, float)) and 0 <= self.k < float("inf")):
            raise InvalidArgument(f"RRF(k=) expects a finite number from 0, found {self.k!r}")
        object.__setattr__(self, "weights", _weights(self.weights))


@dataclass(frozen=True)
class MinMax:
    """Convex sum of scores scaled to 0..1 between the least and the greatest of each list; missing counts 0.

    Bruch, Gai and Ingber 2023, ACM TOIS 42(1), section 3.

    Parameters
    ----------
    weights : one for each branch, from 0; they are divided by their sum; equal where left out
    """

    weights: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "weights", _weights(self.weights))


@dataclass(frozen=True)
class DBSF:
    """Distribution-based score fusion: scores scaled so that mean -+ 3 standard deviations of a list are 0 and 1.

    As in Qdrant: sample variance; the score of a list of one, or of equal scores, is 0.5; missing counts 0.

    Parameters
    ----------
    weights : one for each branch, from 0; they are divided by their sum; equal where left out
    """

    weights: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "weights", _weights(self.weights))


Fusion = RRF | MinMax | DBSF


@dataclass(frozen=True, eq=False)
class Fuse(Query):
    """Several queries in one list; see :func:`fuse`.

    Attributes
    ----------
    remarks : what the hits should say of how the branches came about
    """

    branches: tuple[Query, ...]
    by: Fusion
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Filtered(Query):
    """A query restricted by a filter."""

    child: Query
    condition: Where


@dataclass(frozen=True, eq=False)
class Boosted(Query):
    """A query whose candidates get a value added to their scores."""

    child: Query
    value: ValueNode


@dataclass(frozen=True, eq=False)
class Diversified(Query):
    """A query reordered by maximal marginal relevance."""

    child: Query
    diversity: float
    using: str | None
    candidates: int | None


@dataclass(frozen=True, eq=False)
class MaxSim:
    """What a row is scored by: late interaction with tokens; see :func:`maxsim`."""

    field: str | None
    query: Any


@dataclass(frozen=True, eq=False)
class CrossEncoder:
    """What a row is scored by: a model that reads query and text together; see :func:`cross_encoder`."""

    field: str
    query: str
    model: Any


@dataclass(frozen=True, eq=False)
class Reranked(Query):
    """A query whose best rows are scored anew."""

    child: Query
    by: MaxSim | CrossEncoder
    k: int


@dataclass(frozen=True, eq=False)
class Expanded(Query):
    """A query whose rows bring the chunks beside them."""

    child: Query
    neighbours: int
    parent: str
    ordinal: str


@dataclass(frozen=True, eq=False)
class Grouped(Query):
    """A query with few rows of each value of a field."""

    child: Query
    field: str
    per: int


@dataclass(frozen=True, eq=False)
class Limited(Query):
    """A part of a query's rows."""

    child: Query
    count: int | None
    skip: int

    def limit(self, limit: int) -> Limited:
        """At most so many rows."""
        count = whole("limit()", limit)
        if self.count is None:
            return Limited(self.child, count, self.skip)
        return Limited(self, count, 0)

    def offset(self, offset: int) -> Limited:
        """Leave out the first rows; the limit counts after them."""
        return (
            Limited(self.child, self.count, super().offset(offset).skip) if self.skip == 0 else super().offset(offset)
        )


def near(
    field: str | None,
    query: Any,
    *,
    k: int | None = None,
    radius: float | None = None,
    exact: bool = False,
    oversample: float | None = None,
    ef_search: int | None = None,
    nprobe: int | None = None,
    target_recall: float | None = None,
) -> Near:
    """Rows whose vector is near a query, or whose tokens are.

    Parameters
    ----------
    field : dense vector field, or token field; None where there is one dense vector
    query : one vector of shape (dim,) or :func:`gingham.combine` of several; text or :func:`gingham.hyde` where the
        collection has an embedder, for a token field one with ``embed_tokens``; tokens of shape (n, dim)
    k : rows found at most; by default what the steps above ask for
    radius : smallest score found
    exact : scan the vectors even where they have codes
    oversample : candidates of the codes that are scored from the vectors, times k; None takes 4 k + 64. Under a codec
        such as ``"MRL128,LVQ8"`` this is the shortlist of a funnel: the first 128 dimensions find, all of them decide
    ef_search : candidates of a graph that are scored from the vectors, at least k; None takes 64
    nprobe : lists that are read of each segment; None takes 16
    target_recall : in place of both, the share of the nearest rows that graphs and lists should lead to
    """
    effort = Effort(exact=exact, oversample=oversample, ef_search=ef_search, nprobe=nprobe, target_recall=target_recall)
    bound = None if radius is None else least_score("near(radius=)", radius)
    return Near(field, query, _count("near(k=)", k), bound, effort)


def maxsim(field: str | None, query: Any) -> MaxSim:
    """What :meth:`Query.rerank` scores rows by: the sum over tokens of a query of their greatest products.

    Parameters
    ----------
    field : token field; None where there is one
    query : tokens of shape (n, dim)
    """
    return MaxSim(field, query)


def cross_encoder(field: str, query: str, *, model: Any) -> CrossEncoder:
    """What :meth:`Query.rerank` scores rows by: a model that reads the query and a text together.

    Parameters
    ----------
    field : text or keyword field
    query : text
    model : takes a list of pairs (query, text) and gives a score for each, greater being better: a callable, or an
        object with such a ``predict``, as the CrossEncoder of sentence-transformers is
    """
    if not isinstance(query, str):
        raise InvalidArgument(f"cross_encoder(query) expects text, found {type(query).__name__} {query!r:.60}")
    if not callable(getattr(model, "predict", model)):
        raise InvalidArgument(
            f"cross_encoder(model=) expects a callable or an object with predict, found {model!r:.60}"
        )
    return CrossEncoder(field, query, model)


def match(field: str | None, text: str | Hyde, *, op: MatchOperator = "any", k: int | None = None) -> Match:
    """Rows that have words of a text, scored by BM25.

    Parameters
    ----------
    field : text field with ``bm25=True``; None where there is one
    text : words, analyzed like the field; :func:`gingham.hyde` adds those of its passages, for ``"any"``
    op : ``"any"`` word (default), ``"all"`` words, the words as a ``"phrase"`` (needs ``positions=True``),
        the last word as the ``"prefix"`` of a word, or words that are written ``"fuzzy"``: with up to 1 edit
        from 3 letters on and up to 2 from 6 on, for the first 32 words
    k : rows found at most; by default what the steps above ask for
    """
    if not isinstance(text, (str, Hyde)):
        raise InvalidArgument(f"match() expects text, found {type(text).__name__} {text!r:.60}")
    if op not in MATCH_OPERATORS:
        raise InvalidArgument(f"match(op=) expects one of {', '.join(MATCH_OPERATORS)}, found {op!r}")
    if isinstance(text, Hyde) and op != "any":
        raise InvalidArgument(
            f"match(field, hyde()) expects op='any', found {op!r}; few rows have all words of its passages"
        )
    return Match(field, text, op, _count("match(k=)", k))


def sparse(field: str | None, query: Any, *, k: int | None = None) -> NearSparse:
    """Rows by inner product with a sparse vector, which :class:`gingham.Sparse` describes.

    Parameters
    ----------
    field : sparse vector field; None where there is one
    k : rows found at most; by default what the steps above ask for
    """
    return NearSparse(field, query, _count("sparse(k=)", k))


def like(
    ids: UserId | Iterable[UserId],
    *,
    unlike: UserId | Iterable[UserId] = (),
    using: str | None = None,
    k: int | None = None,
) -> Like:
    """Rows near stored rows, which are themselves left out.

    Parameters
    ----------
    ids : one row or several that are good examples
    unlike : rows that are bad examples
    using : dense vector field; may be left out where there is one
    k : rows found at most; by default what the steps above ask for

    Notes
    -----
    The query is the mean of the good examples, moved away from the mean of the bad ones by their difference.
    Vectors and texts that are not stored, and other weights, are for :func:`gingham.combine`.
    """
    good, bad = _ids(ids), _ids(unlike)
    if not good:
        raise InvalidArgument("like() expects at least one id, found none")
    return Like(good, bad, using, _count("like(k=)", k))


def fuse(*branches: Query, by: Fusion | None = None) -> Fuse:
    """Join the rows of several queries into one list.

    Parameters
    ----------
    branches : at least one query
    by : :class:`RRF` (default), :class:`MinMax` or :class:`DBSF`
    """
    by = RRF() if by is None else by
    if not branches or not all(isinstance(branch, Query) for branch in branches):
        raise InvalidArgument(f"fuse() expects queries such as near() and match(), found {branches!r:.80}")
    if not isinstance(by, (RRF, MinMax, DBSF)):
        raise InvalidArgument(f"fuse(by=) expects RRF(), MinMax() or DBSF(), found {by!r:.80}")
    if by.weights is not None and len(by.weights) != len(branches):
        raise InvalidArgument(f"fuse() expects one weight for each of {len(branches)} branches, found {by.weights}")
    return Fuse(branches, by)


def _weights(weights: Iterable[float] | None) -> tuple[float, ...] | None:
    if weights is None:
        return None
    try:
        out = tuple(float(weight) for weight in weights)
    except (TypeError, ValueError):
        raise InvalidArgument(f"weights= expects numbers, found {weights!r:.80}") from None
    if not all(0 <= weight < float("inf") for weight in out) or not sum(out) > 0:
        raise InvalidArgument(f"weights= expects finite numbers from 0, not all 0, found {out}")
    return out


def _count(what: str, value: int | None) -> int | None:
    return None if value is None else whole(what, value)


def _ids(ids: Any) -> tuple[bytes, ...]:
    return tuple(encode_id(user_id) for user_id in ([ids] if is_id(ids) else ids))
