"""Queries that a language model adds to: passages in place of `hyde()`, other wordings, and more general questions."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from gingham.embed.hyde import Hyde, checked_cache, checked_text, written_texts
from gingham.embed.llm import check_llm, seconds
from gingham.errors import InvalidArgument
from gingham.query.nodes import RRF, Fuse, Match, Near, Query, fuse, near
from gingham.types import whole

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gingham.embed.hyde import Cache, Written
    from gingham.embed.llm import LLM
    from gingham.query.nodes import Fusion

MAX_REWRITES = 64
ORIGINAL_WEIGHT = 2.0
"""Wordings of a model drift; the user's own counts twice."""

_LIST_MARK = re.compile(r"^\s*(?:\d{1,2}\s*[.):]|[-*•])\s+")
_REWRITE = (
    "Write {n} search queries that look for what the query below looks for, each in other words or from another side. "
    "Put each on a line of its own, in the language of the query, and write nothing else.\n\nQuery: {query}\nQueries:"
)
_STEP_BACK = (
    "Write one question that is more general than the question below, and whose answer tells the background that is "
    "needed to answer it. Write it in the language of the question, and nothing else.\n\nQuestion: {query}\n"
    "General question:"
)


def answered(query: Any) -> Any:
    """What :meth:`search` was given, with its passages where it is a :func:`gingham.hyde`.

    Models are asked before a session is opened, since they take seconds and a session holds pages and locks.
    """
    return query.write() if isinstance(query, Hyde) else query


def answered_queries(query: Any) -> Any:
    """The query, or the list of queries, that :meth:`query` was given, with passages in place of each ``hyde()``."""
    done: dict[Hyde, Written] = {}
    if isinstance(query, Query):
        return _answered(query, done)
    if isinstance(query, Iterable) and not isinstance(query, (str, bytes)):
        return [_answered(one, done) if isinstance(one, Query) else one for one in query]
    return query


def _answered(node: Query, done: dict[Hyde, Written]) -> Query:
    """The same node where nothing below it is to be written; one that is used twice is written once."""
    if isinstance(node, Near):
        return replace(node, query=_written(node.query, done)) if isinstance(node.query, Hyde) else node
    if isinstance(node, Match):
        return replace(node, text=_written(node.text, done)) if isinstance(node.text, Hyde) else node
    if isinstance(node, Fuse):
        branches = tuple(_answered(branch, done) for branch in node.branches)
        same = all(new is old for new, old in zip(branches, node.branches, strict=True))
        return node if same else replace(node, branches=branches)
    child = getattr(node, "child", None)
    if not isinstance(child, Query):
        return node
    new = _answered(child, done)
    return node if new is child else replace(node, child=new)  # type: ignore[type-var]


def _written(asked: Hyde, done: dict[Hyde, Written]) -> Written:
    if asked not in done:
        done[asked] = asked.write()
    return done[asked]


def late_interaction(node: Near, matrices: Sequence[Any]) -> Query:
    """A text and its passages on a token field: the lists of each, joined by rank.

    Parameters
    ----------
    node : whose query is a text, or one with passages
    matrices : token vectors of the passages, and last those of the text

    Notes
    -----
    The mean of token matrices of several texts is not defined, so lists are joined, by RRF(60): in equal shares as in
    the mean of Gao et al. 2023, or with ``mix`` for the text and the rest for its passages.
    """
    if len(matrices) == 1:
        return replace(node, query=matrices[0])
    if node.radius is not None:
        raise InvalidArgument(
            f"near({node.field!r}, hyde(), radius=) expects no radius, found {node.radius:g}; lists of several texts "
            "are joined by rank, and have no common score"
        )
    mix = getattr(getattr(node.query, "hyde", None), "mix", None)
    n = len(matrices) - 1
    by = RRF() if mix is None else RRF(weights=(*[(1 - mix) / n] * n, mix))
    joined = fuse(*(replace(node, query=matrix, k=None) for matrix in matrices), by=by)
    return joined if node.k is None else joined.limit(node.k)


