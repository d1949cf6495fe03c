"""Any model judged on data, alone or against another on the same examples."""

from __future__ import annotations

import contextlib
import dataclasses
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from puna.artifact import MANIFEST, check_free, digest_file, manifest, write_json, writing_folder
from puna.config import to_dict
from puna.errors import InputError
from puna.evaluate import Case, EvaluationConfig, Judgement, compare, judge, side_by_side
from puna.flows.evaluate_data import (
    AsTokens,
    TestData,
    as_tokens,
    fitting,
    in_common,
    read_files,
    read_test_split,
)
from puna.flows.evaluate_options import EvaluateOptions
from puna.flows.evaluate_page import evaluation_page
from puna.flows.opening import (
    Opened,
    open_model,
    resolve_device,
    resolve_dtype,
    set_threads,
    template_text,
)
from puna.flows.subject import Subject, find_subject, same_model
from puna.flows.tune_recipe import TuneRecipe
from puna.flows.tune_summary import told_machine, told_model
from puna.meter import Meter, MeterConfig
from puna.records import Wording
from puna.report import write
from puna.tokens.examples import ExampleConfig
from puna.tokens.rendering import Renderer

EVALUATION, REPORT = "evaluation.json", "report.html"
OF_TEXT = ("perplexity", "bits_per_byte", "token_accuracy")
OF_TRANSLATION = ("bleu", "chrf", "exact_match", "token_accuracy", "perplexity", "bits_per_byte")

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Evaluation:
    """What was found."""

    told: Mapping[str, Any]
    """Plain data: what evaluation.json holds."""
    path: Path | None
    """The folder, where one was asked for."""


@dataclass(frozen=True)
class _Asked:
    """One model with what it is given; its weights are not read yet."""

    subject: Subject
    test: TestData
    tokens: AsTokens
    renderer: Renderer


def evaluate(name: str, options: EvaluateOptions, progress: Progress) -> Evaluation:
    """Judge a model, and compare it with another.

    Both are asked the same examples. A model that was taught how to be asked is asked so; its base
    is asked in the same way; any other is put the same words by its own chat template.

    Args:
        name: The model: a run, a tuning, a checkpoint.
        options: What it is judged on, and how.
        progress: Called with (what, done, total).

    Raises:
        InputError: There is no such model, no data to judge by, or something about them is wrong.
    """
    if options.out is not None:
        check_free(options.out, force=options.force, folder=True)
    set_threads(options.run.threads)
    subject = find_subject(name)
    recipe = subject.recipe()
    with Meter(MeterConfig() if recipe is None else recipe.meter) as meter:
        return _Work(subject, recipe, options, meter, progress).run()


