"""HyDE: a language model writes the passages that a query hopes for, and these help to search."""

from __future__ import annotations

import contextlib
import hashlib
import threading
import weakref
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import msgspec
import numpy as np

from gingham.embed.llm import ask, check_llm, seconds
from gingham.embed.protocol import described, embed, fingerprint
from gingham.errors import InvalidArgument, LLMFailed
from gingham.types import finite, shown, whole

if TYPE_CHECKING:
    from gingham.embed.llm import LLM
    from gingham.embed.protocol import Embedder
    from gingham.vector_types import Metric

    Array = np.ndarray[Any, Any]

MAX_PASSAGES = 256
QUERY_REPEATS = 5
"""Times that the query stands beside each passage in the words of a query, as in query2doc (Wang et al. 2023)."""
_MEMORY_ENTRIES = 4096

TASKS = {
    "web": ("Question", "Write one passage of a web page that answers the question below."),
    "claim": ("Claim", "Write one passage of a scientific paper whose findings support or refute the claim below."),
    "argument": ("Text", "Write one passage that takes the other side of the text below and gives its reasons."),
    "finance": ("Question", "Write one passage of an article on finance that answers the question below."),
    "forum": ("Question", "Write one reply by which an experienced member of a forum answers the question below."),
    "news": ("Topic", "Write one passage of a news report on the topic below."),
    "multilingual": ("Question", "Write one passage that answers the question below."),
}
"""For each task what the query is called, and what is asked for: those of Gao et al. 2023, in other words."""


class Cache(Protocol):
    """Where answers are kept: a dict, or :class:`gingham.HydeCache`."""

    def get(self, key: bytes, /) -> bytes | None:
        """Value of a key; None where there is none."""
        ...

    def __setitem__(self, key: bytes, value: bytes, /) -> None:
        """Keep a value."""
        ...


class _Memory:
    """The cache of the process; what was not used for longest leaves it first."""

    def __init__(self, entries: int) -> None:
        self._entries = entries
        self._kept: OrderedDict[bytes, bytes] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: bytes, /) -> bytes | None:
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
            return self._kept.get(key)

    def __setitem__(self, key: bytes, value: bytes, /) -> None:
        with self._lock:
            self._kept[key] = value
            self._kept.move_to_end(key)
            if len(self._kept) > self._entries:
                self._kept.popitem(last=False)


MEMORY = _Memory(_MEMORY_ENTRIES)


@dataclass(frozen=True, eq=False)
class Hyde:
    """A text that a language model writes passages for; see :func:`hyde`.

    Attributes
    ----------
    prompt : what the model is asked
    """

    text: str
    llm: LLM
    n: int
    prompt: str
    mix: float | None
    timeout: float | None
    cache: Cache

    def write(self) -> Written:
        """Ask the model, or the cache; never raises for what the model does."""
        if not self.n:
            return Written(self, (), ())
        passages, remarks = written_texts("hyde()", self.llm, self.prompt, self.n, self.timeout, self.cache)
        return Written(self, tuple(passages), tuple(remarks))


@dataclass(frozen=True, eq=False)
class Written:
    """A text with the passages that were written for it.

    Attributes
    ----------
    passages : none where the model failed
    remarks : what went wrong
    """

    hyde: Hyde
    passages: tuple[str, ...]
    remarks: tuple[str, ...]

    @property
    def words(self) -> str:
        """What BM25 searches for: the text five times for each passage, and the passages.

        Notes
        -----
        With one passage this is the sparse form of query2doc (Wang et al. 2023, EMNLP, section 2); with more, each
        has the share of one, so that the query never drowns in them.
        """
        text = self.hyde.text
        return "\n".join([text] * (QUERY_REPEATS * len(self.passages)) + list(self.passages)) or text