def fuse_queries(
    text: str,
    *,
    llm: LLM,
    n: int = 4,
    field: str | None = None,
    by: Fusion | None = None,
    timeout: float | None = None,
    cache: Cache | None = None,
) -> Fuse:
    """A query and other wordings of it by a language model, each searched for, in one list.

    Parameters
    ----------
    text : what is searched for
    llm : is asked at once, not when the query runs
    n : further wordings; those that say the same twice are left out
    field : dense vector field; None where there is one
    by : how the lists are joined, with n + 1 weights if any, the text's own first; None is RRF(60) in which the text
        counts twice
    timeout : seconds to wait for the model; None waits
    cache : as of :func:`gingham.hyde`

    Returns
    -------
    Fuse : of :func:`gingham.near`; of the text alone, which the hits will say, where the model fails

    Raises
    ------
    InvalidArgument : an argument is of another kind or out of range

    Notes
    -----
    Rackauckas 2024, "RAG-Fusion: a new take on retrieval-augmented generation": wordings of one query, joined by
    reciprocal rank fusion.
    """
    count = whole("fuse_queries(n=)", n, 1, MAX_REWRITES)
    prompt = _REWRITE.replace("{n}", str(count)).replace("{query}", checked_text("fuse_queries()", text))
    return _several("fuse_queries()", text, llm, prompt, count, field, by, timeout, cache)


def step_back(
    text: str,
    *,
    llm: LLM,
    field: str | None = None,
    by: Fusion | None = None,
    timeout: float | None = None,
    cache: Cache | None = None,
) -> Fuse:
    """A question and a more general one by a language model, both searched for, in one list.

    Parameters
    ----------
    text, llm, field, by, timeout, cache : as of :func:`fuse_queries`, with one further question

    Notes
    -----
    Zheng et al. 2024, ICLR, "Take a step back: evoking reasoning via abstraction in large language models": the answer
    to a question often stands where its general one leads.
    """
    prompt = _STEP_BACK.replace("{query}", checked_text("step_back()", text))
    return _several("step_back()", text, llm, prompt, 1, field, by, timeout, cache)


def _several(
    what: str,
    text: str,
    llm: LLM,
    prompt: str,
    n: int,
    field: str | None,
    by: Fusion | None,
    timeout: float | None,
    cache: Cache | None,
) -> Fuse:
    check_llm(llm)
    by = RRF(weights=(ORIGINAL_WEIGHT, *[1.0] * n)) if by is None else by
    weights = getattr(by, "weights", None)
    if weights is not None and len(weights) != n + 1:
        raise InvalidArgument(f"{what} expects {n + 1} weights, the text's own first, found {weights}")
    wait = None if timeout is None else seconds("timeout=", timeout)
    texts, remarks = written_texts(what, llm, prompt, 1, wait, checked_cache("cache=", cache))
    queries = _lines(texts, text, n)
    if texts and not queries:
        remarks.append(
            f"{what} searched for the text alone: {llm.name!r} is expected to write other queries, found none"
        )
    branches = [near(field, query) for query in (text, *queries)]
    if weights is not None:
        # A model may write fewer than it was asked for; those it left out have no list to weigh.
        left = weights[: len(branches)]
        by = replace(by, weights=left if sum(left) > 0 else None)
    return replace(fuse(*branches, by=by), remarks=tuple(remarks))


def _lines(texts: Iterable[str], text: str, n: int) -> list[str]:
    """Up to n queries, one a line, without marks of lists and without what was there before."""
    seen, found = {text.strip().casefold()}, []
    for line in (line for one in texts for line in one.splitlines()):
        query = _LIST_MARK.sub("", line).strip().strip('"“”').strip()
        if query and query.casefold() not in seen:
            seen.add(query.casefold())
            found.append(query)
    return found[:n]
