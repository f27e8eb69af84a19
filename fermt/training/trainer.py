"""The training loop, which also continues interrupted runs."""

from __future__ import annotations

import json
import math
import time
from contextlib import nullcontext
from pathlib import Path

import torch
import torch.nn as nn
from rich.console import Console

from fermt_kernels.files import atomic_write

from .. import checkpoints
from ..data.pairs import PairSource
from ..data.sampling import PairSampler
from ..locks import locked
from ..model import FERMT, build_model
from ..progress import ProgressDisplay
from ..signals import Stopped, deferred
from . import state
from .batches import load, training_indices
from .config import TrainConfig
from .initial import init_similar
from .metrics import VALIDATED, Metrics
from .optimizer import set_learning_rate
from .step import Outcome, Stepper
from .validation import validate
from .world import World

SHOWN_METRICS = ("loss", "focal", "l1", "giou", "matching", "iou")  # in the progress display


class TrainingError(RuntimeError):
    """Training stopped because too many consecutive steps had to be skipped."""


def initial_model(config: TrainConfig, backend: str = "auto") -> FERMT:
    """Builds the initial model of a run, without pretrained weights; it depends on the seed only."""
    torch.manual_seed(config.seed)
    model = build_model(config.model_config(), backend=backend).train()
    if config.initial == "similar":
        init_similar(model)
    return model


def load_pretrained(model: FERMT, config: TrainConfig) -> None:
    """Loads the weights `config.pretrained`, if any; FileNotFoundError or ValueError if missing or unsuitable."""
    if config.pretrained.endswith(".safetensors"):
        checkpoints.load_resized(model, checkpoints.load(config.pretrained).state_dict())
    elif config.pretrained:
        checkpoints.load_pretrained(model, config.pretrained)


