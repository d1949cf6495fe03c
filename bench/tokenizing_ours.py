"""Our side of the tokenizing bench: `python -m bench.tokenizing_ours SPEC` prints JSON."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from bench.tokenizing_spec import Spec, digest


def main() -> None:
    # Here, since processes that encode import this module anew, as they do that of the command.
    from bench.texts import SOURCE, quiet
    from puna.config import from_dict
    from puna.flows.tokenize_recipe import TokenizeRecipe
    from puna.flows.tokenizing import TokenizeOptions, tokenize
    from puna.tokens.shard_file import SPLITS
    from puna.tokens.shards import open_shards

    spec = Spec.read(sys.argv[1])
    recipe = {
        "sources": {SOURCE: {"files": spec.text, "licence": "several"}},
        "vocabulary": {"model": spec.vocabulary},
        "threads": spec.threads,
        "meter": {"use_codecarbon": False},
    }
    out = Path(spec.out) / "shards"
    began = time.perf_counter()
    done = tokenize(from_dict(TokenizeRecipe, recipe), TokenizeOptions(out), quiet())
    whole = time.perf_counter() - began
    splits = [s.split(split) for s in open_shards(out).sources.values() for split in SPLITS]
    found = (
        documents.read(number, 0, int(length))
        for documents in splits
        for number, length in enumerate(documents.lengths)
    )
    told = {
        "whole": whole,
        "encoding": done.seconds,
        "tokens": sum(documents.tokens for documents in splits),
        "digest": digest(found),
    }
    print(json.dumps(told))


if __name__ == "__main__":
    main()
