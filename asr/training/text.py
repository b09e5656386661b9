"""Train a model on plain text, of language or of punctuation: the loop, to be read from top to bottom.

As in ``asr.training.loop``, every step draws its random numbers from (seed, step) alone and every batch follows from
(seed, epoch, place), so that a run that was stopped anywhere continues as if it had never stopped. One process trains.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from asr.configuration import StrictModel
from asr.exceptions import TrainingError
from asr.model.device import choose_device, slow_bfloat16
from asr.model.precision import choose_for_training
from asr.training import checkpoints, curves, log
from asr.training.checkpoints import Progress
from asr.training.configuration import TextRecipe
from asr.training.optimization import make_optimizer, set_learning_rate
from asr.training.texts import lines

# Lines of similar length are looked for among so many batches' worth of lines that are neighbours in an epoch's order.
_BATCHES_SORTED = 50
IGNORED = -100

Text = NDArray[np.int32]


@dataclass(frozen=True)
class Step:
    """One optimiser step, as the log keeps it; ``loss`` in nats an answer."""

    epoch: int
    step: int
    loss: float
    learning_rate: float
    gradient_norm: float
    tokens: int


@dataclass(frozen=True)
class Validation:
    """How well the text that was held out is foreseen; ``loss`` in nats an answer (a token, or the mark behind a character)."""

    epoch: int
    step: int
    loss: float
    perplexity: float
    seconds: float


class Task(Protocol):
    """What is learned of a text."""

    @property
    def checkpoint(self) -> Any:
        """The model with its tokenizer, as a folder holds them."""

    @property
    def unit(self) -> str:
        """What has a loss: ``token`` or ``character``."""

    def sequences(self, texts: Iterable[str]) -> list[Text]:
        """The texts in numbers, each int32 (length,)."""

    def loss(self, rows: Tensor, label_smoothing: float = 0.0, reduction: str = "mean") -> Tensor:
        """Loss of sequences int64 (batch, length), filled up with -100."""

    def asked(self, rows: Tensor) -> int:
        """How many answers such sequences ask for, each of which has a loss."""

    def card(self, texts: int, answers: int, progress: Progress, metrics: dict[str, float] | None) -> str:
        """Text of the model card."""


def train(
    recipe: TextRecipe,
    begin: Callable[[list[str], Path | None], Task],
    report: Callable[[str], None] | None = None,
    resume: bool = False,
) -> Path:
    """Train a recipe.

    Args:
        recipe: what to train.
        begin: given the lines of text and the last checkpoint of the run if it goes on, the task with its model.
        report: told in one sentence what begins and what each validation found.
        resume: go on from the run's last checkpoint; without one, begin.

    Returns:
        The folder of the best checkpoint.

    Raises:
        TrainingError: the folder holds a run already or cannot be written to, a text cannot be read, nothing is left to
            train on, or ten losses in a row were not finite.
        ConfigurationError, CheckpointError: the recipe or a checkpoint are not valid.
    """
    settings = recipe.training
    run = Path(recipe.output)
    report = report or (lambda _: None)
    earlier = checkpoints.last(run)
    if earlier is not None and not resume:
        raise TrainingError(f"{run}: holds a run already; go on with --resume or choose another output.")
    device = choose_device(settings.device)
    precision = choose_for_training(settings.precision, device)
    if message := slow_bfloat16(settings.precision, device):
        report(message)
    torch.manual_seed(settings.seed)

    # Text and model.
    texts = [line for line in lines([Path(path) for path in recipe.data.train]) if line]
    held_out = [line for line in lines([Path(path) for path in recipe.data.validation]) if line]
    if not recipe.data.validation:
        held_out = texts[recipe.data.held_out - 1 :: recipe.data.held_out]
        texts = [line for place, line in enumerate(texts, start=1) if place % recipe.data.held_out]
    if not texts or not held_out:
        where = "train" if not texts else "validation" if recipe.data.validation else "held_out"
        raise TrainingError(f"recipe {recipe.name}: data.{where} leaves no line of text; give more text.")
    task = begin(texts, earlier)
    model = task.checkpoint.model.to(device)
    sequences, others = task.sequences(texts), task.sequences(held_out)
    if not sequences or not others:
        where = "train" if not sequences else "validation"
        raise TrainingError(f"recipe {recipe.name}: the lines of data.{where} hold nothing to learn from; give other text.")
    validation = list(padded(others, recipe.data.batch_tokens))
    lengths = np.array([len(each) for each in sequences])
    order_of = np.concatenate([*sequences, lengths, [recipe.data.batch_tokens]]).astype(np.int64)
    digest = hashlib.sha256(order_of.tobytes()).hexdigest()[:16]
    optimizer = make_optimizer(model, settings)
    batches_an_epoch = len(batches(lengths, recipe.data.batch_tokens, settings.seed, 0))
    steps_in_all = settings.epochs * batches_an_epoch

    progress = Progress(precision=precision)
    if earlier is not None:
        progress = replace(checkpoints.read_progress(earlier), precision=precision)
        if progress.batch and progress.order != digest:
            report(f"{run}: the text or its batches are not those of before; epoch {progress.epoch} begins again.")
            progress = replace(progress, batch=0)
        checkpoints.restore_optimizer(optimizer, model, checkpoints.read_optimizer(earlier))
    checkpoints.write_recipe(recipe, run)
    log.truncate(run / "log.jsonl", progress.step)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    tokens = sum(task.asked(rows) for rows in padded(sequences, recipe.data.batch_tokens))
    report(f"{recipe.name}: {parameters:,} parameters, {len(texts):,} lines, {tokens:,} {task.unit}s, {batches_an_epoch} batches")

    def save(metrics: dict[str, float] | None) -> Path:
        card = task.card(len(texts), tokens, progress, metrics)
        state = checkpoints.optimizer_tensors(optimizer, model)
        return checkpoints.write(run, task.checkpoint, card, progress, state, metrics, settings.keep_best)

    # The loop.
    base = progress.seconds
    began = saved = time.monotonic()
    for epoch in range(progress.epoch, settings.epochs):
        model.train()
        order = batches(lengths, recipe.data.batch_tokens, settings.seed, epoch)
        late = False
        for place in range(progress.batch if epoch == progress.epoch else 0, len(order)):
            factor = set_learning_rate(optimizer, settings, progress.step + 1, steps_in_all)
            torch.manual_seed(int(np.random.SeedSequence((settings.seed, progress.step)).generate_state(1)[0]))
            rows = pad([sequences[row] for row in order[place]]).to(device)
            with torch.autocast(device, torch.bfloat16) if precision == "bfloat16" else nullcontext():
                loss = task.loss(rows, settings.label_smoothing)
            loss.backward()  # type: ignore[no-untyped-call]
            norm = float(torch.nn.utils.clip_grad_norm_(model.parameters(), settings.clip))
            finite = math.isfinite(norm)
            if finite:
                optimizer.step()
            optimizer.zero_grad()
            seconds = base + time.monotonic() - began
            progress = progress.after_step(recipe.name, finite, epoch, place + 1, digest, seconds)
            rate, count = settings.learning_rate * factor, task.asked(rows)
            log.append(run / "log.jsonl", Step(epoch, progress.step, float(loss.detach()), rate, norm, count))
            late = settings.maximum_hours is not None and progress.seconds > 3600 * settings.maximum_hours
            if late:
                break
            if time.monotonic() - saved > 60 * settings.checkpoint_minutes:
                save(None)
                saved = time.monotonic()
        if not late:
            progress = replace(progress, epoch=epoch + 1, batch=0)
        loss_there = held_out_loss(task, validation)
        figures = Validation(epoch, progress.step, loss_there, math.exp(min(loss_there, 700)), progress.seconds)
        save({name: float(value) for name, value in asdict(figures).items()})
        log.append(run / "log.jsonl", figures)
        curves.draw_perplexity(run / "log.jsonl", run / "curves.png", recipe.name)
        report(
            f"epoch {epoch}, step {progress.step}: perplexity {figures.perplexity:.2f} a {task.unit} of {len(held_out):,} lines"
        )
        saved = time.monotonic()
        if late:
            break
    return checkpoints.best(run)[0]


def check_same(recipe: TextRecipe, key: str, before: StrictModel, now: StrictModel, aside: Collection[str] = ()) -> None:
    """Refuse to go on with another model than the run began with; ``aside`` are settings that are not the recipe's.

    Raises:
        TrainingError: a setting is another.
    """
    was, wanted = (each.model_dump(exclude=set(aside)) for each in (before, now))
    if other := [name for name in wanted if wanted[name] != was[name]]:
        name = other[0]
        raise TrainingError(
            f"{recipe.output}: was begun with {key}.{name} {was[name]} and not {wanted[name]}; choose another output."
        )


def batches(lengths: NDArray[np.int64], tokens: int, seed: int, epoch: int) -> list[NDArray[np.int64]]:
    """Rows of each batch of an epoch: texts of similar length, ``tokens`` with padding at most or one text.

    Args:
        lengths: int64 (texts,).
        tokens: of a batch.
        seed: of the run.
        epoch: from 0.
    """
    generator = np.random.default_rng((seed, epoch))
    order = generator.permutation(len(lengths))
    pool = max(1, int(_BATCHES_SORTED * tokens / max(lengths.mean(), 1)))
    order = np.concatenate([part[np.argsort(lengths[part], kind="stable")] for part in _parts(order, pool)])
    found, first = [], 0
    for place in range(len(order)):
        most = int(lengths[order[first : place + 1]].max())
        if place > first and most * (place + 1 - first) > tokens:
            found.append(order[first:place])
            first = place
    found.append(order[first:])
    return [found[number] for number in generator.permutation(len(found))]


def padded(sequences: list[Text], tokens: int) -> Iterator[Tensor]:
    """All sequences in batches as ``batches`` makes them, int64 (batch, length)."""
    for rows in batches(np.array([len(each) for each in sequences]), tokens, 0, 0):
        yield pad([sequences[row] for row in rows])


def pad(sequences: list[Text]) -> Tensor:
    """Sequences as rows int64 (batch, longest), filled up with -100."""
    rows = torch.full((len(sequences), max(len(each) for each in sequences)), IGNORED)
    for row, each in enumerate(sequences):
        rows[row, : len(each)] = torch.from_numpy(each)
    return rows


@torch.inference_mode()
def held_out_loss(task: Task, validation: Iterable[Tensor]) -> float:
    """Mean negative log-probability of an answer, in nats, over batches int64 (batch, length)."""
    model = task.checkpoint.model.eval()
    device = next(model.parameters()).device
    total, count = 0.0, 0
    for rows in validation:
        total += float(task.loss(rows.to(device), reduction="sum"))
        count += task.asked(rows)
    return total / max(count, 1)


def _parts(order: NDArray[np.int64], size: int) -> Iterator[NDArray[np.int64]]:
    for first in range(0, len(order), size):
        yield order[first : first + size]
