"""Configuration: what is written is what is built, and every mistake is named where it stands."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from puna.config import from_dict, load_recipe, load_recipe_with_origins, to_dict
from puna.errors import InputError


@dataclass(frozen=True)
class Optimizer:
    lr: float = 1e-3  # per step
    betas: tuple[float, float] = (0.9, 0.95)
    kind: Literal["adamw", "sgd"] = "adamw"
    decay: float | None = None


@dataclass(frozen=True)
class Source:
    path: Path
    weight: float = 1.0


@dataclass(frozen=True)
class Train:
    max_tokens: int = 1000
    optimizer: Optimizer = field(default_factory=Optimizer)
    sources: tuple[Source, ...] = ()
    tags: list[str] = field(default_factory=list)
    mix: dict[str, float] = field(default_factory=dict)
    stages: dict[str, Optimizer] = field(default_factory=dict)
    tie: bool = False
    stop: int | str | None = None
    second: Optimizer | None = None

    def __post_init__(self) -> None:
        if self.max_tokens < 0:
            raise ValueError(f"max_tokens must not be negative, found {self.max_tokens}")


@dataclass(frozen=True)
class Recipe:
    train: Train = field(default_factory=Train)
    name: str = "a"


Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def _write(text: str) -> Path:
        path = tmp_path / "recipe.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return _write


def complaint(write: Write, text: str, *overrides: str) -> str:
    with pytest.raises(InputError) as caught:
        load_recipe(write(text), Recipe, overrides)
    return str(caught.value)


floats = st.floats(allow_nan=False)
optimizers = st.builds(
    Optimizer,
    lr=floats,
    betas=st.tuples(floats, floats),
    kind=st.sampled_from(["adamw", "sgd"]),
    decay=st.none() | floats,
)
paths = st.text("abcé狮/.", min_size=1).map(Path)
trains = st.builds(
    Train,
    max_tokens=st.integers(0, 2**62),
    optimizer=optimizers,
    sources=st.lists(st.builds(Source, path=paths, weight=floats), max_size=3).map(tuple),
    tags=st.lists(st.text(), max_size=3),
    mix=st.dictionaries(st.text(), floats, max_size=3),
    stages=st.dictionaries(st.text(), optimizers, max_size=2),
    tie=st.booleans(),
    stop=st.none() | st.integers(-(2**62), 2**62) | st.text(),
    second=st.none() | optimizers,
)


@given(st.builds(Recipe, train=trains, name=st.text()))
def test_from_dict_reads_what_to_dict_writes(recipe: Recipe) -> None:
    data = to_dict(recipe)
    assert from_dict(Recipe, data) == recipe
    assert from_dict(Recipe, json.loads(json.dumps(data))) == recipe


@given(st.builds(Recipe, train=trains, name=st.text()))
def test_a_recipe_written_by_pyyaml_reads_back(tmp_path_factory: Any, recipe: Recipe) -> None:
    path = tmp_path_factory.mktemp("yaml", numbered=True) / "recipe.yaml"
    path.write_text(yaml.safe_dump(to_dict(recipe), allow_unicode=False), encoding="utf-8")
    assert load_recipe(path, Recipe) == recipe


@given(st.text() | st.text("[]{}:&*a-? \n!,|>'\"#%"))
def test_no_text_does_more_than_an_input_error(tmp_path_factory: Any, text: str) -> None:
    path = tmp_path_factory.mktemp("fuzz", numbered=True) / "recipe.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    with contextlib.suppress(InputError):
        load_recipe(path, Recipe)


def test_every_kind_of_value(write: Write, tmp_path: Path) -> None:
    text = """
    name: no            # a word in YAML 1.2
    train:
      max_tokens: 1_000_000
      optimizer: {lr: 1e-4, betas: [1, .5], kind: sgd, decay: ~}
      sources:
        - {path: corpus/a.txt, weight: 2}
        - path: b.txt
      tags: [2026-11-21, "1"]
      mix: {wiki: 5e-1, code: .inf}
      stages: {warm: {lr: 3}}
      tie: true
      stop: 12
      second: {decay: -1.5}
    """
    assert load_recipe(write(text), Recipe) == Recipe(
        name="no",
        train=Train(
            max_tokens=1_000_000,
            optimizer=Optimizer(lr=1e-4, betas=(1.0, 0.5), kind="sgd"),
            sources=(Source(Path("corpus/a.txt"), 2.0), Source(Path("b.txt"))),
            tags=["2026-11-21", "1"],
            mix={"wiki": 0.5, "code": math.inf},
            stages={"warm": Optimizer(lr=3.0)},
            tie=True,
            stop=12,
            second=Optimizer(decay=-1.5),
        ),
    )


def test_an_empty_file_keeps_every_default(write: Write) -> None:
    assert load_recipe(write("# nothing\n"), Recipe) == Recipe()


def test_overrides_apply_in_order(write: Write) -> None:
    path = write("train: {sources: [{path: a}, {path: b}], optimizer: {lr: 1}}")
    recipe = load_recipe(
        path,
        Recipe,
        [
            "train.optimizer.lr=2",
            "train.optimizer.lr=1e-4",
            "train.sources.1.weight=3",
            "train.optimizer.betas=[0, 1]",
            "train.second.kind=sgd",
            "train.mix={en: 1}",
            "train.stop=null",
            "name=x=y",
        ],
    )
    assert recipe.train.optimizer == Optimizer(lr=1e-4, betas=(0.0, 1.0))
    assert recipe.train.sources == (Source(Path("a")), Source(Path("b"), 3.0))
    assert recipe.train.second == Optimizer(kind="sgd")
    assert recipe.train.mix == {"en": 1.0}
    assert recipe.name == "x=y"


def test_an_unknown_key_names_file_line_and_nearest(write: Write) -> None:
    message = complaint(write, "name: b\ntrain:\n  max_token: 3\n")
    assert "recipe.yaml:3: unknown key 'train.max_token'" in message
    assert "did you mean 'train.max_tokens'?" in message


def test_an_unknown_key_far_from_all_lists_the_known(write: Write) -> None:
    assert "known keys here: train, name" in complaint(write, "zzz: 3\n")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("train: {max_tokens: ten}", "train.max_tokens: expected int, found str 'ten'"),
        ("train: {max_tokens: 1.5}", "train.max_tokens: expected int, found float 1.5"),
        ("train: {max_tokens: true}", "train.max_tokens: expected int, found bool True"),
        ("train: {tie: no}", "train.tie: expected bool, found str 'no'"),
        ("train: {tie: 1}", "train.tie: expected bool, found int 1"),
        ("train: {tags: one}", "train.tags: expected list[str], found str 'one'"),
        ("train: {tags: [a, 2]}", "train.tags.1: expected str, found int 2"),
        ("train: {mix: [1]}", "train.mix: expected dict[str, float], found list [1]"),
        ("train: {mix: {a: b}}", "train.mix.a: expected float, found str 'b'"),
        ("train: {stop: [1]}", "train.stop: expected int or str or null, found list [1]"),
        ("train: 3", "train: expected mapping (max_tokens, optimizer,"),
        ("train:", "train: expected mapping (max_tokens, optimizer,"),
        ("- 1", "expected mapping (train, name), found list [1]"),
        ("train: {optimizer: {betas: [1]}}", "train.optimizer.betas: expected 2 items, found 1"),
        ("train: {sources: [{weight: 1}]}", "missing key 'train.sources.0.path', a Path"),
        ("train: {second: {lr: x}}", "train.second.lr: expected float, found str 'x'"),
        ("train: {max_tokens: -1}", "train: max_tokens must not be negative, found -1"),
        ("name: 1e-4", "fix: put quotes around it: '0.0001'"),
        ('train: {optimizer: {lr: "1"}}', "train.optimizer.lr: expected float, found str '1'"),
    ],
)
def test_a_wrong_value_is_named(write: Write, text: str, expected: str) -> None:
    message = complaint(write, text)
    assert expected in message
    assert message.startswith(str(write(text)) + ":1: ")


def test_a_wrong_choice_names_the_nearest(write: Write) -> None:
    message = complaint(write, "train: {optimizer: {kind: adam}}")
    assert "expected one of 'adamw', 'sgd', found 'adam'" in message
    assert "did you mean 'adamw'?" in message


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: 1\nname: x\nname: y", ":3: key 'name' is given twice, first at"),
        ("name: [", ":1: is not YAML"),
        ("name: \x00", "is not YAML"),
        ("name: !!python/name:os.system x", "could not determine a constructor"),
        ("train: !!python/object:os.x {}", "is not allowed"),
        ("name: &a [*a]", "nests deeper than 64 levels"),
        ("name: !!bool maybe", "name: 'maybe'"),
        ("[" * 5000, "nested too deeply"),
        ("? [1]\n: 2", "a key must be a word"),
        ("<<: {name: x}", "unknown key '<<'"),
        ("name: " + "9" * 5000, "4300 digits"),
        ("a: 1\n---\nb: 2", "is not YAML: but found another document"),
    ],
)
def test_bad_yaml_is_refused(write: Write, text: str, expected: str) -> None:
    assert expected in complaint(write, text)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read: No such file"):
        load_recipe(tmp_path / "none.yaml", Recipe)
    (tmp_path / "latin.yaml").write_bytes(b"name: \xe9")
    with pytest.raises(InputError, match="is not UTF-8 at byte 6"):
        load_recipe(tmp_path / "latin.yaml", Recipe)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("train.lr", "override 'train.lr': is not of the form dotted.key=value"),
        ("=3", "is not of the form"),
        ("train..lr=3", "is not of the form"),
        ("train.optimizr.lr=3", "override 'train.optimizr.lr=3': unknown key 'train.optimizr'"),
        ("train.max_tokens=x", "override 'train.max_tokens=x': train.max_tokens: expected int"),
        ("train.tags.7=x", "train.tags has items 0 to 0, not 7"),
        ("name.x=1", "name is 'n': no key 'x' can be set"),
        ("name=[", "override 'name=[':1: is not YAML"),
    ],
)
def test_a_bad_override_is_named(write: Write, override: str, expected: str) -> None:
    assert expected in complaint(write, "name: n\ntrain: {tags: [a]}", override)


def test_from_dict_names_its_origin() -> None:
    with pytest.raises(InputError, match=r"config\.json: unknown key 'nme'"):
        from_dict(Recipe, {"nme": "x"}, where="config.json")


def test_to_dict_takes_instances_only() -> None:
    with pytest.raises(TypeError, match="expected a dataclass instance, found dict"):
        to_dict({})
    assert to_dict(replace(Recipe(), name="z"))["name"] == "z"


@dataclass(frozen=True)
class Cat:
    kind: Literal["cat"] = "cat"
    lives: int = 9


@dataclass(frozen=True)
class Dog:
    kind: Literal["dog"] = "dog"
    tricks: int = 0


@dataclass(frozen=True)
class Owner:
    pet: Cat | Dog | None = None
    name: str = "nobody"


def test_a_name_chooses_among_several_dataclasses(tmp_path: Path) -> None:
    assert from_dict(Owner, {"pet": {"kind": "dog", "tricks": 2}}).pet == Dog(tricks=2)
    assert from_dict(Owner, {}).pet is None
    assert from_dict(Owner, to_dict(Owner(Cat(lives=3)))) == Owner(Cat(lives=3))
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("pet:\n  kind: dog\n  trick: 2\n")
    with pytest.raises(InputError, match=r"recipe.yaml:3: unknown key 'pet.trick'") as caught:
        load_recipe(recipe, Owner)
    assert "did you mean 'pet.tricks'" in str(caught.value)
    with pytest.raises(InputError, match="expected one of 'cat', 'dog', found 'dgo'"):
        from_dict(Owner, {"pet": {"kind": "dgo"}})
    with pytest.raises(InputError, match=r"missing key 'pet\.kind'"):
        from_dict(Owner, {"pet": {"tricks": 1}})


def test_every_value_knows_where_it_comes_from(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("pet:\n  kind: dog\n")
    config, origins = load_recipe_with_origins(recipe, Owner, ["pet.tricks=4"])
    assert config == Owner(Dog(tricks=4))
    assert origins == {
        "pet.kind": f"{recipe}:2",
        "pet.tricks": "override 'pet.tricks=4'",
        "name": "default",
    }
