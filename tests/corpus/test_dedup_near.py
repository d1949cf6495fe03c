"""Near-duplicates: found, checked, joined, and one of them kept, however the documents lie."""

from __future__ import annotations

import functools
import gzip
import json
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import networkx as nx
import numpy as np
import pyarrow as pa
import pytest

from puna.corpus.dedup import (
    Clusters,
    ExactConfig,
    NearConfig,
    dropping,
    exact_unit,
    find_exact_duplicates,
    find_near_duplicates,
    sign_unit,
    signature_twin,
)
from puna.corpus.dedup.clusters import Members, order_members
from puna.corpus.dedup.units import date_number
from puna.corpus.schema import Found, document_id, make_batch, with_drops, with_stats
from puna.errors import InputError

CONFIG = NearConfig()
Told = dict[bytes, tuple[bytes, bool, float]]


def text_of(seed: int, words: int = 200) -> str:
    rng = random.Random(seed)
    return " ".join(f"w{rng.randrange(5_000)}" for _ in range(words))


def edited(text: str, share: float, seed: int) -> str:
    rng = random.Random(seed)
    return " ".join("new" if rng.random() < share else word for word in text.split())


def batch_of(texts: Sequence[str], source: str = "s", dates: Sequence[str] = ()) -> pa.RecordBatch:
    given = [*dates, *[None] * (len(texts) - len(dates))]
    pairs = enumerate(zip(texts, given, strict=True))
    return make_batch(source, [Found(str(i), text, date=date) for i, (text, date) in pairs])


def found_in(
    place: Path, units: Sequence[Sequence[pa.RecordBatch]], config: NearConfig = CONFIG
) -> Clusters:
    folders = [place / f"unit-{number}" for number in range(len(units))]
    for folder, batches in zip(folders, units, strict=True):
        sign_unit(batches, folder, config)
    found = find_near_duplicates(folders, config, place)
    assert sorted(place.iterdir()) == folders, "the work folder is not left clean"
    return found


def told(found: Clusters) -> Told:
    rows = zip(found.ids, found.kept_ids, found.kept, found.similarity, strict=True)
    return {a.tobytes(): (b.tobytes(), bool(kept), float(alike)) for a, b, kept, alike in rows}


@functools.cache
def shingles(text: str) -> frozenset[int]:
    words = [word.hash for word in signature_twin.words_of(text)]
    return frozenset(signature_twin.shingles_of(words, CONFIG.ngram))


def jaccard(left: str, right: str) -> float:
    a, b = shingles(left), shingles(right)
    return len(a & b) / len(a | b)


def corpus() -> list[str]:
    """Twelve originals, some with copies of several degrees, and documents apart."""
    texts = [text_of(seed) for seed in range(40)]
    for seed in range(12):
        texts += [edited(texts[seed], share, seed) for share in (0.0, 0.005, 0.02, 0.3)]
    return texts


def test_copies_are_found_and_what_is_apart_stays(tmp_path: Path) -> None:
    texts = corpus()
    batch = batch_of(texts)
    found = found_in(tmp_path, [[batch]])
    ids = [document_id("s", str(i)) for i in range(len(texts))]
    by_id = dict(zip(ids, texts, strict=True))
    answers = told(found)
    for seed in range(12):
        copies = ids[40 + 4 * seed : 43 + 4 * seed]
        kept = {answers[copy][0] for copy in (ids[seed], *copies[:2])}
        assert len(kept) == 1
    for copy, (kept_id, _, alike) in answers.items():
        assert alike == np.float32(jaccard(by_id[copy], by_id[kept_id]))  # sketches are whole
    assert not set(ids[12:40]) & set(answers)
    assert not {ids[43 + 4 * seed] for seed in range(12)} & set(answers)
    dropped = dropping(found)(batch).column("drop").to_pylist()
    assert dropped.count("near_duplicate") == len(answers) - len(found)
    assert [reason is None or reason == "near_duplicate" for reason in dropped]


@pytest.mark.parametrize("memory_bytes", [1, 4_000, 50_000])
def test_neither_units_nor_batches_nor_memory_change_the_result(
    tmp_path: Path, memory_bytes: int
) -> None:
    batch = batch_of(corpus())
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    whole.mkdir()
    cut.mkdir()
    expected = found_in(whole, [[batch]])
    parts = [batch.slice(start, 7) for start in range(0, batch.num_rows, 7)]
    random.Random(0).shuffle(parts)
    units = [parts[:3], [], parts[3:4], parts[4:]]
    other = found_in(cut, units, replace(CONFIG, memory_bytes=memory_bytes))
    assert told(other) == told(expected)
    assert (other.ids == expected.ids).all()


