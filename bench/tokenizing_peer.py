"""The peer's side: `datasets.map` in two processes, as transformers' own examples tokenize.

Kept to the ids, which is less than the examples write. Each process has a core, so the library
`tokenizers` takes no threads of its own beside them.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from bench.tokenizing_spec import Spec, digest


def main() -> None:
    spec = Spec.read(sys.argv[1])
    home = Path(spec.out) / "home"
    os.environ |= {
        "HF_HOME": str(home),
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    import datasets

    datasets.disable_progress_bars()
    encode, eos = encoder(spec)

    def tokenized(rows: dict[str, list[str]]) -> dict[str, list[list[int]]]:
        """A document ends with `eos`, as in our shards."""
        return {"input_ids": [[*ids, eos] for ids in encode(rows["text"])]}

    began = time.perf_counter()
    read = datasets.load_dataset(
        "json", data_files=spec.text, split="train", cache_dir=str(Path(spec.out) / "cache")
    )
    middle = time.perf_counter()
    done = read.map(
        tokenized, batched=True, num_proc=spec.threads, remove_columns=read.column_names
    )
    ended = time.perf_counter()
    columns = done.with_format("numpy")
    found = [np.asarray(row["input_ids"]) for row in columns]
    told = {
        "whole": ended - began,
        "encoding": ended - middle,
        "tokens": sum(map(len, found)),
        "digest": digest(found),
    }
    print(json.dumps(told))


def encoder(spec: Spec) -> tuple[Any, int]:
    """What turns texts into ids, and the id that ends a document."""
    path = Path(spec.vocabulary)
    named = json.loads((path / "tokenizer_config.json").read_text())["eos_token"]
    name = named if isinstance(named, str) else named["content"]
    if spec.plain:
        from tokenizers import Tokenizer

        backend = Tokenizer.from_file(str(path / "tokenizer.json"))
        eos = backend.token_to_id(name)
        return lambda texts: [e.ids for e in backend.encode_batch_fast(texts)], eos
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(path / "tokenizer.json"))
    eos = tokenizer.convert_tokens_to_ids(name)
    return lambda texts: tokenizer(texts, return_attention_mask=False)["input_ids"], eos


if __name__ == "__main__":
    main()
