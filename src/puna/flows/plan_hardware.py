"""What devices can do, hold, draw and cost; each figure with where it comes from.

Rates are those of dense products without sparsity. Prices are assumptions: what one provider
listed in one month. All can be replaced on the command line.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from puna.errors import InputError
from puna.meter import CORE_WATTS, MEMORY_WATTS_PER_GB

GB = 10**9
# The LLaMA paper's four runs come to 45 to 52 % of 312 TFLOP/s (docs/plan.md).
GPU_UTILISATION = 0.45
GPU_UTILISATION_SOURCE = "the LLaMA paper's runs on A100s (arXiv 2302.13971, table 15)"
CPU_UTILISATION = 0.6  # of the rate of large products; LoRA steps of bench/RESULTS.md
CPU_UTILISATION_SOURCE = "tuning steps of bench/RESULTS.md against the rate of large products"
_PRICES = "RunPod's list of March 2026 (deploybase.ai/articles/runpod-gpu-pricing)"


@dataclass(frozen=True)
class Hardware:
    """One device."""

    name: str
    float32_flops: float
    """Of products of float32 matrices, per second."""
    bfloat16_flops: float | None
    """The same in bfloat16 with float32 sums; None: it has none, or none that is faster."""
    memory_bytes: int
    """For a GPU counted as 1e9 to the GB: what it has beyond that, 7 %, is left to the driver, the
    libraries and the allocator."""
    watts: float
    """At work: of a card its thermal design power."""
    source: str
    """Of the figures above."""
    dollars_per_hour: float | None = None
    """An assumption; None: not known."""
    price_source: str = ""
    utilisation: float = GPU_UTILISATION
    """Share of the rate that training reaches, recomputation counted as work."""
    utilisation_source: str = GPU_UTILISATION_SOURCE
    cuda: bool = True
    """Whether memory is that of a GPU."""

    def __post_init__(self) -> None:
        for key in ("float32_flops", "memory_bytes", "watts"):
            if not 0 < getattr(self, key) < math.inf:
                raise InputError(f"{key} must be positive, not {getattr(self, key)}")
        if self.bfloat16_flops is not None and not 0 < self.bfloat16_flops < math.inf:
            raise InputError(f"bfloat16_flops must be positive, not {self.bfloat16_flops}")
        if not 0 < self.utilisation <= 1:
            raise InputError(
                f"utilisation is a share above 0 and up to 1, not {self.utilisation:g}"
            )
        if self.dollars_per_hour is not None and not 0 <= self.dollars_per_hour < math.inf:
            raise InputError(f"price must be at least 0, not {self.dollars_per_hour}")

    @property
    def dtype(self) -> str:
        """What it is trained in."""
        return "float32" if self.bfloat16_flops is None else "bfloat16"

    def flops(self, dtype: str) -> float:
        """The rate of products in a dtype."""
        if dtype == "bfloat16" and self.bfloat16_flops is not None:
            return self.bfloat16_flops
        return self.float32_flops


def _gpu(
    name: str,
    teraflops: tuple[float, float | None],
    gigabytes: int,
    watts: float,
    source: str,
    price: float | None = None,
) -> Hardware:
    wide, narrow = teraflops
    return Hardware(
        name,
        wide * 1e12,
        None if narrow is None else narrow * 1e12,
        gigabytes * GB,
        watts,
        source,
        price,
        _PRICES if price is not None else "",
    )


_A100 = "NVIDIA A100 datasheet (nvidia.com/en-us/data-center/a100)"
_H100 = "NVIDIA H100 datasheet, half of the rates with sparsity (nvidia.com/en-us/data-center/h100)"
_H200 = "NVIDIA H200 datasheet, half of the rates with sparsity (nvidia.com/en-us/data-center/h200)"
_B200 = (
    "NVIDIA Blackwell architecture brief, HGX B200, dense; "
    "memory: DGX B200 user guide, 1,440 GB of eight"
)
_L40S = "NVIDIA L40S datasheet (resources.nvidia.com/en-us-l40s/l40s-datasheet-28413)"
_L4 = "NVIDIA L4 datasheet, half of the rates with sparsity (nvidia.com/en-us/data-center/l4)"
_T4 = "NVIDIA T4 datasheet (nvidia.com/en-us/data-center/tesla-t4); no bfloat16"
_ADA = "NVIDIA Ada GPU architecture whitepaper, appendix: RTX 4090, float32 sums, dense"
_GA102 = "NVIDIA Ampere GA102 whitepaper, appendix: RTX 3090, float32 sums, dense"
_MI300X = "AMD Instinct MI300X data sheet (amd.com/en/products/accelerators/instinct/mi300)"

_CPU = Hardware(
    name="two-cores",
    float32_flops=200e9,
    bfloat16_flops=None,
    memory_bytes=8 * GB,
    watts=2 * CORE_WATTS + 8 * MEMORY_WATTS_PER_GB,
    source="products of 752 rows measured on two AVX-512 cores (docs/LOG.md, 2026-11-22); memory "
    "is an assumption; watts: 12 per core (Lannelongue et al. 2021), 0.392 per GB of memory "
    "(Cloud Carbon Footprint)",
    utilisation=CPU_UTILISATION,
    utilisation_source=CPU_UTILISATION_SOURCE,
    cuda=False,
)

HARDWARE: Mapping[str, Hardware] = MappingProxyType(
    {
        row.name: row
        for row in (
            _CPU,
            _gpu("t4", (8.1, None), 16, 70, _T4),
            _gpu("l4", (30.3, 121), 24, 72, _L4, 0.44),
            _gpu("rtx-3090", (35.6, 71), 24, 350, _GA102, 0.22),
            _gpu("rtx-4090", (82.6, 165.2), 24, 450, _ADA, 0.34),
            _gpu("l40s", (91.6, 362.05), 48, 350, _L40S, 0.79),
            _gpu("a100-40gb", (19.5, 312), 40, 400, _A100),
            _gpu("a100-80gb", (19.5, 312), 80, 400, _A100, 1.39),
            _gpu("h100-sxm", (66.9, 989), 80, 700, _H100, 2.69),
            _gpu("h100-pcie", (51.2, 756), 80, 350, _H100, 1.99),
            _gpu("h200", (66.9, 989), 141, 700, _H200, 3.59),
            _gpu("b200", (80, 2250), 180, 1000, _B200, 5.98),
            _gpu("mi300x", (163.4, 1307.4), 192, 750, _MI300X),
        )
    }
)

_UNITS: Mapping[str, float] = MappingProxyType(
    {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12, "p": 1e15}
)
_GIVEN: Mapping[str, str] = MappingProxyType(
    {
        "flops": "",
        "float32": "float32_flops",
        "bfloat16": "bfloat16_flops",
        "memory": "memory_bytes",
        "watts": "watts",
        "price": "dollars_per_hour",
        "utilisation": "utilisation",
    }
)


def find_hardware(description: str) -> Hardware:
    """A device of the table, some of its figures replaced, or one described by figures alone.

    Args:
        description: `a100-80gb`, or `a100-80gb,price=1.10`, or
            `flops=312T,memory=80G,watts=400,price=2`: `flops` is the rate in either dtype.

    Raises:
        InputError: The name is not known, or a figure is missing or not a number.
    """
    first, *rest = [part.strip() for part in description.split(",")]
    known = first.lower() in HARDWARE
    given = _given(rest if known else [first, *rest], description) if known or "=" in first else {}
    if known:
        return _changed(HARDWARE[first.lower()], given)
    if "=" not in first:
        raise _unknown(first)
    needed = [key for key in ("flops", "memory", "watts") if key not in given]
    if needed == ["flops"] and "float32" in given:
        needed = []
    if needed:
        raise InputError(
            f"the description of the hardware lacks {', '.join(needed)}",
            where=description,
            fix="such as flops=312T,memory=80G,watts=400; or begin with a name: "
            f"{', '.join(HARDWARE)}",
        )
    rate = given.get("float32", given.get("flops", 1.0))
    plain = Hardware("as described", rate, None, 1, 1, source="as described")
    return _changed(plain, given)


def _given(parts: list[str], description: str) -> dict[str, float]:
    found: dict[str, float] = {}
    for part in parts:
        key, equals, text = part.partition("=")
        if not equals or key not in _GIVEN:
            near = difflib.get_close_matches(key, _GIVEN, n=1)
            hint = f"did you mean {near[0]}=? " if near else ""
            raise InputError(
                f"{part!r} is no figure of a device",
                where=description,
                fix=f"{hint}known: {', '.join(f'{name}=' for name in _GIVEN)}",
            )
        found[key] = parse_number(text, key)
    return found


def _changed(row: Hardware, given: Mapping[str, float]) -> Hardware:
    values: dict[str, float | int | str] = {}
    if "flops" in given:
        values |= {"float32_flops": given["flops"], "bfloat16_flops": given["flops"]}
    for key, name in _GIVEN.items():
        if name and key in given:
            values[name] = int(given[key]) if name == "memory_bytes" else given[key]
    if "price" in given:
        values["price_source"] = "as given"
    if "utilisation" in given:
        values["utilisation_source"] = "as given"
    if values and row.name in HARDWARE:
        values["name"] = f"{row.name}, changed"
    return dataclasses.replace(row, **values)  # type: ignore[arg-type]


def parse_number(text: str, what: str) -> float:
    """A number with a unit: 300M, 1.4T, 80G, 80GB, 2e12.

    Args:
        text: The number; k, M, G (or B), T and P stand for powers of a thousand.
        what: What it is of, for the error.

    Raises:
        InputError: It is none, or not positive.
    """
    plain = text.strip().replace("_", "").replace(",", "")
    match = re.fullmatch(r"([0-9.]+(?:e[+-]?[0-9]+)?)\s*([kmgbtp]?)(b?)", plain, re.IGNORECASE)
    unit = "g" if match and match[2].lower() == "b" else match[2].lower() if match else ""
    try:
        value = float(match[1]) * _UNITS[unit] if match else math.nan
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise InputError(f"{what}: {text!r} is no number", fix="such as 300M, 1.4T, 80GB or 2e12")
    return value


def _unknown(name: str) -> InputError:
    near = difflib.get_close_matches(name.lower(), HARDWARE, n=2, cutoff=0.4)
    hint = f"nearest: {', '.join(near)}; " if near else ""
    return InputError(
        f"there is no hardware {name!r}",
        fix=f"{hint}known: here, {', '.join(HARDWARE)}; or describe it: "
        "flops=312T,memory=80G,watts=400",
    )
