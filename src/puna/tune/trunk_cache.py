"""The trunk cache: what the frozen trunk makes of a sequence is computed once, then read.

In come a model whose blocks below `start` are frozen, and the sequences of a run. Out come, for
any batch of them, the hidden states that enter block `start`. A sequence is an entry of its own,
keyed by the trunk and its token ids; how batches are made of them is not in the key.

What cannot be stored (beyond the budget, no space left, a folder that is read-only) or cannot be
read (damaged, gone) is computed instead, and told: never an error, never silence.

How exact: an entry of the trunk's own dtype is bit for bit what `run_trunk` gave for its chunk of
the plan, and recomputing it gives the same bits again, also after a kill. Two cases are equal up
to rounding only: an entry that another run had stored and that left the disk since (it is then
planned with this run's sequences), and a sequence that is not stored (computed with its batch).

Shapes: B batch, T tokens, M hidden_size.
"""

from __future__ import annotations

import contextlib
import os
import time
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from puna.artifact import digest_json
from puna.errors import InputError
from puna.model import LlamaModel
from puna.tune.trunk_codec import Codec, StoredDtype
from puna.tune.trunk_identity import check_frozen, trunk_identity
from puna.tune.trunk_places import default_folder, make_room
from puna.tune.trunk_plan import Entries, Ids, run_trunk
from puna.tune.trunk_stats import Counts, TrunkStats
from puna.tune.trunk_store import (
    VERSION,
    Chunk,
    ChunkStore,
    Damaged,
    Rows,
    chunk_name,
    planned_bytes,
    using,
)

ATTENTION = "causal, positions from 0"  # part of the key


@dataclass(frozen=True)
class TrunkCacheConfig:
    """Whether, how and where the trunk's output is kept."""

    enabled: bool = True
    """False computes the trunk anew for every batch."""
    dtype: StoredDtype = "auto"
    """float32, bfloat16 or int8 (with a scale per token); auto is what the trunk computes in."""
    folder: Path | None = None
    """A folder that runs share; `$XDG_CACHE_HOME/puna/trunk` by default."""
    max_bytes: int = 8 * 1024**3
    """Bytes on disk: of what a run stores, and of all runs together once one needs room."""
    batch_tokens: int = 2048
    """Tokens per batch of filling, padding included; another number is another plan."""

    def __post_init__(self) -> None:
        if self.max_bytes < 0:
            raise InputError(f"max_bytes must be at least 0, not {self.max_bytes}")
        if self.batch_tokens < 1:
            raise InputError(f"batch_tokens must be at least 1, not {self.batch_tokens}")


