"""The readers on the real data sets beside a development checkout."""

from __future__ import annotations

from pathlib import Path

import pytest

from puna.errors import InputError
from puna.records import (
    Columns,
    Item,
    Quarantine,
    Shape,
    choose_shape,
    find_files,
    read_parallel,
    read_rows,
    recognise,
)
from records.reading import shaped

pytestmark = pytest.mark.data


def items_of(
    where: Path, columns: Columns | None = None, shape: Shape | None = None
) -> tuple[list[Item], Shape]:
    quarantine = Quarantine()
    rows = list(read_rows(find_files(str(where)), quarantine=quarantine))
    items, misfits = shaped(rows, columns=columns, shape=shape)
    assert quarantine.total + misfits.total == 0
    return items, items[0].shape


@pytest.mark.parametrize(
    ("name", "shape", "count"),
    [
        ("llama-factory-demo/alpaca_en_demo.json.gz", "alpaca", 999),
        ("llama-factory-demo/alpaca_zh_demo.json.gz", "alpaca", 1000),
        ("llama-factory-demo/c4_demo.jsonl.gz", "text", 300),
        ("llama-factory-demo/wiki_demo.txt.gz", "text", 30),
        ("llama-factory-demo/glaive_toolcall_en_demo.json.gz", "sharegpt", 300),
        ("llama-factory-demo/glaive_toolcall_zh_demo.json.gz", "sharegpt", 300),
        ("self-instruct/seed_tasks.jsonl.gz", "alpaca", 175),
        ("gsm8k", "prompt", 8792),
        ("squad/disfl_qa.jsonl.gz", "prompt", 8000),
    ],
)
def test_shapes_are_right(shared_data: Path, name: str, shape: Shape, count: int) -> None:
    items, found = items_of(shared_data / name)
    assert (found, len(items)) == (shape, count)
    assert len({item.id for item in items}) == count


def test_preferences_and_columns_by_name(shared_data: Path) -> None:
    preferences = shared_data / "llama-factory-demo/dpo_en_demo.json.gz"
    with pytest.raises(InputError, match=r"dpo_en_demo\.json\.gz:2#0: these are preferences"):
        items_of(preferences)
    assert len(items_of(preferences, shape="sharegpt")[0]) == 300
    dialogues = shared_data / "dialogsum/dialogsum.dev.jsonl.gz"
    with pytest.raises(InputError, match=r"jsonl\.gz:1: these columns are of no known shape"):
        items_of(dialogues)
    items, shape = items_of(dialogues, Columns(prompt="dialogue", completion="summary"))
    assert (shape, len(items)) == ("prompt", 500)
    with pytest.raises(InputError, match="no known shape: 'title', 'paragraphs'"):
        items_of(shared_data / "squad/squad-dev-v1.1.json.gz")


def test_parallel_text(shared_data: Path) -> None:
    folder, quarantine = shared_data / "multi30k", Quarantine()
    rows = list(read_parallel(folder / "val.en.gz", folder / "val.de.gz", quarantine=quarantine))
    assert (len(rows), quarantine.total) == (1014, 0)
    assert choose_shape(rows, Columns())[0] == "parallel"
    with pytest.raises(InputError, match=r"has 1,014 lines, but .* has 1,000"):
        list(
            read_parallel(
                folder / "val.en.gz", folder / "test_2016_flickr.de.gz", quarantine=quarantine
            )
        )


def test_pairs_behind_tabs(shared_data: Path) -> None:
    path, quarantine = shared_data / "tatoeba-en-zh/cmn.txt.gz", Quarantine()
    shape, why = recognise(list(read_rows([path], quarantine=quarantine)), Columns())
    assert shape == "text"
    assert "format: tsv, header: false, columns.source: '1', columns.target: '2'" in why
    rows = list(read_rows([path], quarantine=quarantine, format="tsv", header=False))
    items, misfits = shaped(rows, columns=Columns(source="1", target="2"))
    assert (len(items), items[0].fields["target"]) == (20403, "嗨。")
    assert quarantine.total + misfits.total == 0
