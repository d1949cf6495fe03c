"""Every rule of the house over every file, and over a planted fault that it must see."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from house import ladder, rules
from house.source import Source, planted, python_sources

Rule = Callable[[Source], Iterator[str]]

SRC_RULES = (
    rules.line_violations,
    rules.function_violations,
    rules.kwargs_violations,
    rules.typed_violations,
    rules.documented_violations,
    rules.future_violations,
    rules.state_violations,
    rules.import_time_violations,
    rules.safety_violations,
    ladder.ladder_violations,
    ladder.outside_violations,
    ladder.model_violations,
)
BENCH_RULES = (rules.line_violations, rules.function_violations, rules.safety_violations)
TEST_RULES = (rules.line_violations,)


def check(rule: Rule, folder: str) -> None:
    sources = python_sources(folder)
    faults = [fault for source in sources for fault in rule(source)]
    assert not faults, f"{rule.__doc__}\n" + "\n".join(faults)


@pytest.mark.parametrize("rule", SRC_RULES, ids=lambda rule: rule.__name__)
def test_the_package_keeps_the_rule(rule: Rule) -> None:
    assert python_sources("src"), "no sources found: this test looks in the wrong place"
    check(rule, "src")


@pytest.mark.parametrize("rule", BENCH_RULES, ids=lambda rule: rule.__name__)
def test_the_benches_keep_the_rule(rule: Rule) -> None:
    check(rule, "bench")


@pytest.mark.parametrize("rule", TEST_RULES, ids=lambda rule: rule.__name__)
def test_the_tests_keep_the_rule(rule: Rule) -> None:
    assert python_sources("tests")
    check(rule, "tests")


def test_every_room_in_the_tree_stands_on_the_ladder() -> None:
    rooms = {ladder.room_of(source.module) for source in python_sources("src")} - {None}
    assert rooms <= set(ladder.RANKS), "see LADDER in tests/house/ladder.py"


MODEL = "src/puna/model/planted.py"
LONG = "def f() -> None:\n" + "    pass\n" * 60
FAULTS: list[tuple[Rule, str, str, str]] = [
    (rules.line_violations, "", "x = 1  # " + "y" * 100, "109 characters, budget 100"),
    (rules.line_violations, "", "\n" * 401, "401 lines, budget 400"),
    (rules.function_violations, "", LONG, "f has 61 lines, budget 60"),
    (rules.function_violations, "", "def f(a, b, c, d, /, e, f, *g, h, i): ...", "takes 9"),
    (rules.kwargs_violations, "", "def f(**kwargs: int) -> None: ...", "takes **kwargs"),
    (rules.kwargs_violations, "", "f = lambda **kw: 1", "takes **kw"),
    (rules.typed_violations, "", "def f(a) -> int: ...", "f: argument a has no type"),
    (rules.typed_violations, "", "def f(*, a=1) -> int: ...", "argument a has no type"),
    (rules.typed_violations, "", "def f(*a) -> int: ...", "argument a has no type"),
    (rules.typed_violations, "", "async def f(): ...", "f does not say what it returns"),
    (rules.typed_violations, "", "class A:\n def f(self): ...", "A.f does not say"),
    (rules.typed_violations, "", "if x:\n def f(): ...", "f does not say"),
    (rules.documented_violations, "", "x = 1", "the module has no docstring"),
    (rules.documented_violations, "", "'''M.'''\ndef f(): ...", "f has no docstring"),
    (rules.documented_violations, "", "'''M.'''\nclass A: ...", "class A has no docstring"),
    (rules.documented_violations, "", "'''M.'''\nclass A:\n 'A.'\n def f(self): ...", "A.f has"),
    (rules.future_violations, "", "'''M.'''\nimport os", "does not start with"),
    (rules.state_violations, "", "cache = {}", "module-level mutable state: cache"),
    (rules.state_violations, "", "cache: dict[str, int] = dict()", "mutable state: cache"),
    (rules.state_violations, "", "seen = set()", "mutable state: seen"),
    (rules.state_violations, "", "names = [i for i in x]", "mutable state: names"),
    (rules.state_violations, "", "d = collections.defaultdict(int)", "mutable state: d"),
    (rules.state_violations, "", "def f():\n global a\n a = 1", "global a"),
    (rules.state_violations, "", "A = {}\ndef f(): A['x'] = 1", "changes A"),
    (rules.state_violations, "", "A = []\ndef f(): A.append(1)", "changes A"),
    (rules.import_time_violations, "", "print('hello')", "work at import: print('hello')"),
    (rules.import_time_violations, "", "for i in x: ...", "work at import: for i in x"),
    (rules.safety_violations, "", "import pickle\npickle.load(f)", "uses pickle beyond"),
    (rules.safety_violations, "", "import pickle\nf(pickle)", "uses pickle beyond"),
    (rules.safety_violations, "", "import pickle as p", "pickle under another name"),
    (rules.safety_violations, "", "torch.jit.load(p)", "runs code"),
    (rules.safety_violations, "", "def f():\n from pickle import loads", "imports pickle.loads"),
    (rules.safety_violations, "", "import marshal", "imports marshal"),
    (rules.safety_violations, "", "eval('1')", "calls eval"),
    (rules.safety_violations, "", "exec(code)", "calls exec"),
    (rules.safety_violations, "", "torch.load(p)", "without weights_only=True"),
    (rules.safety_violations, "", "torch.load(p, weights_only=False)", "without weights_only"),
    (rules.safety_violations, "", "torch.load(p, weights_only=safe)", "without weights_only"),
    (rules.safety_violations, "", "yaml.load(t, Loader=yaml.Loader)", "use the safe loader"),
    (rules.safety_violations, "", "np.load(p, allow_pickle=True)", "with allow_pickle"),
    (rules.safety_violations, "", "run(c, shell=True)", "with shell"),
    (rules.safety_violations, "", "A.from_pretrained(p, trust_remote_code=True)", "remote"),
    (rules.safety_violations, "", "import torch.distributed.checkpoint as dcp", "pickles"),
    (rules.safety_violations, "", "from torch.distributed import checkpoint", "pickles"),
    (rules.safety_violations, "", "from torch.distributed.checkpoint import save", "pickles"),
    (ladder.ladder_violations, "", "import puna.generate", "store imports up: puna.generate"),
    (ladder.ladder_violations, "", "from puna.tokens import x", "store imports up: puna.tokens"),
    (ladder.ladder_violations, "", "from puna import model", "store imports up: puna.model"),
    (ladder.ladder_violations, "", "from puna import load", "store imports up: puna.load"),
    (ladder.ladder_violations, "", "from ..model import llama", "up: puna.model.llama"),
    (ladder.ladder_violations, "", "from .. import api", "up: puna.api"),
    (ladder.ladder_violations, "", "from puna.scale import x", "store imports sideways"),
    (ladder.ladder_violations, "", "if TYPE_CHECKING:\n import puna.cli", "up: puna.cli"),
    (ladder.ladder_violations, "", "def f():\n import puna.train", "up: puna.train"),
    (ladder.ladder_violations, "", "importlib.import_module('puna.api')", "up: puna.api"),
    (ladder.ladder_violations, "", "import puna.attic", "'attic' is no room"),
    (ladder.ladder_violations, "src/puna/attic/x.py", "x = 1", "'attic' stands on no rung"),
    (ladder.ladder_violations, "src/puna/errors.py", "import puna.artifact", "errors imports up"),
    (ladder.ladder_violations, "src/puna/__init__.py", "from puna import store", "may name api"),
    (ladder.outside_violations, "", "import torch.distributed as d", "only scale may name"),
    (ladder.outside_violations, "", "from torch import distributed", "only scale may name"),
    (ladder.outside_violations, "", "torch.distributed.barrier()", "only scale may name"),
    (ladder.outside_violations, "", "def f():\n from transformers import A", "only hf may name"),
    (ladder.outside_violations, "", "require('x')\nimport ray", "only scale may name ray"),
    (ladder.model_violations, MODEL, "import numpy", "model imports numpy"),
    (ladder.model_violations, MODEL, "from puna.artifact import x", "model imports puna.artifact"),
    (ladder.model_violations, MODEL, "def f():\n import safetensors", "model imports safetensors"),
]


@pytest.mark.parametrize(("rule", "path", "code", "expected"), FAULTS)
def test_a_planted_fault_is_seen(rule: Rule, path: str, code: str, expected: str) -> None:
    source = planted(code, path) if path else planted(code)
    faults = list(rule(source))
    assert any(expected in fault for fault in faults), f"not seen; the rule says {faults}"


SOUND = '''"""A module."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, overload

