"""The minimal install suffices to import every module, and `puna --help` is quick to come."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import subprocess
import sys
import tomllib
from collections.abc import Iterable

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from house.source import REPOSITORY, python_sources

# Imports modules in a process that refuses the packages listed on its command line.
SCRIPT = """
import importlib, json, sys, traceback

refused, modules = json.loads(sys.argv[1])

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in refused:
            raise ModuleNotFoundError(f"{name} is not in the minimal install", name=name)

sys.meta_path.insert(0, Refuse())
faults = {}
for module in modules:
    try:
        importlib.import_module(module)
    except BaseException as error:
        faults[module] = traceback.format_exc(limit=-3)
print(json.dumps(faults))
"""

# What stands on Arrow tables alone, a package of 150 MB that generating and training do without:
# it may say which extra brings it instead of importing.
ON_ARROW = ("puna.corpus", "puna.flows.curat", "puna.cli.curate")

HEAVY = ("torch", "numpy", "transformers", "tokenizers", "safetensors", "gguf", "jinja2")


def run(*arguments: str) -> str:
    command = [sys.executable, "-c", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def minimal_packages() -> set[str]:
    """Distributions that `pip install puna` brings, without any extra."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"].values()
    optional = {Requirement(line).name for lines in extras for line in lines}
    todo, seen = [Requirement(line) for line in project["dependencies"]], set()
    while todo:
        requirement = todo.pop()
        name = canonicalize_name(requirement.name)
        if name not in seen:
            seen.add(name)
            lines = importlib.metadata.requires(requirement.name) or []
            inner = [Requirement(line) for line in lines]
            todo += [r for r in inner if r.marker is None or r.marker.evaluate({"extra": ""})]
    # What an extra of ours names is optional, even where a requirement happens to bring it.
    return seen - {canonicalize_name(name) for name in optional}


def optional_modules() -> list[str]:
    """Top-level modules in this environment that the minimal install does not have."""
    minimal = minimal_packages()
    return sorted(
        module
        for module, owners in importlib.metadata.packages_distributions().items()
        if not {canonicalize_name(owner) for owner in owners} & (minimal | {"puna"})
    )


def faults_of(modules: Iterable[str], refused: Iterable[str]) -> dict[str, str]:
    return json.loads(run(SCRIPT, json.dumps([list(refused), list(modules)])).splitlines()[-1])


def test_every_module_imports_with_the_minimal_install() -> None:
    sources = python_sources("src")
    modules = [s.module for s in sources if not s.path.endswith(("_kernels.py", "__main__.py"))]
    refused = optional_modules()
    assert {"transformers", "huggingface_hub", "pytest", "hypothesis"} <= set(refused)
    assert not {"torch", "numpy", "safetensors", "tokenizers", "gguf", "yaml"} & set(refused)
    faults = faults_of(modules, refused)
    refusals = {m: fault for m, fault in faults.items() if m.startswith(ON_ARROW)}
    faults = {m: fault for m, fault in faults.items() if m not in refusals}
    assert not faults, "\n".join(f"{module}:\n{fault}" for module, fault in faults.items())
    for module, fault in refusals.items():
        assert "pyarrow" in fault, f"{module}:\n{fault}"
        if not module.startswith("puna.flows."):  # which commands import behind puna.corpus
            assert "pip install 'puna[corpus]'" in fault, f"{module}:\n{fault}"


def test_an_import_of_an_optional_package_is_seen() -> None:
    faults = faults_of(["transformers", "json"], optional_modules())
    assert "transformers is not in the minimal install" in faults["transformers"]
    assert "json" not in faults


def heavy_after(code: str) -> list[str]:
    """Heavy packages that are imported once `code` has run."""
    last = f"import json, sys; print(); print(json.dumps([m for m in {HEAVY} if m in sys.modules]))"
    return json.loads(run(f"{code}\n{last}").splitlines()[-1])


def test_import_puna_imports_nothing_heavy() -> None:
    assert heavy_after("import puna") == []


def test_heavy_imports_are_seen() -> None:
    assert heavy_after("import numpy") == ["numpy"]


@pytest.mark.parametrize("words", [["--help"], ["--version"], []], ids=" ".join)
def test_help_imports_nothing_heavy(words: list[str]) -> None:
    if importlib.util.find_spec("puna.cli") is None:
        pytest.fail("src/puna/cli.py is not there yet")
    code = (
        f"import sys\nsys.argv = ['puna', *{words}]\nfrom puna.cli import main\n"
        "try:\n    main()\nexcept SystemExit as stop:\n    assert not stop.code, stop.code"
    )
    assert heavy_after(code) == []


def test_using_a_model_imports_no_compiler() -> None:
    """torch's symbolic algebra costs half a second and 75 MB; a model on one CPU needs none."""
    code = (
        "import sys, torch, puna.api\nfrom puna.model import count, preset\n"
        "count(preset('tiny'))\nassert 'torch' in sys.modules\n"
        "print('sympy' in sys.modules, 'torch.distributed.fsdp' in sys.modules)"
    )
    assert run(code).split() == ["False", "False"]
