"""Devices and threads that this machine has not are refused by name; what a tuning is."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from flows.tuned import make_tuning, opened
from flows.tuning_setup import METHODS
from puna.artifact import digest_file
from puna.errors import InputError
from puna.flows.opening import THREADS_PER_CORE, resolve_device, set_threads
from puna.flows.subject import find_subject


@pytest.mark.parametrize(
    "name", ["meta", "xpu", "hpu", "cpu:7", "mkldnn", "vulkan", "", "cuda:", "cuda:-1", "cuda:x"]
)
def test_an_unknown_device(name: str) -> None:
    with pytest.raises(InputError, match=r"is not known\n  fix: auto, cpu, cuda, cuda:N, mps"):
        resolve_device(name)


def test_a_device_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve_device("cpu") == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert resolve_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(InputError, match=r"'cuda:2': this machine has 2 CUDA devices\n.* cuda:1"):
        resolve_device("cuda:2")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match="has no CUDA device"):
        resolve_device("cuda")


def test_threads_have_bounds() -> None:
    most = THREADS_PER_CORE * (os.cpu_count() or 1)
    with pytest.raises(InputError, match=f"threads must be at most {most} on this machine"):
        set_threads(most + 1)
    with pytest.raises(InputError, match="threads must be at least 1, not 0"):
        set_threads(0)


def test_the_settings_of_a_tuning_are_part_of_what_it_is(tmp_path: Path, tiny_base: Path) -> None:
    tunings = [
        make_tuning(tmp_path / str(alpha), tiny_base, {**METHODS["lora"], "alpha": alpha})
        for alpha in (8, 32)
    ]
    assert len({digest_file(path / "adapter_model.safetensors") for path in tunings}) == 1
    assert len({opened(path).identity for path in tunings}) == 2


def test_a_tuning_that_names_no_base(tmp_path: Path, tiny_base: Path) -> None:
    tuning = make_tuning(tmp_path / "tuning", tiny_base, METHODS["lora"])
    for name in ("tuning.json", "asking.json"):
        (tuning / name).unlink()
    config = json.loads((tuning / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = None
    (tuning / "adapter_config.json").write_text(json.dumps(config))
    subject = find_subject(str(tuning))
    assert subject.base is None
    uses: tuple[Callable[[], object], ...] = (
        lambda: opened(tuning),
        subject.asking,
        subject.tokenizer,
    )
    for use in uses:
        with pytest.raises(InputError, match=r"does not name its base\n  fix: .*adapter_config"):
            use()
