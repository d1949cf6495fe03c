"""Summaries of runs that never were: a realistic one, and the ways in which parts are absent."""

from __future__ import annotations

import math
import random
from typing import Any

PAIRS = (
    ("Save all files", "Enregistrer tous les fichiers", "Enregistrer tous les fichiers"),
    ("Open in New Browser Tab", "Ouvrir dans un nouvel onglet", "Ouvrir dans un nouvel onglet"),
    ("Restart Kernel and Run All Cells…", "Redémarrer le noyau et exécuter toutes les cellules…",
     "Redémarrer le noyau et exécuter toutes les cellules..."),
    ("Show <b>line</b> & column numbers", "Afficher les numéros de <b>ligne</b> & de colonne",
     "Afficher les numéros de <b>ligne</b>"),
    ("The kernel for %1 appears to have died. It will restart automatically.",
     "Le noyau de %1 semble être mort. Il va redémarrer automatiquement.",
     "Le noyau %1 est mort. Il redémarrera automatiquement."),
    ("Find and replace", "البحث والاستبدال", "البحث والاستبدال"),
    ("Merge cell below", "将下方单元格合并", "合并下面的单元格"),
)  # fmt: skip


def metric(name: str, value: float, half: float, unit: str, **more: Any) -> dict[str, Any]:
    """A metric's plain data with a symmetric interval."""
    told = {"name": name, "value": value, "unit": unit, "low": value - half, "high": value + half}
    return told | {"n": 200, "signature": None, "higher_is_better": True} | more


def bleu(value: float, half: float = 1.5, **more: Any) -> dict[str, Any]:
    """BLEU with sacrebleu's signature."""
    signed = "nrefs:1|bs:1000|seed:12345|case:mixed|eff:no|tok:13a|smooth:exp|version:2.5.1"
    return metric("bleu", value, half, "points", signature=signed) | more


def change(difference: float, half: float, p_value: float = 0.0) -> dict[str, Any]:
    """A paired comparison's plain data."""
    bounds = {"low": difference - half, "high": difference + half}
    return {"difference": difference, "p_value": p_value, "n": 200} | bounds


def history(steps: int = 480) -> list[dict[str, Any]]:
    """Steps of a run, one of them skipped because of its loss."""
    noise = random.Random(4)
    told = []
    for step in range(1, steps + 1):
        loss = 1.35 + 2.4 * math.exp(-step / 70) + noise.gauss(0, 0.16)
        entry = {"step": step, "epoch": step / 160, "loss": loss, "grad_norm": 0.6 + noise.random()}
        entry["learning_rate"] = 2e-4 * min(step / 30, 0.5 * (1 + math.cos(math.pi * step / steps)))
        told.append(entry | {"tokens_per_second": noise.gauss(2900, 120), "skipped": step == 200})
    told[199]["loss"] = float("nan")
    return told


def mask(examples: int, trained: int) -> dict[str, Any]:
    """A mask report's plain data."""
    bounds = [0, 8, 16, 24, 32, 48, 64, 96, 128, 192]
    shares = [0.02, 0.16, 0.27, 0.22, 0.17, 0.09, 0.045, 0.02, 0.005]
    pairs = zip(bounds, bounds[1:], shares, strict=False)
    return {
        "examples": examples,
        "tokens": int(trained * 2.3),
        "trained_tokens": trained,
        "masked_tokens": int(trained * 1.3),
        "truncated_examples": 0,
        "dropped": {"longer than max_tokens": 7} if examples > 1000 else {},
        "ends": examples,
        "histogram": [(low, high, int(share * examples)) for low, high, share in pairs],
        "sample": [
            ("<|im_start|>user\n", False),
            ("Translate to French: ", False),
            ("Save all files<|im_end|>\n<|im_start|>assistant\n", False),
            ("Enreg", True),
            ("istrer tous les fichiers", True),
            ("<|im_end|>", True),
            ("\n", False),
        ],
    }


def stage(seconds: float, tokens: int = 0) -> dict[str, Any]:
    """What a stage cost."""
    joules = seconds * 31.0
    return {
        "wall_seconds": seconds,
        "cpu_seconds": seconds * 1.91,
        "tokens": tokens,
        "energy_joules": joules,
        "energy_kwh": joules / 3.6e6,
        "co2e_grams": joules / 3.6e6 * 480,
        "peak_bytes": 1_640_000_000,
        "source": f"estimate: {seconds * 1.91:.1f} CPU-seconds x 12 W + {seconds:.1f} s x 6.4 W at "
        "rest, no accelerator counted",
    }


