"""Damaged headers: 2,000 mutated and 2,000 random inputs a format, 500 made of JSON, every cut.

Whatever the bytes, the parser answers or raises InputError; it never crashes and never takes
memory out of proportion to the file (256 kB + 64 bytes for each byte of a small file).
"""

from __future__ import annotations

import json
import random
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from puna.errors import InputError
from puna.store import open_checkpoint, write_gguf
from puna.store.gguf_header import parse_gguf
from puna.store.safetensors import parse_header

INPUTS = 2000
RUNS = settings(
    max_examples=INPUTS, deadline=None, database=None, suppress_health_check=list(HealthCheck)
)
FEW = settings(RUNS, max_examples=500)

# What a reader might trust: extreme counts and lengths, in the widths that the formats use.
NUMBERS = [0, 1, 2, 8, 9, 255, 2**15, 2**31 - 1, 2**31, 2**32 - 1, 2**62, 2**63 - 1, 2**64 - 1]


def gguf_string(text: str) -> bytes:
    return struct.pack("<Q", len(text.encode())) + text.encode()


def good_gguf() -> bytes:
    """A small file with every kind of metadata and two tensors."""
    rows = [
        ("general.architecture", 8, gguf_string("llama")),
        ("general.alignment", 4, struct.pack("<I", 32)),
        ("a.float", 6, struct.pack("<f", 1.5)),
        ("a.bool", 7, b"\x01"),
        ("a.long", 10, struct.pack("<Q", 7)),
        ("a.strings", 9, struct.pack("<IQ", 8, 3) + b"".join(map(gguf_string, ["a", "", "羊"]))),
        ("a.ints", 9, struct.pack("<IQ3i", 5, 3, -1, 2, 3)),
        ("a.nested", 9, struct.pack("<IQIQ2B", 9, 1, 0, 2, 1, 2)),
    ]
    header = b"GGUF" + struct.pack("<IQQ", 3, 2, len(rows))
    for key, kind, value in rows:
        header += gguf_string(key) + struct.pack("<I", kind) + value
    header += gguf_string("token_embd.weight") + struct.pack("<IQQIQ", 2, 32, 2, 8, 0)
    header += gguf_string("output_norm.weight") + struct.pack("<IQIQ", 1, 4, 0, 96)
    return header + bytes(-len(header) % 32) + bytes(96 + 16)


def good_safetensors() -> bytes:
    header = {
        "__metadata__": {"format": "pt"},
        "a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
        "b": {"dtype": "BF16", "shape": [4], "data_offsets": [24, 32]},
    }
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(32)


def read_gguf_bytes(data: bytes) -> object:
    return parse_gguf(data, len(data), "fuzz.gguf")


def read_safetensors_bytes(data: bytes) -> object:
    return parse_header(data, len(data), "fuzz.safetensors")


FORMATS = {
    "gguf": (good_gguf(), read_gguf_bytes),
    "safetensors": (good_safetensors(), read_safetensors_bytes),
}


@st.composite
def mutations(draw: Callable, data: bytes) -> bytes:
    """One to four edits: flip, overwrite with an extreme number, cut, repeat or insert."""
    changed = bytearray(data)
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, max(len(changed) - 1, 0)))
        match draw(st.integers(0, 4)):
            case 0 if changed:
                changed[place] ^= draw(st.integers(1, 255))
            case 1:
                width = draw(st.sampled_from("BIQ"))
                number = draw(st.sampled_from(NUMBERS)) % 2 ** (8 * struct.calcsize(width))
                packed = struct.pack("<" + width, number)
                changed[place : place + len(packed)] = packed
            case 2:
                del changed[place : place + draw(st.integers(1, 32))]
            case 3:
                changed[place:place] = changed[place : place + draw(st.integers(1, 64))]
            case _:
                changed[place:place] = draw(st.binary(max_size=16))
    return bytes(changed)


def survives(read: Callable[[bytes], object], data: bytes) -> None:
    tracemalloc.start()
    try:
        read(data)
    except InputError as error:
        assert str(error)
        str(error).encode("utf-8")  # can be printed
    taken = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert taken < 256_000 + 64 * len(data), f"{taken} bytes of memory for {len(data)}"


@pytest.mark.parametrize("name", FORMATS)
def test_the_undamaged_file_parses(name):
    data, read = FORMATS[name]
    read(data)


@pytest.mark.parametrize("name", FORMATS)
def test_mutated_headers(name):
    data, read = FORMATS[name]

    @RUNS
    @given(mutations(data))
    def run(damaged: bytes) -> None:
        survives(read, damaged)

    run()