def test_components_are_those_of_the_pairs_that_are_alike(tmp_path: Path) -> None:
    """Against networkx, over all pairs; bands of one row find every pair that shares anything."""
    rng = random.Random(1)
    texts = [text_of(seed, 60) for seed in range(12)]
    texts += [edited(rng.choice(texts), rng.choice([0.01, 0.03, 0.06]), n) for n in range(60)]
    config = NearConfig(bands=60, rows=1, threshold=0.6)
    found = found_in(tmp_path, [[batch_of(texts)]], config)
    graph = nx.Graph()
    for i, left in enumerate(texts):
        graph.add_edges_from(
            (i, j) for j in range(i) if jaccard(left, texts[j]) >= config.threshold
        )
    expected = {frozenset(document_id("s", str(i)) for i in one)
                for one in nx.connected_components(graph)}  # fmt: skip
    groups = {frozenset(found.ids[row].tobytes() for row in rows) for rows in found.members()}
    assert groups == expected
    sizes = [len(rows) for rows in found.members()]
    assert sizes == sorted(sizes, reverse=True)


def test_documents_that_others_connect_tell_how_unlike_they_are(tmp_path: Path) -> None:
    words = [f"w{i}" for i in range(300)]
    texts = [" ".join(words[start : start + 200]) for start in (0, 25, 50)]
    found = found_in(tmp_path, [[batch_of(texts)]], NearConfig(bands=40, rows=4))
    assert len(found) == 1
    assert len(found.ids) == 3
    assert found.similarity.max() == 1.0
    kept = next(i for i in range(3) if document_id("s", str(i)) == found.kept_ids[0].tobytes())
    assert found.similarity.min() == np.float32(min(jaccard(texts[kept], t) for t in texts))


def test_a_great_many_copies_are_one_cluster_in_little_memory(tmp_path: Path) -> None:
    texts = [text_of(1, 30)] * 700 + [text_of(2, 30)] * 5
    found = found_in(tmp_path, [[batch_of(texts)]], replace(CONFIG, memory_bytes=10_000))
    assert [len(rows) for rows in found.members()] == [700, 5]


@pytest.mark.parametrize("word_count", [1, 3, 5])
def test_short_texts_use_what_they_have(tmp_path: Path, word_count: int) -> None:
    text = " ".join("abcde"[:word_count])
    found = found_in(tmp_path, [[batch_of([text, text.upper() + "!", text + " more", ""])]])
    assert sorted(told(found)) == sorted(document_id("s", str(i)) for i in range(2))


def test_what_has_no_word_or_is_dropped_is_left_alone(tmp_path: Path) -> None:
    texts = ["", "...", "!!", text_of(1), text_of(1), text_of(1)]
    batch = with_drops(batch_of(texts), {3: "gopher_quality.few_words"})
    found = found_in(tmp_path, [[batch]])
    assert sorted(told(found)) == sorted(document_id("s", str(i)) for i in (4, 5))
    reasons = dropping(found)(batch).column("drop").to_pylist()
    assert reasons[:4] == [None, None, None, "gopher_quality.few_words"]
    assert sorted(reasons[4:], key=str) == [None, "near_duplicate"]


