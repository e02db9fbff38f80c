#!/usr/bin/env python3
"""Computes the reference vectors that the Rust encoder is compared with.

Reads texts from crates/embed/tests/data/reference.jsonl (one object with "text" per line), embeds
each separately with sentence-transformers in float32 on the CPU, writes the lines back with
"tokens" (their number after truncation, including special tokens) and "truncated", and writes the vectors to
reference.f32 in the same directory: little-endian, one row per line.

    pip install -r tools/requirements.txt
    tools/reference_vectors.py MODEL_DIR
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from sentence_transformers import SentenceTransformer

DATA = Path(__file__).resolve().parent.parent / "crates/embed/tests/data"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model_dir", type=Path, help="directory of all-MiniLM-L6-v2")
    parser.add_argument("--data", type=Path, default=DATA, help="directory that contains reference.jsonl")
    options = parser.parse_args()

    torch.manual_seed(0)
    torch.set_num_threads(1)
    model = SentenceTransformer(str(options.model_dir), device="cpu", local_files_only=True)
    model.eval().float()
    length_max = model.max_seq_length

    path = options.data / "reference.jsonl"
    lines, vectors = [], []
    for line in path.read_text(encoding="utf-8").rstrip("\n").split("\n"):
        text = json.loads(line)["text"]
        length = len(model.tokenizer(text, truncation=False, padding=False)["input_ids"])
        lines.append(
            {"text": text, "tokens": min(length, length_max), "truncated": length > length_max}
        )
        vectors.append(model.encode([text], batch_size=1, convert_to_numpy=True)[0])

    path.write_text(
        "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8"
    )
    rows = np.stack(vectors).astype("<f4")
    rows.tofile(path.with_suffix(".f32"))
    print(f"{len(rows)} vectors of {rows.shape[1]} values; texts are truncated at {length_max} tokens")


if __name__ == "__main__":
    main()