def hyde(
    text: str,
    *,
    llm: LLM,
    n: int = 8,
    task: str = "web",
    language: str | None = None,
    mix: float | None = None,
    timeout: float | None = None,
    cache: Cache | None = None,
) -> Hyde:
    """A text to search for with the help of passages that a language model imagines.

    It stands wherever a text is searched for: in ``near`` and ``search`` for the mean of its vector and theirs, in
    ``match`` for its words and theirs, and in ``near`` of a token field for the lists that it and they find, joined by
    rank: n + 1 searches.

    Parameters
    ----------
    text : what is searched for
    llm : writes the passages; see :class:`gingham.embed.LLM`
    n : passages; 0 searches for the text alone
    task : ``"web"``, ``"claim"``, ``"argument"``, ``"finance"``, ``"forum"``, ``"news"``, ``"multilingual"``, or a
        prompt of your own with ``{query}`` and, if you like, ``{language}`` in it
    language : that the passages should be in, by its name
    mix : share of the text's own vector, or list, from 0 to 1; None gives it the share of one passage, 1 / (n + 1), as
        in the paper. Words do not heed it
    timeout : seconds to wait for the model; None waits as long as the search may take
    cache : where passages and vectors are kept: a dict or :class:`gingham.HydeCache`; None keeps the last 4,096 in the
        memory of the process

    Returns
    -------
    Hyde : asks the model once it is searched for

    Raises
    ------
    InvalidArgument : an argument is of another kind or out of range

    Notes
    -----
    Gao, Ma, Lin and Callan 2023, ACL, "Precise zero-shot dense retrieval without relevance labels", section 3: the mean
    of the vectors of the query, embedded as a query, and of the passages, embedded as documents. It helps encoders
    that were not trained on judgements, where the model knows the subject. A model that writes of something else takes
    the query along: on SciFact with all-MiniLM-L6-v2 (``bench/hyde.py``) eight random documents in place of passages
    bring nDCG@10 from 0.645 to 0.016 at the weight of the paper and to 0.634 at ``mix=0.6``, where the right passage
    still gives an MRR@10 of 0.993 instead of 1. Lists joined by rank forgive less: two passages of noise on a token
    field cost 17 points even at ``mix=0.6``. :func:`gingham.measure_gain` says what it brings on your queries. Where
    the model fails, takes too long or writes nothing, the text alone is searched for, and ``hits.complete.why``
    says so.
    """
    checked_text("hyde()", text)
    check_llm(llm)
    if mix is not None:
        mix = finite("hyde(mix=)", mix)
        if not 0 <= mix <= 1:
            raise InvalidArgument(f"hyde(mix=) expects a number from 0 to 1, found {mix!r}")
    return Hyde(
        text,
        llm,
        whole("hyde(n=)", n, 0, MAX_PASSAGES),
        prompt_of(text, task, language),
        mix,
        None if timeout is None else seconds("hyde(timeout=)", timeout),
        checked_cache("hyde(cache=)", cache),
    )


def prompt_of(text: str, task: str, language: str | None) -> str:
    """What a model is asked to write for a text; raises InvalidArgument for an unknown task."""
    if language is not None and (not isinstance(language, str) or not language.strip()):
        raise InvalidArgument(f"hyde(language=) expects the name of a language, found {shown(language)}")
    known = TASKS.get(task) if isinstance(task, str) else None
    if known is None and not (isinstance(task, str) and "{query}" in task):
        raise InvalidArgument(
            f"hyde(task=) expects one of {', '.join(TASKS)}, or a prompt with {{query}} in it, found {shown(task)}"
        )
    named = language or "the language of the question"
    if known is None:
        # The query comes last: it may itself hold braces.
        return task.replace("{language}", named).replace("{query}", text)
    label, instruction = known
    where = f", in {named}" if language or task == "multilingual" else ""
    return f"{instruction} Give the passage alone{where}, in at most 120 words.\n\n{label}: {text}\nPassage:"


def written_texts(
    what: str, llm: LLM, prompt: str, n: int, timeout: float | None, cache: Cache
) -> tuple[list[str], list[str]]:
    """Texts from the cache or the model, and remarks on what went wrong; no texts where the model failed.

    Parameters
    ----------
    what : searches for the text, in remarks
    """
    key, remarks = digest("texts", llm.name, prompt, n), []
    try:
        kept = _decoded_texts(cache.get(key), n)
    except Exception as error:  # a cache is no reason to find nothing
        kept = None
        remarks.append(f"{what} expected a cache that can be read, found {described(error)}")
    if kept is not None:
        return kept, remarks
    try:
        texts = ask(llm, prompt, n=n, timeout=timeout)
    except LLMFailed as error:
        return [], [*remarks, f"{what} searched for the text alone: {error}"]
    try:
        cache[key] = msgspec.msgpack.encode(texts)
    except Exception as error:
        remarks.append(f"{what} expected a cache that can be written, found {described(error)}")
    return texts, remarks


