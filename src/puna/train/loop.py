"""The one loop: steps, evaluations, checkpoints, and going on where a run was left."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import nn

from puna.errors import InputError
from puna.scale.world import World
from puna.tokens.batches import Batch
from puna.train import blocks, checkpoints, randomness
from puna.train.clock import Clock
from puna.train.config import TrainConfig
from puna.train.interrupts import Interrupts, Stop
from puna.train.job import FitResult, Job, Stopped
from puna.train.log import MetricsLog, Reporter, Silent, StepMetrics
from puna.train.memory import peak_bytes
from puna.train.progress import Calendar, Progress
from puna.train.ranks import check_parameters, gather
from puna.train.schedule import factor, timed_factor, warmup
from puna.train.stepping import Agreed, Outcome, Stepper, agree


def fit(
    job: Job, config: TrainConfig, workspace: Path, *, world: World, report: Reporter
) -> FitResult:
    """Train, or go on training where the newest checkpoint in the workspace is.

    On CPU an interrupted run ends with the same bits as an uninterrupted one, if no `max_seconds`
    bounds it. Every generator of random numbers of the process is seeded and used.

    Args:
        job: What to train, and with what.
        config: How.
        workspace: An existing folder for `checkpoints/` and `metrics.jsonl`.
        world: The ranks; each calls this with the same job but for its own loader.
        report: Is told what happens, on the first rank.

    Raises:
        InputError: The job does not fit the configuration or the workspace; the disk refused; or
            nothing was finite for too long. What was written before stays whole.
        KeyboardInterrupt: The user asked to stop; a checkpoint of the last step is there.
    """
    run = _Run(job, config, workspace, world, report)
    try:
        return run.run()
    finally:
        run.report.end()


class _Run:
    """The state of a run between its steps."""

    def __init__(
        self, job: Job, config: TrainConfig, workspace: Path, world: World, report: Reporter
    ) -> None:
        self.job, self.config, self.workspace, self.world = job, config, workspace, world
        self.report: Reporter = report if world.is_first else Silent()
        self.log = MetricsLog(workspace)
        self.progress = Progress()
        self.interrupts = Interrupts()
        self._check()
        self.calendar = Calendar(config, self._most_batches)
        self._check_schedule()
        self.stepper = Stepper(job, config.optim, world)
        self.batches: Iterator[tuple[int, Batch]] = iter(())
        self.clock = Clock(world, config.max_seconds, job.seconds_before)

    # --- the course of a run ----------------------------------------------------------------------

    def run(self) -> FitResult:
        with self.interrupts, self._prepared():
            self._open()
            try:
                self._settle()  # what was due when the last process ended
                while not self._stopped():
                    self._advance()
                    self._settle()
                self._checkpoint()
            except Stop as stop:
                self._checkpoint()
                done = f"interrupted after step {self.progress.step}, "
                kept = "whose checkpoint is written; the same command again goes on from there"
                self.report.note(done + (kept if self.progress.step else "with nothing to keep"))
                raise KeyboardInterrupt from stop
        return self._result()

    @contextlib.contextmanager
    def _prepared(self) -> Iterator[None]:
        """The blocks that learn, with what the configuration wants done to them."""
        learning = self._learning_blocks()
        with contextlib.ExitStack() as stack:
            if self.config.compile:
                stack.enter_context(blocks.compiled(learning, self.world.device))
            if self.config.activation_checkpointing:  # around what is compiled, not within
                stack.enter_context(blocks.recomputed(learning))
            yield

    def _learning_blocks(self) -> list[nn.Module]:
        return list(self.job.model.model.layers)[self.job.trunk.start :]

    def _stopped(self) -> Stopped | None:
        progress, config = self.progress, self.config
        if config.patience is not None and progress.without_gain >= config.patience:
            return "early"
        if self.calendar.total is None or progress.step < self.calendar.total:
            return "time" if self.clock.is_over and progress.step else None
        return "finished" if progress.epoch == config.epochs else "steps"

    def _advance(self) -> None:
        start, progress = time.monotonic(), self.progress
        batches = self._fetch()
        agreed = agree(self.world, self.job.objective, batches, self.interrupts.wanted)
        if agreed.stop:
            raise Stop
        rate = self._learning_rate()
        outcome = self.stepper.step(batches, agreed, rate)
        self.calendar.turn(progress)
        progress.tokens += agreed.tokens
        progress.trained_tokens += agreed.trained_tokens
        self._tell(outcome, agreed, rate, time.monotonic() - start)
        self._guard(outcome)

    def _learning_rate(self) -> float:
        step, total = self.progress.step, self.calendar.total
        course, full = self.config.schedule, self.config.optim.learning_rate
        if self.config.max_seconds is None:
            assert total is not None, "the configuration checks this"
            return full * factor(step, total, course)
        done = 0.0 if total is None else step / total
        return full * timed_factor(step, max(done, self.clock.share), course)

    def _fetch(self) -> list[Batch]:
        """The micro-batches of a step; fewer at the end of an epoch, perhaps none on this rank."""
        size, epoch = self.config.micro_batches, self.progress.epoch
        left = self.job.loader.batches_in_epoch(epoch) - self.progress.step_in_epoch * size
        found = []
        for _ in range(min(size, max(left, 0))):
            told, batch = next(self.batches, (None, None))
            assert batch is not None and told == epoch, f"epoch {epoch} of the loader ends early"
            found.append(batch)
        return found

    def _settle(self) -> None:
        """Judge and keep what is due after the step at hand."""
        progress, config = self.progress, self.config
        best = False
        self.clock.read()
        due = self._is_due(config.evaluate_every_steps)
        if due and self.job.evaluate is not None and progress.evaluated_step < progress.step:
            best = self._evaluate(self.job.evaluate)
            self.clock.read()  # the step is judged: there need not be another one
        if best or self._is_due(config.checkpoint_every_steps):
            self._checkpoint()

    def _is_due(self, every: int | None) -> bool:
        return self._stopped() == "time" or self.calendar.is_due(every, self.progress)

    def _evaluate(self, evaluate: Callable[[], Mapping[str, float]]) -> bool:
        """Judge the model; the run goes on with the same random numbers as without."""
        with (
            self._interruptible(),
            self._resting(),
            randomness.untouched(self.world.device),
            blocks.as_written(self._learning_blocks()),
        ):
            metrics = gather(self.world, dict(evaluate()))[0]
        name = self.config.best_metric
        if name not in metrics:
            raise InputError(
                f"the evaluation gives no {name!r}, which best_metric names",
                fix=f"it gives: {', '.join(metrics)}",
            )
        best = self.progress.judged(metrics[name], self.config.best_is)
        if self.world.is_first:
            self.log.evaluated(self.progress.step, metrics)
        self.report.evaluated(self.progress.step, metrics, best)
        return best

    @contextlib.contextmanager
    def _interruptible(self) -> Iterator[None]:
        """Ctrl-C ends the block at once, if no other rank would wait for this one."""
        if any(gather(self.world, self.interrupts.wanted)):
            raise Stop
        with self.interrupts.at_once() if self.world.size == 1 else contextlib.nullcontext():
            yield

    @contextlib.contextmanager
    def _resting(self) -> Iterator[None]:
        """Without dropout."""
        switch = self.job.set_train or (lambda _: None)
        switch(False)
        try:
            yield
        finally:
            switch(True)

    def _guard(self, outcome: Outcome) -> None:
        """Count a step that was skipped; give up after too many in a row."""
        progress = self.progress
        if not outcome.skipped:
            progress.bad_in_row = 0
            return
        progress.bad_steps += 1
        progress.bad_in_row += 1
        figures = f"loss {outcome.loss:.4g}, gradient norm {outcome.grad_norm:.4g}"
        self.report.note(f"step {progress.step} was skipped: not finite ({figures})")
        if progress.bad_in_row >= self.config.max_bad_steps:
            raise InputError(
                f"the loss or the gradient was not finite in {progress.bad_in_row} steps in a row,"
                f" up to step {progress.step} ({figures})",
                where=self.workspace,
                fix="lower optim.learning_rate, or lengthen the warmup; checkpoints up to there "
                "are whole",
            )

    def _tell(self, outcome: Outcome, agreed: Agreed, rate: float, seconds: float) -> None:
        metrics = StepMetrics(
            step=self.progress.step,
            epoch=self.calendar.epochs_done(self.progress),
            loss=outcome.loss,
            terms=outcome.terms,
            learning_rate=rate,
            grad_norm=outcome.grad_norm,
            tokens=agreed.tokens,
            trained_tokens=agreed.trained_tokens,
            tokens_per_second=agreed.tokens / max(seconds, 1e-9),
            seconds=self.clock.now(),
            memory_bytes=peak_bytes(self.world.device),
            skipped=outcome.skipped,
        )
        if self.world.is_first:
            self.log.step(metrics)
        self.report.step(metrics)

    # --- what is kept -----------------------------------------------------------------------------

    def _open(self) -> None:
        """Begin, or go on where the newest whole checkpoint is."""
        saved = self._found()
        if saved is None:
            randomness.seed_all(self.config.seed, self.world.rank)
        else:
            self._restore(saved)
        progress = self.progress
        if self.world.is_first:
            self.log.cut(progress.step, progress.evaluated_step)
        done = progress.step_in_epoch * self.config.micro_batches
        own = self.job.loader.batches_in_epoch(progress.epoch) if done else 0
        self.job.loader.load_state_dict({"epoch": progress.epoch, "batch": min(done, own)})
        self.batches = iter(self.job.loader)
        if self.job.set_train is not None:
            self.job.set_train(True)
        self.report.begin(progress.step, self.calendar.total)

    def _found(self) -> checkpoints.Saved | None:
        """The checkpoint to go on from: the first rank chooses, and says what is damaged."""
        if not self.world.is_first:
            step = gather(self.world, None)[0]
            return None if step is None else checkpoints.load_step(self.workspace, step)
        saved, faults = checkpoints.newest(self.workspace)
        for fault in faults:
            self.report.note(f"a checkpoint is damaged and left out: {fault}")
        if saved is not None:
            self._check_origin(saved.state)
            checkpoints.drop_after(self.workspace, saved.step)
            self.report.note(f"going on from the checkpoint after step {saved.step}")
        gather(self.world, None if saved is None else saved.step)
        return saved

    def _check_origin(self, state: Mapping[str, Any]) -> None:
        if state["identity"] != self.job.identity:
            raise InputError(
                "holds a run of another recipe or other data, which cannot go on with these",
                where=self.workspace,
                fix="choose another folder for this run, or give the recipe that began it",
            )
        if len(state["random"]) != self.world.size:
            raise InputError(
                f"the run was on {len(state['random'])} ranks, this is one of {self.world.size}",
                where=self.workspace,
                fix="go on with as many as it began with",
            )

    def _restore(self, saved: checkpoints.Saved) -> None:
        checkpoints.put(saved, self.job.parameters)
        self.stepper.optimizer.load(saved.optimizer)
        randomness.restore(saved.state["random"][self.world.rank], self.world.device)
        self.progress = Progress(**saved.state["progress"])
        self.clock.go_on(self.progress.seconds, self.progress.seconds_before)

    def _checkpoint(self) -> None:
        """Keep the step at hand; once is enough."""
        progress, world = self.progress, self.world
        random = gather(world, randomness.capture(world.device))
        kept = checkpoints.exists(self.workspace, progress.step)
        if world.is_first and progress.step and not kept:
            state = {
                "identity": self.job.identity,
                "random": random,
                "progress": {**asdict(progress), **self._spent()},
            }
            checkpoints.save(
                self.workspace,
                progress.step,
                state,
                trained=self.job.parameters,
                optimizer=self.stepper.optimizer.tensors(),
            )
            checkpoints.prune(self.workspace, self.config.keep_checkpoints, progress.best_step)
        world.barrier()

    def _spent(self) -> dict[str, float]:
        return {"seconds": self.clock.now(), "seconds_before": self.clock.before}

    def _result(self) -> FitResult:
        progress, rows = self.progress, self.log.rows()
        stopped = self._stopped()
        assert stopped is not None, "the loop ends no other way"
        return FitResult(
            steps=progress.step,
            best_step=progress.step if progress.best_step is None else progress.best_step,
            best_value=progress.best_value,
            stopped=stopped,
            history=tuple(row for row in rows if row["kind"] == "step"),
            evaluations=tuple(row for row in rows if row["kind"] == "evaluation"),
            **self._spent(),
            tokens=progress.tokens,
            trained_tokens=progress.trained_tokens,
            bad_steps=progress.bad_steps,
            peak_bytes=peak_bytes(self.world.device),
        )

    # --- what is asked first ----------------------------------------------------------------------

    def _check(self) -> None:
        if not self.workspace.is_dir():
            raise InputError("is not a folder", where=self.workspace, fix="make it first")
        if self.config.patience is not None and self.job.evaluate is None:
            raise InputError(
                "patience counts evaluations, and this run has none",
                fix="set patience to null, or give examples for validation",
            )
        if self.config.compile:
            blocks.check_compiler(self.world.device)
        check_parameters(self.world, self.job.parameters)

    def _check_schedule(self) -> None:
        total = self.calendar.total
        if total is None:
            return
        rising = warmup(total, self.config.schedule)
        if rising >= total and self.config.schedule.warmup_steps is not None:
            raise InputError(
                f"the warmup takes {rising} steps, and the whole run {total}",
                fix="lower schedule.warmup_steps",
            )

    def _most_batches(self, epoch: int) -> int:
        """Batches of an epoch on the rank that has most: those with fewer wait at its end."""
        most: int = max(gather(self.world, self.job.loader.batches_in_epoch(epoch)))
        return most