@pytest.mark.parametrize("name", FORMATS)
def test_random_bytes(name):
    data, read = FORMATS[name]
    start = data[: 8 if name == "gguf" else 0]

    @RUNS
    @given(st.binary(max_size=300))
    def run(noise: bytes) -> None:
        survives(read, start + noise)
        if name == "safetensors":  # a right length, so that the noise is parsed
            survives(read, struct.pack("<Q", len(noise)) + noise)

    run()


@pytest.mark.parametrize("name", FORMATS)
def test_every_truncation_is_an_error(name):
    data, read = FORMATS[name]
    for length in range(len(data)):
        with pytest.raises(InputError):
            read(data[:length])


@pytest.mark.parametrize("name", FORMATS)
def test_every_extreme_number_at_every_place(name):
    data, read = FORMATS[name]
    rng = random.Random(0)
    for place in range(len(data) - 8):
        for width in "IQ":
            number = rng.choice(NUMBERS) % 2 ** (8 * struct.calcsize(width))
            packed = struct.pack("<" + width, number)
            survives(read, data[:place] + packed + data[place + len(packed) :])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
ROW = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "BF16", "X"]) | JSON,
        "shape": st.lists(st.integers(-1, 2**64), max_size=10) | JSON,
        "data_offsets": st.lists(st.integers(-1, 2**64), max_size=3) | JSON,
    }
)


def test_safetensors_headers_that_are_json():
    @FEW
    @given(st.dictionaries(st.text(max_size=8), ROW | JSON, max_size=4) | JSON)
    def run(header: object) -> None:
        text = json.dumps(header).encode()
        survives(read_safetensors_bytes, struct.pack("<Q", len(text)) + text + bytes(16))

    run()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b'{"a":' * 50_000, "not usable JSON"),
        (b"[" * 50_000, "not usable JSON"),
        (b'{"a":{"dtype":"F32","shape":[' + b"9" * 5000, "not usable JSON"),
        (b'{"a":1,"a":2}', "names 'a' twice"),
        (b"[]", "expected an object"),
        (b"\xff", "not usable JSON"),
        (b'{"__metadata__":{"a":1}}', "does not map text to text"),
        (b'{"\\ud800":1}', "expected dtype, shape and data_offsets"),
    ],
)
def test_headers_that_json_alone_would_not_survive(text, message):
    data = struct.pack("<Q", len(text)) + text
    with pytest.raises(InputError, match=message) as caught:
        read_safetensors_bytes(data)
    str(caught.value).encode()


def test_whole_gguf_files_with_damaged_metadata(tmp_path: Path, make_config, make_tensors, lazy):
    """Past the parser: wrong types and values of the keys that become the config."""
    path = tmp_path / "model.gguf"
    config = make_config(num_hidden_layers=1)
    tensors = lazy(make_tensors(config))
    write_gguf(path, config=config, tensors=tensors, metadata={"tokenizer.ggml.tokens": ["a"]})
    good = path.read_bytes()
    values = [
        (4, struct.pack("<I", 0)),
        (4, struct.pack("<I", 2**32 - 1)),
        (5, struct.pack("<i", -1)),
        (6, struct.pack("<f", float("nan"))),
        (6, struct.pack("<f", float("inf"))),
        (8, gguf_string("x")),
        (9, struct.pack("<IQ", 4, 0)),
        (9, struct.pack("<IQ2I", 4, 2, 1, 2)),
        (7, b"\x01"),
    ]
    keys = [key for key in parse_gguf(good, len(good), path).metadata if "." in key]
    damaged = tmp_path / "damaged.gguf"
    for key in keys:
        for kind, packed in values:
            damaged.write_bytes(replace_value(good, key, kind, packed))
            try:
                open_checkpoint(damaged)
            except InputError as error:
                assert "damaged.gguf" in str(error)


def replace_value(data: bytes, key: str, kind: int, packed: bytes) -> bytes:
    """Swap one metadata value, keeping the data where the alignment wants it."""
    start = data.index(gguf_string(key)) + 8 + len(key)
    (old,) = struct.unpack_from("<I", data, start)
    if old == 8:
        (length,) = struct.unpack_from("<Q", data, start + 4)
        stop = start + 12 + length
    elif old == 9:
        stop = start + 4 + 12 + 9  # our one array: a string of one letter
    else:
        stop = start + 4 + {4: 4, 6: 4, 7: 1}[old]
    header_end = data.index(b"token_embd.weight")
    changed = data[:start] + struct.pack("<I", kind) + packed + data[stop:]
    assert header_end
    return changed + bytes(64)  # so that every tensor still lies inside the file
