"""A monitor of training that draws a bar on stderr: loss, error rate, speed and time left."""

from __future__ import annotations

import time
from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from asr.training.checkpoints import Progress as Place
from asr.training.configuration import Recipe
from asr.training.loop import Step
from asr.training.validation import Validation


class ProgressBar:
    """Shows one epoch's bar on a terminal, and a line for each validation everywhere."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._bar = Progress(
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(),
            TextColumn("{task.completed}/{task.total}  {task.fields[figures]}"),
            TimeRemainingColumn(),
            console=self._console,
        )
        self._task = self._bar.add_task("training", total=None, epoch=0, figures="")
        self._seconds = 0.0
        self._began = time.monotonic()
        self._error_rate = ""
        self._drawn = False

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        if self._drawn:
            self._bar.stop()

    def started(self, recipe: Recipe, parameters: dict[str, int], dropped: str, batches: int, progress: Place) -> None:
        """Say what is trained, and begin to draw."""
        self._bar.start()
        self._drawn = True
        counts = ", ".join(f"{part} {count:,}" for part, count in parameters.items())
        self._console.print(
            f"{recipe.name}: {sum(parameters.values()):,} parameters ({counts}), {batches} batches an epoch, {progress.precision}"
        )
        if dropped:
            self._console.print(f"left out: {dropped}")
        if progress.step:
            self._console.print(f"goes on at epoch {progress.epoch}, batch {progress.batch}, step {progress.step}")

    def stepped(self, step: Step, batch: int, batches: int) -> None:
        """Move the bar."""
        self._seconds += step.audio_seconds
        speed = self._seconds / max(time.monotonic() - self._began, 1e-9)
        figures = f"loss {step.loss:.3f}{self._error_rate}  {speed:.0f} s of audio/s"
        self._bar.update(self._task, completed=batch, total=batches, epoch=step.epoch, figures=figures)

    def validated(self, validation: Validation, checkpoint: Path) -> None:
        """Print the validation's figures."""
        ctc = f", CTC {100 * validation.ctc_error_rate:.2f} %" if validation.ctc_error_rate == validation.ctc_error_rate else ""
        self._error_rate = f"  error rate {100 * validation.error_rate:.1f} %"
        self._console.print(
            f"epoch {validation.epoch}, step {validation.step}: validation loss {validation.loss:.3f}, "
            f"error rate {100 * validation.error_rate:.2f} %{ctc}, "
            f"length {100 * validation.length_ratio:.0f} % of the reference's"
        )

    def noticed(self, message: str) -> None:
        """Print the message."""
        self._console.print(message, highlight=False, soft_wrap=True)
