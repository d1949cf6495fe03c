"""The doctor tells what is there, what is missing, and the command that adds it."""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch

from puna.flows import doctor
from puna.flows.doctor import Finding, Report, collect, render

REQUIRES = [
    "numpy>=1.26,<3",
    "huggingface_hub<3,>=0.30; extra == 'hub'",
    'transformers<6,>=4.56; extra == "hf"',
    "puna[hub,hf]; extra == 'all'",
    "nowhere-to-be-found>=1; extra == 'serve'",
    "puna[serve]; extra == 'bench'",
]


def named(findings: Any, name: str) -> Finding:
    return next(finding for finding in findings if finding.name == name)


@pytest.fixture(scope="module")
def report() -> Report:
    return collect()


def test_the_report_covers_every_section(report: Report) -> None:
    sections = list(dict.fromkeys(finding.section for finding in report.findings))
    expected = ["machine", "versions", "cpu", "memory", "gpu", "extras", "models"]
    assert sections == expected


def test_versions_are_those_of_the_installation(report: Report) -> None:
    for package in ("puna", "torch", "tokenizers", "numpy"):
        found = named((f for f in report.findings if f.section == "versions"), package)
        assert found == Finding("versions", package, importlib.metadata.version(package))
    python = ".".join(map(str, sys.version_info[:3]))
    assert named(report.findings, "python").value == python


def test_threads_and_kernels_are_those_of_torch() -> None:
    report = collect()
    assert named(report.findings, "threads").value == f"torch uses {torch.get_num_threads()}"
    kernels = named(report.findings, "torch kernels").value
    assert kernels == torch.backends.cpu.get_cpu_capability()


def test_memory_agrees_with_the_system(report: Report) -> None:
    pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    total = float(named(report.findings, "total").value.removesuffix(" GiB"))
    assert total == pytest.approx(pages * size / 2**30, abs=0.1)
    available = float(named(report.findings, "available").value.removesuffix(" GiB"))
    assert 0 < available <= total


def test_what_is_missing_has_a_fix(report: Report) -> None:
    assert all(finding.fix for finding in report.findings if finding.status == "missing")


def test_the_report_is_json(report: Report) -> None:
    data = json.loads(json.dumps(report.to_dict()))
    assert data["findings"][0]["section"] == "machine"
    assert set(data["findings"][0]) == {"section", "name", "value", "status", "fix"}
    assert len(data["findings"]) == len(report.findings)


def test_rendered_text_shows_value_status_and_command() -> None:
    findings = (
        Finding("extras", "hub", "without [a]", "missing", "pip install 'puna[hub]'"),
        Finding("extras", "hf", "complete"),
    )
    assert render(Report(findings)).splitlines() == [
        "extras  hub  without [a] (missing)  pip install 'puna[hub]'",
        "        hf   complete",
    ]


def test_narrow_terminals_lose_nothing() -> None:
    finding = Finding("models", "cache", "words " * 20 + "end", "note", "do this")
    text = " ".join(render(Report((finding,)), width=50).split())
    assert text.count("words") == 20
    assert "end (note)" in text or "end" in text


def test_extras_come_from_the_installed_metadata(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: REQUIRES)
    present = {"huggingface_hub": "1.0"}
    monkeypatch.setattr(doctor, "_version", present.get)
    fix = "pip install 'puna[{}]'"
    assert list(doctor._extras()) == [
        Finding("extras", "all", "without transformers", "missing", fix.format("all")),
        Finding("extras", "bench", "without nowhere-to-be-found", "note", fix.format("bench")),
        Finding("extras", "hf", "without transformers", "missing", fix.format("hf")),
        Finding("extras", "hub", "complete (1 packages)"),
        Finding("extras", "serve", "without nowhere-to-be-found", "missing", fix.format("serve")),
    ]


def test_an_absent_core_package_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: REQUIRES)
    monkeypatch.setattr(doctor, "_version", lambda name: None)
    found = named(doctor._versions(), "numpy")
    assert found == Finding("versions", "numpy", "not installed", "missing", "pip install numpy")


def test_a_source_tree_without_metadata_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(name: str) -> list[str]:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "requires", none)
    assert named(doctor._versions(), "puna").value == "not installed as a package"
    assert list(doctor._extras()) == []


def test_windows_is_told_of_wsl(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    found = named(doctor._platform(), "platform")
    assert found.status == "missing"
    assert found.fix is not None
    assert "WSL" in found.fix


def test_a_broken_torch_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    found = named(doctor._cpu(), "torch")
    assert found.status == "missing"
    assert found.value.startswith("does not import: ")
    assert list(doctor._gpus()) == []


def test_gpus_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    card = types.SimpleNamespace(name="Some GPU", total_memory=8 * 2**30)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: card)
    found = [finding for finding in doctor._gpus() if finding.name.startswith("cuda")]
    assert [finding.name for finding in found] == ["cuda:0", "cuda:1"]
    assert found[0].value == "Some GPU, 8.0 GiB"


def test_llama_base_absent_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: None)
    found = named(doctor._models(), "llama-base")
    assert (found.status, found.fix) == ("missing", "puna models --get llama-base")


def test_llama_base_present_names_the_file(llama_base_gguf: Path) -> None:
    assert llama_base_gguf.name in named(doctor._models(), "llama-base").value


@pytest.mark.parametrize(("value", "status"), [("1", "note"), ("0", "ok"), ("true", "note")])
def test_offline_mode_is_told(monkeypatch: pytest.MonkeyPatch, value: str, status: str) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", value)
    found = named(doctor._models(), "hub")
    assert (found.value, found.status) == (f"HF_HUB_OFFLINE={value}", status)


def test_a_full_disk_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "not" / "yet"))
    usage = types.SimpleNamespace(free=2**30)
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: usage)
    found = named(doctor._models(), "cache")
    assert found.value == f"1.0 GiB free at {tmp_path / 'not' / 'yet'}"
    assert found.status == "note"


VM_STAT = """Mach Virtual Memory Statistics: (page size of 16384 bytes)
Pages free:                               1000.
Pages active:                             9000.
Pages inactive:                           2000.
Pages speculative:                          10.
"""


def test_macos_is_read_through_sysctl(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {"vm_stat": VM_STAT, "hw.memsize": "17179869184\n"}
    answers["machdep.cpu.brand_string"] = "Apple M1\n"
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(doctor, "_output", lambda *command: answers.get(command[-1], ""))
    assert doctor._memory_bytes() == (2**34, 3010 * 16384)
    assert doctor._cpu_model() == "Apple M1"
    assert doctor._parse_vm_stat("nothing") is None


def test_features_without_torchs_own_detection(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "model name : X\nflags : fpu avx2 avx512f amx_tile\n"
    monkeypatch.setattr(doctor, "_proc", lambda name: text)
    monkeypatch.setattr(sys, "platform", "linux")
    assert doctor._proc_flags() == ["avx2", "avx512_f", "amx_tile"]
    assert doctor._cpu_model() == "X"


def test_importing_the_doctor_imports_no_torch() -> None:
    code = "import sys, puna.flows.doctor; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