def summary() -> dict[str, Any]:
    """A whole run that went well."""
    samples = [
        {"question": q, "reference": r, "before": f"{q}\n\n{q}", "after": a} for q, r, a in PAIRS
    ]
    return {
        "title": "English interface strings to French",
        "command": "puna tune recipes/translate.yaml --method.rank 8 --output runs/fr",
        "asked": {
            "model": "llama-base",
            "data": {"files": ["package:jupyterlab_language_pack_fr_FR"], "test": 200},
            "method": {"method": "lora", "rank": 8, "alpha": 16.0, "layers": 6},
            "train": {"epochs": 3, "best_metric": "validation_loss", "seed": 0},
        },
        "model": {"name": "SmolLM2-135M", "identity": "9f2c" * 4, "parameters": 134_515_008},
        "method": {"name": "lora", "trainable": 976_896, "total": 134_515_008, "layers": 6,
                   "start": 24},
        "data": {
            "files": ["jupyterlab.po", "notebook.po"],
            "shape": "parallel",
            "why": "the rows have the columns source and target",
            "splits": {"train": 2412, "validation": 140, "test": 200},
            "quarantine": {
                "total": 131,
                "counts": {"untranslated": 118, "fuzzy": 13},
                "samples": [{"locator": "jupyterlab.po:1204", "reason": "fuzzy"}],
            },
        },
        "mask": {"train": mask(2412, 41_220), "validation": mask(140, 2390)},
        "history": history(),
        "evaluations": [
            {"step": 160, "validation_loss": 1.62, "chrf": 41.0},
            {"step": 320, "validation_loss": 1.44, "chrf": 48.7},
            {"step": 480, "validation_loss": 1.41, "chrf": 50.1},
        ],
        "best_step": 480,
        "metric": "bleu",
        "before": {"metrics": before()},
        "after": {"metrics": after()},
        "paired": {
            "bleu": change(27.4, 2.3),
            "chrf": change(30.2, 2.1),
            "exact_match": change(0.28, 0.06),
            "perplexity": change(-15.1, 2.4),
            "bits_per_byte": change(-0.02, 0.05, 0.41),
        },
        "samples": samples * 3,
        "ledger": {
            "stages": {"read": stage(3.1), "trunk cache": stage(48.0, 94_806),
                       "train": stage(171.4, 284_418), "evaluate": stage(66.2, 18_400)},
            "total": stage(288.7, 397_624),
            "carbon_grams_per_kwh": 480.0,
            "country": None,
            "notes": [],
        },
        "cache": {"hits": 4824, "computed": 2412, "damaged": 0, "evicted": 0, "beyond": 0,
                  "bytes_on_disk": 218_431_000, "seconds_filling": 48.0,
                  "seconds_saved_estimate": 96.2},
        "lineage": [
            {"name": "SmolLM2-135M", "text": "base model", "digest": "9f2c" * 16},
            {"name": "2,412 pairs of interface strings", "text": "jupyterlab.po, notebook.po"},
            {"kind": "adapter", "text": "lora on the last 6 of 30 layers", "digest": "41d0" * 16},
        ],
        "machine": {"cpu": "a laptop's, 2 cores", "memory": "7.8 GiB", "python": "3.11.9",
                    "torch": "2.13.0", "puna": "0.1.0"},
        "finished": "2026-11-22T14:03:27Z",
    }  # fmt: skip


def before() -> dict[str, Any]:
    """The metrics of the base."""
    return {
        "bleu": bleu(2.1, 0.6),
        "chrf": metric("chrf", 20.4, 1.2, "points", signature="nrefs:1|nc:6|nw:0|version:2.5.1"),
        "exact_match": metric("exact_match", 0.0, 0.0, "share"),
        "perplexity": metric("perplexity", 18.9, 2.4, "per token", higher_is_better=False),
        "bits_per_byte": metric("bits_per_byte", 0.91, 0.06, "bits", higher_is_better=False),
    }


def after() -> dict[str, Any]:
    """The metrics of the tuned model."""
    return {
        "bleu": bleu(29.5, 2.4),
        "chrf": metric("chrf", 50.6, 2.2, "points", signature="nrefs:1|nc:6|nw:0|version:2.5.1"),
        "exact_match": metric("exact_match", 0.28, 0.06, "share"),
        "perplexity": metric("perplexity", 3.8, 0.3, "per token", higher_is_better=False),
        "bits_per_byte": metric("bits_per_byte", 0.89, 0.06, "bits", higher_is_better=False),
    }


def compared() -> list[dict[str, Any]]:
    """Rows of a comparison; one method failed."""
    figures = (
        ("full", 31.0, 134_515_008, 912.0, 3.9e9),
        ("top_layers", 28.2, 21_240_000, 260.0, 1.9e9),
        ("lora", 29.5, 976_896, 288.7, 1.64e9),
        ("dora", 29.9, 999_936, 390.1, 1.71e9),
        ("adapter", 24.8, 1_140_000, 301.5, 1.66e9),
    )
    rows = [
        {"name": name, "metric": bleu(value, 2.2), "trainable": trainable, "seconds": seconds,
         "peak_bytes": peak, "energy_joules": seconds * 31, "co2e_grams": seconds * 31 / 7500,
         "validation_loss": 1.9 - value / 60, "folder": f"runs/compare/{name}"}
        for name, value, trainable, seconds, peak in figures
    ]  # fmt: skip
    return [*rows, {"name": "prefix", "error": "the loss was not finite in 5 steps in a row"}]
