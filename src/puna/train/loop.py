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
from puna.train import blocks, checkpoints, guard, randomness
from puna.train.asked import check_origin, check_run, check_warmup
from puna.train.clock import Clock
from puna.train.config import TrainConfig
from puna.train.interrupts import Interrupts, Stop
from puna.train.job import FitResult, Job, Stopped
from puna.train.keeping import Content, Keeper
from puna.train.log import MetricsLog, Reporter, Several, StepMetrics
from puna.train.masters import what_moves
from puna.train.memory import peak_bytes
from puna.train.progress import Calendar, Progress
from puna.train.ranks import gather
from puna.train.schedule import factor, timed_factor
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
        with world.working():
            return run.run()
    finally:
        run.keeper.close()
        run.report.end()


class _Run:
    """The state of a run between its steps."""

    def __init__(
        self, job: Job, config: TrainConfig, workspace: Path, world: World, report: Reporter
    ) -> None:
        self.job, self.config, self.workspace, self.world = job, config, workspace, world
        told = [report, job.everywhere] if world.is_first else [job.everywhere]
        self.report: Reporter = Several(told)
        self.log = MetricsLog(workspace)
        self.progress = Progress()
        self.interrupts = Interrupts()
        check_run(job, config, workspace, world)
        self.calendar = Calendar(config, self._most_batches)
        check_warmup(self.calendar.total, config)
        self.stepper: Stepper  # while the run is prepared
        self.batches: Iterator[tuple[int, Batch]] = iter(())
        self.data_are_over = False  # before their time, since some were passed over
        self.clock = Clock(world, config.max_seconds, job.seconds_before)
        background = config.background_checkpoints
        self.keeper = Keeper(
            workspace, world, newest=config.keep_checkpoints, background=background
        )

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
                self.keeper.finish()
                if any(gather(self.world, self.interrupts.wanted)):
                    raise Stop  # asked for in the last step, before what comes after the run
            except Stop as stop:
                self._checkpoint(due=False)
                self.keeper.finish()
                done = f"interrupted after step {self.progress.step}, "
                kept = "whose checkpoint is written; the same command again goes on from there"
                self.report.note(done + (kept if self.progress.step else "with nothing to keep"))
                raise KeyboardInterrupt from stop
        return self._result()

    @contextlib.contextmanager
    def _prepared(self) -> Iterator[None]:
        """What learns, with what the configuration wants done to it, and its optimizer."""
        learning, job, config = self._learning_blocks(), self.job, self.config
        with contextlib.ExitStack() as stack:
            moved = what_moves(job.model, job.parameters, config.compute_dtype)
            stack.enter_context(moved)
            self.stepper = Stepper(job, config.optim, self.world, moved)
            if config.compile:
                stack.enter_context(blocks.compiled(learning, self.world.device))
            if config.activation_checkpointing:  # around what is compiled, not within
                stack.enter_context(blocks.recomputed(learning))
            yield

    def _learning_blocks(self) -> list[nn.Module]:
        return list(self.job.model.model.layers)[self.job.trunk.start :]

    def _stopped(self) -> Stopped | None:
        progress, config = self.progress, self.config
        if config.patience is not None and progress.without_gain >= config.patience:
            return "early"
        if self.data_are_over:
            return "finished"
        if self.calendar.total is None or progress.step < self.calendar.total:
            return "time" if self.clock.is_over and progress.step else None
        return "finished" if progress.epoch == config.epochs else "steps"

    def _advance(self) -> None:
        start, progress = time.monotonic(), self.progress
        batches = self._fetch()
        wanted, written = self.interrupts.wanted, self.keeper.is_written
        agreed = agree(self.world, self.job.objective, batches, wanted, written)
        if agreed.stop:
            raise Stop
        self.keeper.settle(agreed.written)
        if not agreed.batches:
            self.data_are_over = True
            short = f"the data end after step {progress.step}: those of {progress.passed_steps}"
            self.report.note(f"{short} steps were passed over")
            return
        rate = self._learning_rate()
        limit = guard.spike_limit(progress.losses, self.config.guard)
        outcome = self.stepper.step(batches, agreed, rate, limit)
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
        size = self.config.micro_batches
        epoch, step = self.calendar.place(self.progress)
        left = self.job.loader.batches_in_epoch(epoch) - step * size
        wanted = size if self.calendar.is_beyond(epoch, step) else min(size, max(left, 0))
        found = []
        for _ in range(wanted):
            told, batch = next(self.batches, (None, None))
            if batch is None and self.progress.passed_steps:
                break  # the loader ends before the run, on every rank
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
        if best or (self._is_due(config.checkpoint_every_steps) and not self._is_unsure):
            self._checkpoint()

    @property
    def _is_unsure(self) -> bool:
        """Whether the run may yet go back to what was kept before bad steps began."""
        return bool(self.progress.bad_in_row and self.config.guard.max_rollbacks)

    def _is_due(self, every: int | None) -> bool:
        ended = self._stopped() == "time" or self.data_are_over
        return ended or self.calendar.is_due(every, self.progress)

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
        """Log a step that was skipped; after too many in a row go back, or give up."""
        progress, config = self.progress, self.config.guard
        guard.count_step(progress, outcome, config)
        if not outcome.skipped:
            return
        self._log_event(progress.step, guard.skipped_event(outcome))
        self.report.note(guard.skipped_note(progress.step, outcome))
        if progress.bad_in_row < config.max_bad_steps:
            return
        if progress.rollbacks >= config.max_rollbacks or not self._go_back():
            raise guard.hopeless(progress, outcome, config, self.workspace)

    def _go_back(self) -> bool:
        """To the newest checkpoint before the bad steps, if there is one; the data go on.

        All of it follows from that checkpoint, so a run that is killed goes the same way again.
        """
        before = self.progress
        saved = self._found(before.kept_step) if before.kept_step else None
        if saved is None:
            return False
        self._restore(saved)
        after = self.progress
        after.bad_in_row, after.bad_steps, after.events = 0, before.bad_steps, before.events
        after.rollbacks, after.kept_step = before.rollbacks + 1, before.kept_step
        after.passed_steps = before.step + before.passed_steps - after.step
        if self.world.is_first:
            self.log.cut(after.step, after.evaluated_step, after.events)
        self._log_event(before.step, guard.back_event(before, after))
        self.report.note(guard.back_note(before, after))
        self._find_place()
        return True

    def _log_event(self, step: int, event: Mapping[str, Any]) -> None:
        told = guard.numbered(event, self.progress)
        if self.world.is_first:
            self.log.event(step, told)

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
            optimizer=outcome.optimizer,
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
            self.clock.go_on(self.progress.seconds, self.progress.seconds_before)
        progress = self.progress
        if self.world.is_first:
            self.log.cut(progress.step, progress.evaluated_step, progress.events)
        self._find_place()
        if self.job.set_train is not None:
            self.job.set_train(True)
        self.report.begin(progress.step, self.calendar.total)

    def _find_place(self) -> None:
        """Go to the data of the next step."""
        loader = self.job.loader
        epoch, step = self.calendar.place(self.progress)
        batch = step * self.config.micro_batches
        if batch and not self.calendar.is_beyond(epoch, step):
            batch = min(batch, loader.batches_in_epoch(epoch))  # this rank may have fewer
        loader.load_state_dict({"epoch": epoch, "batch": batch})
        self.batches = iter(loader)

    def _found(self, up_to: int | None = None) -> checkpoints.Saved | None:
        """The checkpoint to go on from, the newest up to a step if one is given."""

        def accept(state: Mapping[str, Any]) -> None:
            check_origin(state, self.job, self.workspace, self.world)

        return self.keeper.found(up_to, accept, self.report.note)

    def _restore(self, saved: checkpoints.Saved) -> None:
        moved, world, seed = self.stepper.moved, self.world, self.config.seed + saved.step
        checkpoints.put(saved, moved.parameters, moved.places)
        moved.spread()
        self.stepper.optimizer.load(checkpoints.own_state(saved, moved.places))
        randomness.restore_own(saved.state["random"], world.rank, seed, world.device)
        self.progress = Progress(**saved.state["progress"])

    def _checkpoint(self, due: bool = True) -> None:
        """Keep the step at hand; once is enough. One that is not due is none to go back to."""
        progress, moved = self.progress, self.stepper.moved
        progress.kept_step = progress.step if due else progress.kept_step
        if not progress.step or self.keeper.has(progress.step):
            return
        state = {
            "identity": self.job.identity,
            "random": gather(self.world, randomness.capture(self.world.device)),
            "progress": {**asdict(progress), **self._spent()},
        }
        content = Content(
            step=progress.step,
            state=state,
            trained=moved.parameters,
            optimizer=self.stepper.optimizer.tensors(),
            places=moved.places,
            sharded=moved.sharded,
            best_step=progress.best_step,
            prune=due and not self._is_unsure,
        )
        self.keeper.keep(content)

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
            events=tuple(row for row in rows if row["kind"] == "event"),
            rollbacks=progress.rollbacks,
            passed_steps=progress.passed_steps,
        )

    # --- what is asked first ----------------------------------------------------------------------

    def _most_batches(self, epoch: int) -> int:
        """Batches of an epoch on the rank that has most: those with fewer wait at its end."""
        most: int = max(gather(self.world, self.job.loader.batches_in_epoch(epoch)))
        return most