class _Work:
    """One evaluation."""

    def __init__(
        self,
        subject: Subject,
        recipe: TuneRecipe | None,
        options: EvaluateOptions,
        meter: Meter,
        progress: Progress,
    ) -> None:
        self.subject, self.recipe, self.options = subject, recipe, options
        self.meter, self.progress = meter, progress
        self.notes: list[str] = []

    def run(self) -> Evaluation:
        with self.meter.stage("data"):
            own = self._asked(self.subject, None)
            other = self._other(own)
            config = self._config(own)
        before = told_base = None
        cases = own.tokens.cases
        if other is not None:
            if own.test.shape != "text":
                cases, others = in_common(cases, other.tokens.cases)
            else:
                others = other.tokens.cases
            before, told_base = self._judged(other, others, config, "base")
        after, told = self._judged(own, cases, config, "model")
        summary = {
            "kind": "evaluation",
            "title": f"{self._title()}, judged",
            "command": self.options.command,
            "model": told,
            "base": told_base,
            "own_base": other is not None and self._is_base(other.subject),
            "data": self._told_data(own, len(after.ids)),
            "asked": self._told_asking(own),
            "settings": to_dict(config),
            **self._figures(before, after, config),
            "ledger": self.meter.to_dict(),
            "machine": told_machine(),
            "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }
        summary["notes"] = list(dict.fromkeys([*own.test.notes, *self.notes]))
        return Evaluation(summary, self._write(summary))

    # --- what is asked ----------------------------------------------------------------------------

    def _asked(self, subject: Subject, like: _Asked | None) -> _Asked:
        """What a model is given; `like`: the one that it is compared with."""
        asking, ask = subject.asking(), self.options.ask
        tokenizer, context = subject.tokenizer()
        taught = None if asking is None else asking.template
        template = template_text(ask.template) or taught
        wording = Wording() if asking is None else asking.wording
        if like is not None and self._is_base(subject):
            template, wording = like.renderer.template, like.test.wording
        elif like is not None and asking is None:
            wording = like.test.wording
            if template is None and tokenizer.chat_template is None:
                template = like.renderer.template
                self.notes.append(
                    f"{subject.name} has no chat template: it is asked by that of "
                    f"{like.subject.name}."
                )
        said = {key: getattr(ask, key) for key in ("prompt", "answer", "system")}
        said = {key: value for key, value in said.items() if value is not None}
        test = self._test(dataclasses.replace(wording, **said), insist=bool(said))
        renderer = Renderer(tokenizer, template)
        base = self.recipe.examples if self.recipe else ExampleConfig()
        config = fitting(base, self.options.data, context)
        return _Asked(subject, test, as_tokens(test, renderer, config), renderer)

    def _test(self, wording: Wording, *, insist: bool) -> TestData:
        if self.options.data.data:
            found = read_files(self.options.data, wording, insist=insist)
            self._warn_of_training_files(found.files)
            return found
        if self.recipe is None:
            raise InputError(
                "brings no test data of its own",
                where=self.subject.name,
                fix="name files: --data test.jsonl",
            )
        return read_test_split(self.recipe, wording, dict(self.subject.summary.get("data") or {}))

    def _other(self, own: _Asked) -> _Asked | None:
        name = self.options.base
        if name == "none":
            return None
        if name == "auto":
            if self.subject.base is None:
                return None
            name = self.subject.base
        try:
            other = find_subject(name)
        except InputError as error:
            raise InputError(
                error.what,
                where=f"{error.where or name}, to compare with",
                fix=f"{error.fix or 'name another model with --base'}; or --base none",
            ) from error
        if same_model(other, self.subject):
            raise InputError(
                "is compared with itself", where=name, fix="name another model with --base"
            )
        return self._asked(other, own)

    def _is_base(self, subject: Subject) -> bool:
        base = self.subject.base
        if base is None or subject.name == base:
            return base is not None
        with contextlib.suppress(InputError):  # it may not be here any more
            return same_model(subject, find_subject(base))
        return False

    def _config(self, own: _Asked) -> EvaluationConfig:
        base = EvaluationConfig() if self.recipe is None else self.recipe.evaluation
        judging = self.options.judging
        said: dict[str, Any] = {
            key: value for key, value in vars(judging).items() if value not in (None, ())
        }
        if own.test.shape == "text" and base.needs("outputs"):
            said.setdefault("metrics", OF_TEXT)
        elif own.test.shape == "parallel" and self.recipe is None:
            said.setdefault("metrics", OF_TRANSLATION)
        config = dataclasses.replace(base, **said)
        words = {"bleu", "ter"} & set(config.metrics)
        if words and config.target_language is None and config.bleu_tokenizer is None:
            text = "".join(case.reference for case in own.tokens.cases[:200])
            if _unspaced(text) > 0.2:
                self.notes.append(
                    "The references are in a script without spaces, and words were told apart as "
                    "in European languages: BLEU and TER mean little. Name the language "
                    "(--target-language zh)."
                )
        return config

    def _warn_of_training_files(self, files: Sequence[Path]) -> None:
        told = dict(self.subject.summary.get("data") or {}).get("files")
        learnt = {Path(path).resolve() for path in (told or {}).get("train", [])}
        for path in files:
            if path.resolve() in learnt:
                self.notes.append(
                    f"The model was trained on {path}: it is judged on what it learnt."
                )

    # --- judging ----------------------------------------------------------------------------------

    def _judged(
        self,
        asked: _Asked,
        cases: list[Case],
        config: EvaluationConfig,
        role: Literal["base", "model"],
    ) -> tuple[Judgement, dict[str, Any]]:
        run, name = self.options.run, asked.subject.name
        with self.meter.stage(f"opening the {role}"):
            device = resolve_device(run.device)
            opened = open_model(name, device=device, dtype=resolve_dtype(run.dtype, device))
            identity = opened.identity
        with self.meter.stage(f"judging the {role}") as cost:
            found = judge(
                opened.model,
                opened.tokenizer,
                cases,
                config,
                stop_ids=asked.renderer.stop_ids,
                progress=lambda what, done, total: self.progress(f"{name}: {what}", done, total),
            )
            cost.tokens += found.tokens
        if found.cut_outputs:
            count = sum(output is not None for output in found.outputs)
            self.notes.append(
                f"{found.cut_outputs} of {count} answers of {name} were cut at the longest length "
                "allowed (--max-new-tokens)."
            )
        return found, _told_model(asked.subject, opened, identity)

    def _figures(
        self, before: Judgement | None, after: Judgement, config: EvaluationConfig
    ) -> dict[str, Any]:
        pairs = {} if before is None else self._paired(before, after)
        samples = [] if before is None else side_by_side(before, after)
        if before is None:
            columns = zip(after.questions, after.references, after.outputs, strict=True)
            samples = [
                {"question": question, "reference": reference, "after": output}
                for question, reference, output in columns
                if output is not None
            ]
        return {
            "before": None if before is None else before.to_dict(),
            "after": after.to_dict(),
            "paired": pairs,
            "samples": samples[: config.samples],
        }

    def _paired(self, before: Judgement, after: Judgement) -> dict[str, Any]:
        """What can be compared, metric by metric; why something cannot is noted."""
        pairs = {}
        for name in after.metrics:
            one = [
                dataclasses.replace(found, metrics={name: found.metrics[name]})
                for found in (before, after)
            ]
            try:
                pairs[name] = compare(*one)[name].to_dict()
            except InputError as error:
                self.notes.append(f"{name} is not compared example by example: {error.what}.")
        return pairs

    # --- what is told -----------------------------------------------------------------------------

    def _title(self) -> str:
        return str(self.subject.summary.get("title") or Path(self.subject.name).name)

    def _told_data(self, own: _Asked, judged: int) -> dict[str, Any]:
        test, mask = own.test, own.tokens.mask
        return {
            "files": [str(path) for path in test.files],
            "of": "the run's own test split" if not self.options.data.data else "files",
            "shape": test.shape,
            "why": test.why,
            "examples": len(test.items),
            "judged": judged,
            "left_out": dict(mask.dropped),
            "quarantine": test.quarantine.to_dict() if self.options.data.data else None,
            "identity": test.identity(),
        }

    def _told_asking(self, own: _Asked) -> dict[str, Any]:
        return {
            "wording": to_dict(own.test.wording),
            "template": own.renderer.template,
            "own_template": own.renderer.template == own.renderer.tokenizer.chat_template,
            "sample": [[text, bool(on)] for text, on in own.tokens.mask.sample],
        }

    def _write(self, summary: dict[str, Any]) -> Path | None:
        out = self.options.out
        if out is None:
            return None
        models = [summary[side] for side in ("model", "base") if summary[side]]
        with writing_folder(out, force=self.options.force) as folder:
            write_json(folder / EVALUATION, summary)
            write(evaluation_page(summary), folder / REPORT)
            files = {name: digest_file(folder / name) for name in (EVALUATION, REPORT)}
            told = manifest(
                "evaluation",
                config={
                    "made by": "evaluate",
                    "data": summary["data"]["identity"],
                    "settings": summary["settings"],
                },
                parents=[f"model {model['identity']}" for model in models],
                files=files,
                measured={
                    "seconds": round(summary["ledger"]["total"]["wall_seconds"], 3),
                    "host": f"{platform.system()} {platform.machine()}",
                },
            )
            write_json(folder / MANIFEST, told)
        return out


def _told_model(subject: Subject, opened: Opened, identity: str) -> dict[str, Any]:
    return {**told_model(opened, identity), "made_from": subject.base}


def _unspaced(text: str) -> float:
    """The share of characters of Chinese and Japanese, 0 to 1."""
    return sum("\u3040" <= char <= "\u9fff" for char in text) / max(1, len(text))
