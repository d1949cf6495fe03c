"""What one unit of documents leaves on disk for the decision over all of them.

Every file is a plain numpy array beside the unit's data; rows that are dropped or in error have
left before. Nothing here depends on how documents lie in batches.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from puna.artifact import digest_json
from puna.corpus.dedup.config import ExactConfig, Keep, NearConfig
from puna.corpus.dedup.signing import band_keys, kernels, sign_texts
from puna.corpus.dedup.words import text_buffers, word_table
from puna.corpus.schema import ID_BYTES, alive, stat
from puna.errors import InputError
from puna.records.documents import text_key

_DATE = re.compile(r"(\d{4})(?:-?(\d\d)(?:-?(\d\d)(?:[T ]?(\d\d):?(\d\d)(?::?(\d\d))?)?)?)?")
_NEVER = -1e18
# The hash of a document's words takes two of these for its 16 bytes.
_WORD_SEEDS = (0x243F6A8885A308D3, 0x13198A2E03707344)


class UnitFiles:
    """The arrays of one unit, mapped into memory when they are asked for.

    Attributes:
        rows: How many documents it has.
    """

    def __init__(self, folder: Path, kind: str, digest: str) -> None:
        """Open the files that `write_unit` made.

        Args:
            folder: Where they lie.
            kind: `exact` or `near`.
            digest: Of the configuration that they must have been made with.

        Raises:
            InputError: They are missing, damaged, or made with another configuration.
        """
        self._folder, self._kind = folder, kind
        self._arrays: dict[str, np.ndarray] = {}
        about = folder / f"{kind}.json"
        try:
            told = json.loads(about.read_text(encoding="utf-8"))
            self.rows, made_with = int(told["rows"]), told["config"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"is no unit that was looked at for duplicates: {error}",
                where=about,
                fix="look at the unit again",
            ) from error
        if made_with != digest:
            raise InputError(
                "was made with another configuration", where=about, fix="look at the unit again"
            )

    def array(self, name: str) -> np.ndarray:
        """One array, mapped.

        Raises:
            InputError: It is missing or damaged.
        """
        if name not in self._arrays:
            path = self._folder / f"{self._kind}-{name}.npy"
            try:
                self._arrays[name] = np.asarray(np.load(path, mmap_mode="r"))
            except (OSError, ValueError, EOFError) as error:
                raise InputError(
                    f"cannot be read: {error}", where=path, fix="look at the unit again"
                ) from error
        return self._arrays[name]


def digest_of(config: ExactConfig | NearConfig) -> str:
    """A digest of what decides about the files of a unit: all but memory and threshold."""
    told = dataclasses.asdict(config)
    for name in ("memory_bytes", "threshold"):
        told.pop(name, None)
    return digest_json({"version": config.VERSION, **told})


def sign_unit(batches: Iterable[pa.RecordBatch], folder: Path, config: NearConfig) -> int:
    """Leave beside a unit's data what the search for near-duplicates needs of it.

    That is, for every document that goes on and has a word: its id, bytes and rank, the keys of
    its bands, and its sketch: all different shingles, or the smallest `config.sketch` of them.

    Args:
        batches: The documents.
        folder: Where the files are written; it is made where it does not exist.
        config: Must be the same for all units.

    Returns:
        How many documents there were.

    Raises:
        InputError: The figure that `keep: best` goes by is not known.
        MissingPackageError: numba is not installed.
    """
    parts: list[dict[str, np.ndarray]] = []
    for batch in batches:
        going = _going(batch)
        signed = sign_texts(*text_buffers(going), config)
        lengths = np.diff(signed.starts)
        part = _told(going, config.keep, config.score)
        part["keys"] = band_keys(signed.signatures, config.bands)
        part["lengths"] = lengths
        part = {name: values[lengths > 0] for name, values in part.items()}
        parts.append(part | {"sketches": signed.sketches})
    empty: dict[str, np.ndarray] = {
        "keys": np.zeros((0, config.bands), np.uint64),
        "lengths": np.zeros(1, np.int64),
        "sketches": np.zeros(0, np.uint32),
    }
    whole = _concatenated(parts, empty)
    whole["starts"] = np.cumsum(whole.pop("lengths"))
    return _write_unit(whole, folder, "near", digest_of(config))


def exact_unit(batches: Iterable[pa.RecordBatch], folder: Path, config: ExactConfig) -> int:
    """Leave beside a unit's data what the search for exact duplicates needs of it.

    Args:
        batches: The documents.
        folder: Where the files are written; it is made where it does not exist.
        config: Must be the same for all units.

    Returns:
        How many documents there were.

    Raises:
        InputError: The figure that `keep: best` goes by is not known.
        MissingPackageError: numba is not installed, and words are compared.
    """
    parts = []
    for batch in batches:
        going = _going(batch)
        part = _told(going, config.keep, config.score)
        part["keys"] = _text_keys(going, config.form)
        parts.append(part)
    empty = {"keys": np.zeros((0, 2), np.uint64)}
    return _write_unit(_concatenated(parts, empty), folder, "exact", digest_of(config))


def as_ids(column: pa.Array) -> np.ndarray:
    """A column of 16-byte keys as uint8 [rows, 16]."""
    joined = b"".join(column.to_pylist())
    return np.frombuffer(joined, np.uint8).reshape(len(column), ID_BYTES)


def date_number(date: str | None) -> float:
    """A date of ISO 8601 as a number that grows with time; NaN where it is none.

    Offsets from UTC make no difference, and what is missing is the least: 2020 is before 2020-05.
    """
    found = _DATE.match(date.strip()) if date else None
    if found is None:
        return float("nan")
    return float("".join((part or "00") for part in found.groups()))


def _going(batch: pa.RecordBatch) -> pa.RecordBatch:
    rows = alive(batch)
    return batch if rows.all() else batch.filter(pa.array(rows))


def _told(batch: pa.RecordBatch, keep: Keep, score: str | None) -> dict[str, np.ndarray]:
    sizes = np.diff(text_buffers(batch)[0])
    ids = as_ids(batch.column("id"))
    return {"ids": ids, "sizes": sizes, "ranks": _ranks(batch, sizes, keep, score)}


def _ranks(batch: pa.RecordBatch, sizes: np.ndarray, keep: Keep, score: str | None) -> np.ndarray:
    """The higher, the rather a document stays: float64 [rows]; what is not known is lowest."""
    if keep == "best":
        assert score is not None
        ranks = stat(batch, score).astype(np.float64)
    elif keep == "oldest":
        dates = batch.column("date").to_pylist()
        ranks = -np.array([date_number(date) for date in dates], dtype=np.float64)
    else:
        ranks = sizes.astype(np.float64)
    return np.where(np.isnan(ranks), _NEVER, ranks)


def _text_keys(batch: pa.RecordBatch, form: str) -> np.ndarray:
    """16 bytes of each text in the form that is compared: uint64 [rows, 2]."""
    if form == "words":
        return _word_keys(batch)
    if form == "text":
        joined = b"".join(batch.column("content_hash").to_pylist())
    else:
        joined = b"".join(text_key(text) for text in batch.column("text").to_pylist())
    return np.frombuffer(joined, np.uint64).reshape(batch.num_rows, 2)


def _word_keys(batch: pa.RecordBatch) -> np.ndarray:
    offsets, data = text_buffers(batch)
    found = np.empty((2, batch.num_rows), np.uint64)
    for place, seed in enumerate(_WORD_SEEDS):
        seeds = np.full(batch.num_rows, seed, np.uint64)
        kernels().hash_sequences(data, offsets, tuple(word_table()), seeds, found[place])
    return np.ascontiguousarray(found.T)


def _concatenated(
    parts: Sequence[dict[str, np.ndarray]], empty: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    first = {
        "ids": np.zeros((0, ID_BYTES), np.uint8),
        "sizes": np.zeros(0, np.int64),
        "ranks": np.zeros(0, np.float64),
        **empty,
    }
    return {
        name: np.concatenate([array, *(part[name] for part in parts)])
        for name, array in first.items()
    }


def _write_unit(whole: dict[str, np.ndarray], folder: Path, kind: str, digest: str) -> int:
    folder.mkdir(parents=True, exist_ok=True)
    about = folder / f"{kind}.json"
    about.unlink(missing_ok=True)  # a unit that is half written is none
    for name, array in whole.items():
        np.save(folder / f"{kind}-{name}.npy", array)
    rows = len(whole["ids"])
    about.write_text(json.dumps({"rows": rows, "config": digest}) + "\n", encoding="utf-8")
    return rows