class Trainer:
    """Trains a model and writes `weights.safetensors` for the tracker to a folder.

    The folder also gets `best.safetensors` (by validation), `metrics.csv`, `config.json` and the last states. A run
    that finds states there continues from the newest that is not damaged, with the result that it would have had
    without the interruption: bit for bit on the CPU, with the same number of processes and threads.
    """

    def __init__(
        self,
        config: TrainConfig,
        train: PairSource,
        held_out: PairSource | None,
        folder: Path,
        world: World,
        *,
        backend: str = "auto",
        console: Console | None = None,
    ) -> None:
        """Builds the model and loads the newest state in the folder, if there is one.

        Args:
            train: source of `config.pairs` pairs per epoch.
            held_out: source of validation pairs; needed if `config.validate_every` is not 0.
            folder: created if needed.
            console: shows the progress of the first process; None: no display.

        Raises:
            ValueError: the states are of another configuration, or the batch does not suit the number of processes.
        """
        self.config, self.train, self.held_out, self.folder, self.world = config, train, held_out, folder, world
        if len(train) != config.pairs:
            raise ValueError(f"the data gives {len(train)} pairs an epoch, and the configuration says {config.pairs}")
        if config.validate_every and held_out is None:
            raise ValueError("validate_every is not 0, and there is nothing to validate on")
        config.parts(world.size)
        folder.mkdir(parents=True, exist_ok=True)
        found = state.states(folder)
        model: FERMT = initial_model(config, backend)
        if not found:
            load_pretrained(model, config)
        if config.sync_bn and (world.device.type != "cuda" or world.size == 1):
            raise ValueError(f"sync_bn needs several processes on GPUs; got {world.size} on {world.device.type}")
        if config.sync_bn:
            model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
        model.to(world.device)
        self.stepper = Stepper(model, config, world)
        self.progress = state.Progress()
        self._loaded: Path | None = None
        if found:
            self._loaded, content = state.read_newest(found)
            self.progress = state.load_state(self._loaded, content, config, self.stepper)
        quiet = Console(quiet=True)
        total = config.epochs * config.steps_per_epoch
        shown = (console or quiet) if self.first else quiet
        self.display = ProgressDisplay(shown, "training", total, self.progress.total, unit="steps")
        self.metrics: Metrics | None = None
        self._line_began, self._line_steps = 0.0, 0

    @property
    def first(self) -> bool:
        """Whether this process writes the files."""
        return self.world.rank == 0

    @property
    def exported(self) -> FERMT:
        """The model to validate and export: the moving average, if there is one."""
        return self.stepper.average.model if self.stepper.average else self.stepper.model

    def run(self, minutes: float = 0.0) -> bool:
        """Trains to the end, or for some minutes; returns whether the end was reached.

        When the time is over, and after SIGINT, SIGTERM or SIGHUP, the current step is finished and the state saved;
        when the time is over, the weights so far are exported, too. In another thread than the main one, signals have
        no effect on it.

        Args:
            minutes: time after which to stop; 0: none.

        Raises:
            KeyboardInterrupt: after a signal; a `fermt.signals.Stopped` in the process that received it.
            RuntimeError: another run is active in the folder.
            TrainingError: `config.bad_steps` consecutive steps had to be skipped.
        """
        self.world.wait()  # for all processes to read the state before the first replaces it
        deadline = time.monotonic() + 60 * minutes if minutes else math.inf
        with locked(self.folder) if self.first else nullcontext():
            if self.first:
                if self._loaded:
                    state.set_aside(self._loaded)
                self.metrics = Metrics(self.folder / state.METRICS, self.progress.total, self.config.tensorboard)
                self._write_config()
            with self.display, deferred() as self.stepper.stop:
                while self.progress.epoch < self.config.epochs and self._epoch(deadline):
                    pass
        self.world.wait()
        return self.progress.epoch >= self.config.epochs

    def _epoch(self, deadline: float) -> bool:
        """Trains to the end of an epoch; returns False if the time is over before."""
        config, progress = self.config, self.progress
        self._line_began, self._line_steps = time.perf_counter(), 0
        lr = 0.0
        indices = training_indices(config, self.world, progress.step)
        batches = load(self.train, progress.epoch, indices, config.workers, self.world)
        for _ in range(progress.step, config.steps_per_epoch):
            lr = set_learning_rate(self.stepper.optimizer, config, progress.total)
            self.stepper.out_of_time = time.monotonic() > deadline
            outcome = self.stepper([next(batches) for _ in range(config.accumulate)], progress.total)
            progress.step, progress.total = progress.step + 1, progress.total + 1
            self._count(outcome)
            self.display.update(progress.total)
            last = progress.step == config.steps_per_epoch
            if progress.total % config.log_every == 0 and not last:
                self._log(self._means(lr))
            if outcome.interrupted:
                self._save()
                number = self.stepper.stop.number
                raise (
                    KeyboardInterrupt if number is None else Stopped(number)
                )  # None: the signal went to another process
            if outcome.out_of_time and not last:
                if self.first:
                    state.export(self.exported, self.folder, best=False)
                self._save()
                return False
            if progress.total % config.save_every == 0 and not last:
                self._save()
        self._end_epoch(lr)
        return time.monotonic() <= deadline

    def _count(self, outcome: Outcome) -> None:
        progress = self.progress
        self._line_steps += 1
        if not outcome.skipped:
            progress.in_a_row = 0
            progress.count += 1
            for name, value in outcome.values.items():
                progress.sums[name] = progress.sums.get(name, 0.0) + value
            return
        progress.skipped += 1
        progress.in_a_row += not outcome.harmless
        self.display.say(f"step {progress.total} skipped: {outcome.skipped}", "yellow")
        if progress.in_a_row >= self.config.bad_steps:
            raise TrainingError(
                f"{progress.in_a_row} consecutive steps were skipped; the last, step {progress.total}, because "
                f"{outcome.skipped}. Try a lower lr, amp=off or better boxes"
            )

    def _means(self, lr: float) -> dict[str, float]:
        """Means of measurements since the last call."""
        progress, seconds = self.progress, time.perf_counter() - self._line_began
        means: dict[str, float] = {"epoch": progress.epoch + 1, "lr": lr}
        means |= {name: total / progress.count for name, total in progress.sums.items()}
        means |= {"skipped": progress.skipped, "pairs_per_second": self._line_steps * self.config.batch / seconds}
        progress.sums, progress.count = {}, 0
        self._line_began, self._line_steps = time.perf_counter(), 0
        return means

    def _log(self, means: dict[str, float]) -> None:
        if self.metrics:
            self.metrics.write(self.progress.total, means)
        parts = "  ".join(f"{name} {means[name]:.3f}" for name in SHOWN_METRICS if name in means)
        rate = f"{means['pairs_per_second']:.0f} pairs/s"
        self.display.report(self.progress.total, f"epoch {self.progress.epoch + 1}  {parts}  {rate}")

    def _end_epoch(self, lr: float) -> None:
        config, progress, better = self.config, self.progress, False
        means = self._means(lr)
        number = progress.epoch + 1
        due = config.validate_every and (number % config.validate_every == 0 or number == config.epochs)
        if due and self.held_out is not None:
            self.world.share(self.exported.buffers())  # each process has its own batch-norm statistics
            found = validate(self.exported, self.held_out, config, self.world, self.stepper.autocast())
            means |= dict(zip(VALIDATED, found, strict=True))
            better = found.ao > progress.best
            progress.best = max(progress.best, found.ao)
            self.display.say(
                f"epoch {number}: held-out IoU {found.iou:.3f}, average overlap {found.ao:.3f}, above 0.5 "
                f"{found.success50:.0%}; a box in the middle has {found.center:.3f}"
            )
        if isinstance(self.train, PairSampler) and any(self.train.totals().values()):
            counts = ", ".join(f"{count} {what}" for what, count in self.train.totals().items() if count)
            self.display.say(f"epoch {number}: replaced so far: {counts}", "yellow")
        self._log(means)
        progress.epoch, progress.step = number, 0
        if self.first:  # before the state: a run interrupted in between repeats the end of the epoch
            state.export(self.exported, self.folder, best=better)
        self._save()

    def _save(self) -> None:
        if self.first:
            state.save_state(self.folder, self.config, self.stepper, self.progress)

    def _write_config(self) -> None:
        atomic_write(self.folder / state.CONFIG, json.dumps(self.config.to_dict(), indent=1) + "\n")
