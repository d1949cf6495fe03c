"""What is wrong with shards, mixtures and lengths is said before the first step."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flows.pretraining_setup import asked, make_shards, raise_model, texts
from flows.tuning_setup import Heard
from puna.errors import InputError
from puna.flows.pretrain_data import mean_context
from puna.tokens.shards import open_shards


@pytest.fixture
def mine(tmp_path: Path, tiny_shards: Path) -> Path:
    """A copy of the shards, to be spoilt."""
    return Path(shutil.copytree(tiny_shards, tmp_path / "mine"))


def refused(out: Path, recipe: dict[str, Any]) -> InputError:
    """The error; nothing was begun."""
    heard = Heard()
    with pytest.raises(InputError) as told:
        raise_model(out, recipe, heard)
    assert heard.steps == []
    assert not out.exists(), "nothing was written"
    return told.value


def a_shard(folder: Path) -> Path:
    return sorted((folder / "tales").glob("train-*.safetensors"))[0]


def test_no_shards(tmp_path: Path) -> None:
    found = refused(tmp_path / "run", asked(tmp_path / "nowhere"))
    assert "nowhere" in str(found)
    (tmp_path / "empty").mkdir()
    assert "holds no shards" in refused(tmp_path / "run", asked(tmp_path / "empty")).what


def test_a_truncated_shard(tmp_path: Path, mine: Path) -> None:
    path = a_shard(mine)
    path.write_bytes(path.read_bytes()[:-10])
    found = refused(tmp_path / "run", asked(mine))
    assert path.name in str(found.where)


def test_a_missing_shard(tmp_path: Path, mine: Path) -> None:
    path = a_shard(mine)
    path.unlink()
    assert path.name in str(refused(tmp_path / "run", asked(mine)).where)


def test_a_changed_byte_is_found_by_its_digest(tmp_path: Path, mine: Path) -> None:
    path = a_shard(mine)
    data = bytearray(path.read_bytes())
    header = int.from_bytes(data[:8], "little")
    place = 8 + header + json.loads(data[8 : 8 + header])["tokens"]["data_offsets"][0]
    data[place] ^= 1
    path.write_bytes(data)
    found = refused(tmp_path / "run", asked(mine))
    assert path.name in str(found.where)
    assert "digest" in found.what or "beyond the vocabulary" in found.what


def test_ids_beyond_the_vocabulary(tmp_path: Path, mine: Path) -> None:
    path = a_shard(mine)
    data = bytearray(path.read_bytes())
    header = int.from_bytes(data[:8], "little")
    start, stop = json.loads(data[8 : 8 + header])["tokens"]["data_offsets"]
    ids = np.frombuffer(data, dtype="<u2", count=(stop - start) // 2, offset=8 + header + start)
    ids.flags.writeable = True
    ids[:] = 60_000
    path.write_bytes(data)
    found = refused(tmp_path / "run", asked(mine))
    assert "beyond the vocabulary of 300 ids" in found.what
    with pytest.raises(InputError, match="beyond the vocabulary of 300 ids"):
        raise_model(tmp_path / "unchecked", asked(mine, verify=False))


def test_another_vocabulary_beside_the_shards(tmp_path: Path, mine: Path) -> None:
    other = make_shards(tmp_path / "o", {"others": texts(60)}, {"train": {"size": 280}})
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(other / name, mine / name)
    found = refused(tmp_path / "run", asked(mine))
    assert "is not the one that its shards were made with" in found.what


def test_shards_of_two_vocabularies(tmp_path: Path, tiny_shards: Path) -> None:
    other = make_shards(tmp_path / "o", {"others": texts(60)}, {"train": {"size": 280}})
    found = refused(tmp_path / "run", asked([str(tiny_shards), str(other)]))
    assert found.what.startswith("was made with another vocabulary (280 tokens")
    assert found.fix == f"tokenize its texts with vocabulary: {{model: {tiny_shards}}}"


def test_two_sources_of_one_name(tmp_path: Path, tiny_shards: Path, mine: Path) -> None:
    found = refused(tmp_path / "run", asked([str(tiny_shards), str(mine)]))
    assert found.what == "has a source 'tales', as another folder of the run does"


def test_a_mixture_of_an_unknown_source(tmp_path: Path, tiny_shards: Path) -> None:
    found = refused(tmp_path / "run", asked(tiny_shards, mixture={"weights": {"tails": 1}}))
    assert "tails" in found.what
    assert "tales" in str(found)


def test_too_little_text(tmp_path: Path, tiny_shards: Path) -> None:
    rows = {"row_tokens": 2**20, "step_rows": 1, "batch_rows": 1}
    found = refused(tmp_path / "run", asked(tiny_shards, rows=rows))
    assert "too few for one row" in found.what


def test_more_than_there_is(tmp_path: Path, tiny_shards: Path) -> None:
    found = refused(tmp_path / "run", asked(tiny_shards, train={}, tokens=10**7))
    assert "steps of 256 tokens are asked for, and the mixture has text for" in found.what
    assert "mixture.epochs" in str(found.fix)


def test_no_length_at_all(tmp_path: Path, tiny_shards: Path) -> None:
    found = refused(
        tmp_path / "run", asked(tiny_shards, train={}, mixture={"weights": {"tales": 1}})
    )
    assert found.what == "a mixture by weights never ends, and nothing says how long the run is"


def test_a_prompt_as_long_as_the_context(tmp_path: Path, tiny_shards: Path) -> None:
    found = refused(
        tmp_path / "run", asked(tiny_shards, samples={"prompts": ["a", "once upon a " * 40]})
    )
    assert found.where == "samples.prompts.1"
    assert "the model's context is 32" in found.what


def test_resume_without_a_run(tmp_path: Path, tiny_shards: Path) -> None:
    with pytest.raises(InputError, match="holds no run to go on with"):
        raise_model(tmp_path / "run", asked(tiny_shards), resume=True)


def test_a_folder_with_other_things(tmp_path: Path, tiny_shards: Path) -> None:
    out = tmp_path / "run"
    out.mkdir()
    (out / "thesis.tex").touch()
    with pytest.raises(InputError, match=r"holds thesis\.tex, which is not of a run"):
        raise_model(out, asked(tiny_shards), force=True)
    assert [path.name for path in out.iterdir()] == ["thesis.tex"]


def test_the_mean_context_is_counted(tiny_shards: Path) -> None:
    sources = [source.split("train") for source in open_shards(tiny_shards).sources.values()]
    seen = tokens = 0
    for documents in sources:
        for length in documents.lengths.tolist():
            for place in range(length):
                seen += place % 16 + 1
                tokens += 1
    assert mean_context(sources, 16, separate=True) == pytest.approx(seen / tokens)
    assert mean_context(sources, 16, separate=False) == 8.5
    assert mean_context([], 16, separate=True) == 0.0