class TrunkCache:
    """The trunk's output for the sequences of a run. For one thread.

    What is beyond the budget is decided here, from the sequences alone: the longest ones.

    Args:
        model: Its embedding and blocks [0, start) are frozen, and stay as they are.
        start: The first block that is not the trunk's.
        sequences: Token ids [n] of each; the same ids twice are one entry.
        config: See `TrunkCacheConfig`.
        identity: `trunk_identity(model, start)`, where the caller has it already.

    Raises:
        InputError: A parameter of the trunk learns, or a sequence is empty or has other ids.
    """

    def __init__(
        self,
        model: LlamaModel,
        start: int,
        sequences: Sequence[NDArray[np.int32]],
        config: TrunkCacheConfig,
        *,
        identity: str | None = None,
    ) -> None:
        check_frozen(model, start)
        self.model, self.start, self.config = model, start, config
        self.notes: list[str] = []
        """What did not go as the user may have expected, in sentences."""
        self._device = next(model.parameters()).device
        self._entries = Entries(sequences, model.config.vocab_size)
        with torch.inference_mode():
            probe = model.embed(torch.zeros(1, 1, dtype=torch.int64, device=self._device))
        self._codec, self._width = Codec.choose(config.dtype, probe.dtype), probe.shape[-1]
        self._slots: list[tuple[Chunk, int] | None] = [None] * len(self._entries.keys)
        self._counts, self._computing_seconds = Counts(), 0.0
        self._in_use = contextlib.ExitStack()
        weakref.finalize(self, self._in_use.close)
        self._kept = self._within_budget()
        self._counts.beyond = len(self._slots) - len(self._kept)
        self._store = self._open(identity) if self._kept else None

    def fill(self, progress: Callable[[int, int], None] | None = None) -> None:
        """Compute and store what is missing. Chunks that were stored stay, whatever happens.

        Args:
            progress: Is told (tokens done, tokens to do) before the first and after every chunk;
                not called where nothing is missing.
        """
        if self._store is None:
            return
        began = time.perf_counter()
        try:
            plan = self._plan_with_room(self._store)
            self._declare([self._name(chunk) for chunk in plan])
            counts = [self._entries.tokens_of(chunk) for chunk in plan]
            for number, chunk in enumerate(plan):
                if progress is not None:
                    progress(sum(counts[:number]), sum(counts))
                sequences = [self._entries.ids[entry] for entry in chunk]
                if not self._adopt(self._store, chunk) and not self._make(self._store, sequences):
                    break
            else:
                if progress is not None and plan:
                    progress(sum(counts), sum(counts))
        finally:
            self._counts.seconds_filling += time.perf_counter() - began
            self._declare()

    def gather(self, members: Sequence[Sequence[int]], width: int) -> Tensor:
        """The hidden states of a batch, in the trunk's own dtype and on its device.

        Args:
            members: Of each row, the sequences that follow one another in it, by their position
                in `sequences`.
            width: T, the tokens of a row; zeros stand where its sequences end.

        Returns:
            [B, T, M], an ordinary tensor without a history.

        Raises:
            InputError: The sequences of a row are longer than `width`.
        """
        began, computing = time.perf_counter(), self._computing_seconds
        raw = np.zeros((len(members), width, self._width), self._codec.raw)
        scales = np.zeros(raw.shape[:2], np.float32) if self._codec.scaled else None
        live: dict[int, list[tuple[int, int]]] = {}
        for row, sequences in enumerate(members):
            at = 0
            for sequence in sequences:
                entry = self._entries.of[sequence]
                stop = at + self._entries.tokens[entry]
                if stop > width:
                    raise InputError(f"row {row} has {stop} tokens or more; a row holds {width}")
                stored = self._stored(entry)
                if stored is None:
                    live.setdefault(entry, []).append((row, at))
                else:
                    raw[row, at:stop] = stored[0]
                    if scales is not None:
                        scales[row, at:stop] = stored[1]
                at = stop
        hidden = self._codec.decode(raw, scales, self._device)
        self._put_live(hidden, live)
        computing = self._computing_seconds - computing
        self._counts.seconds_reading += time.perf_counter() - began - computing
        return hidden

    def stats(self) -> TrunkStats:
        """What the cache did so far, and what it has on disk."""
        chunks = self._used()
        tokens = sum(chunk.starts[-1] for chunk in chunks)
        return self._counts.told(
            sequences=len(self._slots),
            bytes_on_disk=sum(chunk.nbytes for chunk in chunks),
            seconds_per_token=sum(c.seconds for c in chunks) / tokens if tokens else 0.0,
        )

    def close(self) -> None:
        """Let other processes evict what this one used; the end of the object does it, too."""
        self._in_use.close()

    # --- opening -------------------------------------------------------------------------------

    def _within_budget(self) -> set[int]:
        """The entries that are to be stored: whole chunks of the plan, while they fit."""
        kept: set[int] = set()
        spent = 0
        everything = range(len(self._slots)) if self.config.enabled else range(0)
        for chunk in self._entries.plan(everything, self.config.batch_tokens):
            spent += self._planned_bytes(chunk)
            if spent > self.config.max_bytes:
                break
            kept.update(chunk)
        return kept

    def _open(self, identity: str | None) -> ChunkStore | None:
        self._root = (self.config.folder or default_folder()).expanduser()
        told = {
            "trunk": trunk_identity(self.model, self.start) if identity is None else identity,
            "attention": ATTENTION,
            "dtype": self._codec.name,
            "hidden": str(self._codec.hidden),
            "width": self._width,
            "version": VERSION,
        }
        store = ChunkStore(self._root / digest_json(told)[:32], self._codec, self._width)
        try:
            store.folder.mkdir(parents=True, exist_ok=True)
            chunks, broken = store.scan()
        except OSError as error:
            self._note(f"{store.folder} cannot be used ({error.strerror})", len(self._kept))
            return None
        for path in broken:
            self._counts.damaged += 1
            with contextlib.suppress(OSError):
                path.unlink()
        self._take(chunks)
        self._counts.found = sum(slot is not None for slot in self._slots)
        self._declare_in(store)
        return store

    def _take(self, chunks: Sequence[Chunk]) -> None:
        """Point entries at the chunks that hold them; chunks that are all ours come first.

        Those can be computed again from what this run knows.
        """
        ours = {self._entries.keys[entry]: entry for entry in self._kept}
        shares = [sum(key in ours for key in chunk.keys) / len(chunk.keys) for chunk in chunks]
        for share, chunk in sorted(zip(shares, chunks, strict=True), key=lambda pair: -pair[0]):
            for position, key in enumerate(chunk.keys) if share else ():
                entry = ours.get(key)
                if entry is not None and self._slots[entry] is None:
                    self._slots[entry] = (chunk, position)

    def _declare(self, planned: Sequence[str] = ()) -> None:
        if self._store is not None:
            self._declare_in(self._store, planned)

    def _declare_in(self, store: ChunkStore, planned: Sequence[str] = ()) -> None:
        """Tell others which chunks are in use, and were used just now."""
        self._in_use.close()
        paths = [chunk.path for chunk in self._used()]
        with contextlib.suppress(OSError):  # read-only: nobody can evict there
            names = [*(path.name for path in paths), *planned]
            self._in_use.enter_context(using(store.folder, names))
            for path in paths:
                os.utime(path)

    # --- storing -------------------------------------------------------------------------------

    def _name(self, chunk: Sequence[int]) -> str:
        return chunk_name([self._entries.keys[entry] for entry in chunk])

    def _planned_bytes(self, chunk: Sequence[int]) -> int:
        tokens = self._entries.tokens_of(chunk)
        return planned_bytes(tokens, len(chunk), self._codec, self._width)

    def _missing(self) -> list[list[int]]:
        missing = [entry for entry in self._kept if self._slots[entry] is None]
        return self._entries.plan(missing, self.config.batch_tokens)

    def _used(self) -> list[Chunk]:
        chunks = {slot[0].path: slot[0] for slot in self._slots if slot is not None}
        return [chunks[path] for path in sorted(chunks)]

    def _plan_with_room(self, store: ChunkStore) -> list[list[int]]:
        """What is to be computed, after the disk has room for it."""
        plan, limit = self._missing(), self.config.max_bytes
        needed = sum(map(self._planned_bytes, plan))
        if sum(chunk.nbytes for chunk in self._used()) + needed > limit:
            # Chunks of other runs, of which only a part is ours, take too much: stay with our own.
            whole = self._entries.plan(self._kept, self.config.batch_tokens)
            own = {self._name(chunk) for chunk in whole}
            for entry, slot in enumerate(self._slots):
                if slot is not None and slot[0].path.name not in own:
                    self._slots[entry] = None
            plan = self._missing()
            needed = sum(map(self._planned_bytes, plan))
            self._declare_in(store)
        keep = {chunk.path for chunk in self._used()}
        room = make_room(self._root, keep, needed, limit)
        self._counts.evicted += room.evicted
        if room.used_bytes + needed > limit:
            over = room.used_bytes + needed - limit
            self.notes.append(
                f"trunk cache: other runs at work hold their chunks in {self._root}; until they "
                f"end, the folder is {over} bytes over max_bytes"
            )
        return plan

    def _adopt(self, store: ChunkStore, chunk: Sequence[int]) -> bool:
        """Take a chunk that another process has stored since the plan was made."""
        path = store.folder / self._name(chunk)
        try:
            self._take([store.index(path)])
        except Damaged:
            return False
        return True

    def _make(self, store: ChunkStore, sequences: Sequence[Ids]) -> bool:
        """Compute and store a chunk; False, and a note, where the disk refuses it."""
        began = time.perf_counter()
        hidden, valid = run_trunk(self.model, self.start, sequences)
        rows = hidden[valid].cpu()
        seconds = time.perf_counter() - began
        self._computing_seconds += seconds
        self._counts.computed += len(sequences)
        try:
            self._take([store.write(sequences, rows, seconds)])
        except (InputError, OSError, Damaged) as error:
            lost = sum(self._slots[entry] is None for entry in self._kept)
            self._note(f"a chunk could not be written ({error})", lost)
            return False
        return True

    def _note(self, why: str, sequences: int) -> None:
        self.notes.append(
            f"trunk cache: {why}; {sequences} sequences are computed for every batch instead"
        )

    # --- reading -------------------------------------------------------------------------------

    def _stored(self, entry: int) -> Rows | None:
        """An entry as stored; a damaged one is computed again first. None: it is not stored."""
        for _ in range(2):
            slot = self._slots[entry]
            if slot is None or self._store is None:
                return None
            try:
                rows = self._store.read(*slot)
            except Damaged:
                self._repair(self._store, slot[0])
            else:
                self._counts.hits += 1
                self._counts.hit_tokens += self._entries.tokens[entry]
                return rows
        self._slots[entry] = None
        return None

    def _repair(self, store: ChunkStore, chunk: Chunk) -> None:
        """Compute a chunk again in the batch that it came from, of other runs' ids, too."""
        self._counts.damaged += 1
        ours = self._entries.by_key
        pairs = zip(chunk.keys, store.sequences(chunk), strict=True)
        batch = [self._entries.ids[ours[key]] if key in ours else ids for key, ids in pairs]
        known = [ids for ids in batch if ids is not None]
        store.forget(chunk.path)
        lost = [e for e, slot in enumerate(self._slots) if slot is not None and slot[0] is chunk]
        for entry in lost:
            self._slots[entry] = None
        if len(known) == len(batch):
            self._make(store, known)
            return
        with contextlib.suppress(OSError):
            chunk.path.unlink()
        for part in self._entries.plan(lost, self.config.batch_tokens):
            if not self._make(store, [self._entries.ids[entry] for entry in part]):
                break

    @torch.no_grad()
    def _put_live(self, hidden: Tensor, live: dict[int, list[tuple[int, int]]]) -> None:
        """Compute what is not stored, in batches that depend on this batch alone."""
        for chunk in self._entries.plan(live, self.config.batch_tokens):
            began = time.perf_counter()
            sequences = [self._entries.ids[entry] for entry in chunk]
            values, _ = run_trunk(self.model, self.start, sequences)
            for entry, found in zip(chunk, values, strict=True):
                for row, at in live[entry]:
                    tokens = self._entries.tokens[entry]
                    hidden[row, at : at + tokens] = found[:tokens]
                    self._counts.live += 1
            self._computing_seconds += time.perf_counter() - began