def _decoded_texts(value: bytes | None, n: int) -> list[str] | None:
    """Texts that were kept; None for anything else than 1 to n of them."""
    if value is None:
        return None
    try:
        texts = msgspec.msgpack.decode(value, type=list[str])
    except (msgspec.MsgspecError, TypeError, ValueError):
        return None
    return texts if 0 < len(texts) <= n and all(texts) else None


def expand(hyde: Hyde | Written, embedder: Embedder, *, metric: Metric = "cosine") -> Array:
    """The vector that is searched for, float32 (dim,).

    Parameters
    ----------
    hyde : a text; the model is asked unless it has written
    metric : of the field. Under cosine each vector has length one before and after the mean, so that no long
        passage outweighs the others; under dot and l2 lengths are left as the embedder makes them

    Raises
    ------
    EmbedderFailed : of :func:`gingham.embed.protocol.embed`

    Notes
    -----
    ``mix * f(text) + (1 - mix) * mean(f(passages))``, in float64. Without passages it is the vector of the text, bit
    by bit.
    """
    written = hyde.write() if isinstance(hyde, Hyde) else hyde
    asked, passages = written.hyde, written.passages
    if not passages:
        plain: Array = embed(embedder, [asked.text], queries=True)[0]
        return plain
    mix = 1 / (len(passages) + 1) if asked.mix is None else asked.mix
    key = digest("vector", asked.llm.name, asked.prompt, asked.n, asked.text, *passages, mix, metric, _model(embedder))
    kept = _kept_vector(asked.cache, key, embedder.dim)
    if kept is not None:
        return kept
    text = _scaled(embed(embedder, [asked.text], queries=True), metric)[0]
    others = _scaled(embed(embedder, passages, queries=False), metric)
    vector: Array = _scaled((mix * text + (1 - mix) * others.mean(axis=0))[None], metric)[0].astype(np.float32)
    with contextlib.suppress(Exception):  # the texts went the same way, and their failure is remarked
        asked.cache[key] = vector.astype("<f4").tobytes()
    return vector


def _kept_vector(cache: Cache, key: bytes, dim: int) -> Array | None:
    try:
        value = cache.get(key)
        vector = None if value is None else np.frombuffer(value, "<f4").astype(np.float32)
    except Exception:  # of the cache, or of bytes that are no floats
        return None
    return vector if vector is not None and vector.shape == (dim,) and np.isfinite(vector).all() else None


def _scaled(vectors: Array, metric: Metric) -> Array:
    """Rows as float64, of length one under cosine; zeros stay."""
    rows = vectors.astype(np.float64)
    if metric != "cosine":
        return rows
    lengths = np.sqrt(np.square(rows).sum(axis=1, keepdims=True))
    out: Array = np.divide(rows, lengths, out=np.zeros_like(rows), where=lengths > 0)
    return out


_models: dict[int, tuple[weakref.ref[Any], bytes]] = {}


def _model(embedder: Embedder) -> bytes:
    """Digest of an embedder and its fingerprint; made once for each object, since it costs embedding eight texts."""
    known = _models.get(id(embedder))
    if known is not None and known[0]() is embedder:
        return known[1]
    made = digest(embedder.name, embedder.revision, embedder.dim, fingerprint(embedder))
    with contextlib.suppress(TypeError):  # some objects cannot be referred to weakly
        _models[id(embedder)] = (weakref.ref(embedder, _forget), made)
    return made


def _forget(gone: weakref.ref[Any]) -> None:
    for key, (reference, _) in list(_models.items()):
        if reference is gone:
            del _models[key]


def digest(*parts: str | bytes | float) -> bytes:
    """32 bytes that tell one list of values from any other."""
    made = hashlib.blake2b(digest_size=32)
    for part in parts:
        data = part if isinstance(part, bytes) else str(part).encode("utf-8", "surrogatepass")
        made.update(len(data).to_bytes(8, "little") + data)
    return made.digest()


def checked_text(what: str, text: object) -> str:
    """A query text that a user gave; raises InvalidArgument for anything else."""
    if not isinstance(text, str) or not text.strip():
        raise InvalidArgument(f"{what} expects a text that is not empty, found {type(text).__name__} {shown(text)}")
    return text


def checked_cache(what: str, cache: Cache | None) -> Cache:
    """The cache that a user gave, or that of the process."""
    if cache is None:
        return MEMORY
    if not callable(getattr(cache, "get", None)) or not hasattr(cache, "__setitem__"):
        raise InvalidArgument(f"{what} expects a dict or gingham.HydeCache(path), found {shown(cache)}")
    return cache