def test_no_text_is_lost_where_units_are_marked_for_both_at_once(tmp_path: Path) -> None:
    """Each rule by itself may keep another copy of a text; both together must keep one."""
    texts = [text_of(n // 4) for n in range(160)]
    batch = batch_of(texts, dates=[f"20{n % 4:02}-01-01" for n in range(160)])
    folder, exact = tmp_path / "unit", ExactConfig()
    exact_unit([batch], folder, exact)
    sign_unit([batch], folder, CONFIG)
    first = find_exact_duplicates([folder], exact, tmp_path)
    second = find_near_duplicates([folder], CONFIG, tmp_path, first)
    result = dropping(first, second)(batch)
    left = [t for t, why in zip(texts, result.column("drop").to_pylist(), strict=True) if not why]
    assert sorted(left) == sorted(set(texts))
    assert len(second) == 0
    apart = dropping(first, find_near_duplicates([folder], CONFIG, tmp_path))(batch)
    assert apart.column("drop").null_count < 40  # which is why it must be told


def test_texts_of_another_arrow_type_are_signed_alike(tmp_path: Path) -> None:
    batch = batch_of(corpus())
    place = batch.schema.get_field_index("text")
    other = batch.set_column(place, "text", batch.column("text").cast(pa.string()))
    results = []
    for number, one in enumerate((batch, other)):
        (tmp_path / str(number)).mkdir()
        results.append(told(found_in(tmp_path / str(number), [[one]])))
    assert results[0] == results[1]


def test_the_keep_rules(tmp_path: Path) -> None:
    base = text_of(3)
    texts = [base, base + " one more", base + " x", edited(base, 0.0, 1)]
    dates = ["2021-05-02", "2021-05", "2019-01-01T10:00:00Z"]
    batch = with_stats(batch_of(texts, dates=dates), {"quality": np.array([1, 2, np.nan, 5])})

    def kept(config: NearConfig) -> bytes:
        place = tmp_path / config.keep
        place.mkdir()
        found = found_in(place, [[batch]], config)
        assert len(found) == 1
        return found.ids[found.kept][0].tobytes()

    assert kept(NearConfig(keep="longest")) == document_id("s", "1")
    assert kept(NearConfig(keep="oldest")) == document_id("s", "2")
    assert kept(NearConfig(keep="best", score="quality")) == document_id("s", "3")
    with pytest.raises(InputError, match="no step before has computed the figure 'perplexity'"):
        sign_unit([batch], tmp_path / "x", NearConfig(keep="best", score="perplexity"))


def test_ties_go_by_length_then_id() -> None:
    ids = np.zeros((4, 16), np.uint8)
    ids[:, 0] = [4, 3, 2, 1]
    members = Members(np.array([7, 7, 7, 0]), ids, np.zeros(4), np.array([9, 9, 8, 1]))
    order, kept_at = order_members(members)
    assert ids[order, 0].tolist() == [1, 3, 2, 4]
    assert ids[order[kept_at], 0].tolist() == [1, 3, 3, 3]


def test_dates_are_ordered() -> None:
    dates = ["1999", "2001-02", "2001-02-03", "20010204", "2001-02-04T05:06:07Z", "2001-12"]
    numbers = [date_number(date) for date in dates]
    assert numbers == sorted(numbers)
    assert np.isnan([date_number(date) for date in (None, "", "last week")]).all()


def test_clusters_are_saved_and_read(tmp_path: Path) -> None:
    found = found_in(tmp_path, [[batch_of(corpus())]])
    path = tmp_path / "clusters.parquet"
    found.save(path)
    again = Clusters.read(path)
    assert told(again) == told(found)
    assert again.reason == "near_duplicate"
    rows = again.of(document_id("s", "3"))
    assert document_id("s", "3") in {again.ids[row].tobytes() for row in rows}
    assert again.kept[rows].tolist() == [True, *[False] * (len(rows) - 1)]
    assert len(again.of(b"x" * 16)) == 0
    with pytest.raises(InputError, match="already exists"):
        found.save(path)
    path.write_bytes(b"PAR1 no more")
    with pytest.raises(InputError, match="holds no clusters"):
        Clusters.read(path)
    with pytest.raises(InputError, match="holds no clusters"):
        Clusters.read(tmp_path / "none.parquet")


def test_nothing_to_find(tmp_path: Path) -> None:
    found = found_in(tmp_path, [[], [batch_of([])], [batch_of(["one text", "quite another"])]])
    assert len(found) == 0
    assert found.members() == []
    found.save(tmp_path / "clusters.parquet")
    assert len(Clusters.read(tmp_path / "clusters.parquet")) == 0
    assert dropping(found)(batch_of(["a"])).column("drop").null_count == 1


def test_units_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "unit"
    sign_unit([batch_of(corpus())], folder, CONFIG)
    with pytest.raises(InputError, match=r"near\.json: was made with another configuration"):
        find_near_duplicates([folder], NearConfig(ngram=6), tmp_path)
    find_near_duplicates([folder], NearConfig(threshold=0.8, memory_bytes=1 << 20), tmp_path)
    (folder / "near-keys.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(InputError, match=r"near-keys\.npy: cannot be read"):
        find_near_duplicates([folder], CONFIG, tmp_path)
    with pytest.raises(InputError, match="is no unit that was looked at for duplicates"):
        find_near_duplicates([tmp_path / "none"], CONFIG, tmp_path)
    (folder / "near.json").write_text("[]")
    with pytest.raises(InputError, match="is no unit that was looked at"):
        find_near_duplicates([folder], CONFIG, tmp_path)


@pytest.mark.data
def test_real_speeches_and_their_edited_copies(tmp_path: Path, shared_data: Path) -> None:
    with gzip.open(shared_data / "sotu" / "sotu.jsonl.gz", "rt") as file:
        texts = [json.loads(line)["text"][:6_000] for line in file][::2]
    copies = [edited(text, 0.01, seed) for seed, text in enumerate(texts)]
    found = found_in(tmp_path, [[batch_of(texts, "a")], [batch_of(copies, "b")]])
    answers = told(found)
    pairs = [
        (answers.get(document_id("a", str(i))), answers.get(document_id("b", str(i))))
        for i in range(len(texts))
    ]
    joined = [a is not None and b is not None and a[0] == b[0] for a, b in pairs]
    assert sum(joined) >= 0.95 * len(texts)
    assert len(answers) <= 2 * len(texts)