import torch

from puna import __version__
from puna.errors import InputError

from . import sibling

if TYPE_CHECKING:
    from puna.store.hf import reader

__all__ = ["f"]
TABLE = {"a": 1}
_NAMES = [1]
first = (1, 2)


@overload
def f(a: int) -> int: ...
def f(a: int, b: int, *, c: int = 1, d: int = 1) -> int:
    """Documented."""
    table = {}
    table["a"] = model.eval(), pickle.UnpicklingError
    return torch.load(a, weights_only=True)


def _private(a): ...


class A:
    """Documented."""

    def __init__(self, a: int):
        self.a = a

    def f(self, a: int, b: int, c: int, d: int, e: int, g: int, h: int, i: int) -> int:
        """Documented."""
        def inner(x): ...
'''


@pytest.mark.parametrize("rule", SRC_RULES, ids=lambda rule: rule.__name__)
def test_sound_code_passes(rule: Rule) -> None:
    assert list(rule(planted(SOUND))) == []


def test_the_model_may_import_torch_itself_and_errors() -> None:
    code = "import math\nimport torch.nn.functional as F\nfrom .rope import x\nimport puna.errors"
    source = planted(code, MODEL)
    assert list(ladder.model_violations(source)) == []
    assert list(ladder.ladder_violations(source)) == []
