"""Train a Transformer language model on plain text: the loop, to be read from top to bottom.

As in ``asr.training.loop``, every step draws its random numbers from (seed, step) alone and every batch follows from
(seed, epoch, place), so that a run that was stopped anywhere continues as if it had never stopped. One process trains.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from asr import pretrained
from asr.exceptions import ConfigurationError, TrainingError
from asr.model import checkpoint as model_folder
from asr.model import language_model as language_model_folder
from asr.model.device import choose_device, slow_bfloat16
from asr.model.language_model import LanguageModelCheckpoint, LanguageModelConfiguration, TransformerLanguageModel
from asr.model.precision import choose_for_training
from asr.text.tokenizer import CharacterTokenizer, Tokenizer
from asr.training import checkpoints, curves, log
from asr.training.checkpoints import Progress
from asr.training.configuration import LanguageModelRecipe
from asr.training.optimization import make_optimizer, set_learning_rate
from asr.training.texts import lines

# Lines of similar length are looked for among so many batches' worth of lines that are neighbours in an epoch's order.
_BATCHES_SORTED = 50
_IGNORED = -100

Text = NDArray[np.int32]


@dataclass(frozen=True)
class Step:
    """One optimiser step, as the log keeps it; ``loss`` in nats a token."""

    epoch: int
    step: int
    loss: float
    learning_rate: float
    gradient_norm: float
    tokens: int


@dataclass(frozen=True)
class Validation:
    """How well the text that was held out is foreseen; ``loss`` in nats a token, stop tokens included."""

    epoch: int
    step: int
    loss: float
    perplexity: float
    seconds: float


def train(recipe: LanguageModelRecipe, report: Callable[[str], None] | None = None, resume: bool = False) -> Path:
    """Train a recipe.

    Args:
        recipe: what to train.
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

    # Text, tokenizer and model.
    texts = [line for line in lines([Path(path) for path in recipe.data.train]) if line]
    held_out = [line for line in lines([Path(path) for path in recipe.data.validation]) if line]
    if not recipe.data.validation:
        held_out = texts[recipe.data.held_out - 1 :: recipe.data.held_out]
        texts = [line for place, line in enumerate(texts, start=1) if place % recipe.data.held_out]
    if not texts or not held_out:
        where = "train" if not texts else "validation" if recipe.data.validation else "held_out"
        raise TrainingError(f"recipe {recipe.name}: data.{where} leaves no line of text; give more text.")
    checkpoint = _build(recipe, texts, earlier)
    model, tokenizer = checkpoint.model.to(device), checkpoint.tokenizer
    start, longest = tokenizer.identifier(model.configuration.start), model.configuration.maximum_length
    sequences = encode(texts, tokenizer, start, longest)
    validation = list(padded(encode(held_out, tokenizer, start, longest), recipe.data.batch_tokens))
    lengths = np.array([len(each) for each in sequences])
    digest = hashlib.sha256(np.concatenate(sequences).tobytes() + str(recipe.data.batch_tokens).encode()).hexdigest()[:16]
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
    tokens = int(lengths.sum()) - len(lengths)
    report(f"{recipe.name}: {parameters:,} parameters, {len(texts):,} lines, {tokens:,} tokens, {batches_an_epoch} batches")

    def save(metrics: dict[str, float] | None) -> Path:
        card = _card(recipe, tokenizer, parameters, len(texts), tokens, progress, metrics)
        state = checkpoints.optimizer_tensors(optimizer, model)
        return checkpoints.write(run, checkpoint, card, progress, state, metrics, settings.keep_best)

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
            rows = _pad([sequences[row] for row in order[place]]).to(device)
            with torch.autocast(device, torch.bfloat16) if precision == "bfloat16" else nullcontext():
                loss = cross_entropy(model, rows, settings.label_smoothing)
            loss.backward()  # type: ignore[no-untyped-call]
            norm = float(torch.nn.utils.clip_grad_norm_(model.parameters(), settings.clip))
            finite = math.isfinite(norm)
            if finite:
                optimizer.step()
            optimizer.zero_grad()
            seconds = base + time.monotonic() - began
            progress = progress.after_step(recipe.name, finite, epoch, place + 1, digest, seconds)
            rate, count = settings.learning_rate * factor, int((rows[:, 1:] != _IGNORED).sum())
            log.append(run / "log.jsonl", Step(epoch, progress.step, float(loss.detach()), rate, norm, count))
            late = settings.maximum_hours is not None and progress.seconds > 3600 * settings.maximum_hours
            if late:
                break
            if time.monotonic() - saved > 60 * settings.checkpoint_minutes:
                save(None)
                saved = time.monotonic()
        if not late:
            progress = replace(progress, epoch=epoch + 1, batch=0)
        loss_there = held_out_loss(model, validation)
        figures = Validation(epoch, progress.step, loss_there, math.exp(min(loss_there, 700)), progress.seconds)
        save({name: float(value) for name, value in asdict(figures).items()})
        log.append(run / "log.jsonl", figures)
        curves.draw_perplexity(run / "log.jsonl", run / "curves.png", recipe.name)
        report(f"epoch {epoch}, step {progress.step}: perplexity {figures.perplexity:.2f} a token of {len(held_out):,} lines")
        saved = time.monotonic()
        if late:
            break
    return checkpoints.best(run)[0]


def encode(texts: Iterable[str], tokenizer: Tokenizer, start: int, longest: int) -> list[Text]:
    """Start token, tokens and stop token of each text, int32 (length,); of a text that is too long only its beginning."""
    return [np.array([start, *tokenizer.encode(text), tokenizer.stop][:longest], dtype=np.int32) for text in texts]


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
        yield _pad([sequences[row] for row in rows])


def cross_entropy(model: TransformerLanguageModel, rows: Tensor, label_smoothing: float = 0.0, reduction: str = "mean") -> Tensor:
    """Cross-entropy of each token after those before it.

    Args:
        model: reads ``rows``.
        rows: int64 (batch, length), filled up with -100.
        label_smoothing: share of probability that goes to all tokens alike.
        reduction: ``mean`` or ``sum`` over all tokens.
    """
    logits = model(rows[:, :-1].clamp(min=0))
    wanted = rows[:, 1:].flatten()
    return F.cross_entropy(
        logits.flatten(0, 1), wanted, ignore_index=_IGNORED, label_smoothing=label_smoothing, reduction=reduction
    )


@torch.inference_mode()
def held_out_loss(model: TransformerLanguageModel, validation: Iterable[Tensor]) -> float:
    """Mean negative log-probability of a token, in nats, over batches int64 (batch, length)."""
    model.eval()
    device = next(model.parameters()).device
    total, count = 0.0, 0
    for rows in validation:
        total += float(cross_entropy(model, rows.to(device), reduction="sum"))
        count += int((rows[:, 1:] != _IGNORED).sum())
    return total / count


def _build(recipe: LanguageModelRecipe, texts: list[str], earlier: Path | None) -> LanguageModelCheckpoint:
    """The model to train: of the earlier part of this run, or new."""
    settings = recipe.language_model
    if earlier is not None:
        found = language_model_folder.load(earlier)
        same = {"tokenizer", "start"} if recipe.model is not None else set()
        before, now = (each.model_dump(exclude=same) for each in (found.model.configuration, settings))
        if before != now:
            key = next(key for key in now if now[key] != before[key])
            raise TrainingError(
                f"{recipe.output}: was begun with language_model.{key} {before[key]} and not {now[key]}; choose another output."
            )
        return found
    if recipe.model is not None:
        parent, tokenizer = model_folder.describe(pretrained.find(recipe.model))
        start = parent.decoder.prompt[0] if parent.decoder is not None else settings.start
        settings = settings.model_copy(update={"tokenizer": parent.tokenizer, "start": start})
        return _new(settings, tokenizer)
    if settings.tokenizer.kind != "character":
        raise ConfigurationError(
            f"recipe {recipe.name}: language_model.tokenizer.kind is {settings.tokenizer.kind}, whose vocabulary is not made "
            "from text; name a model that has it, as model: en."
        )
    return _new(settings, CharacterTokenizer.build(texts, settings.tokenizer))


def _new(settings: LanguageModelConfiguration, tokenizer: Tokenizer) -> LanguageModelCheckpoint:
    return LanguageModelCheckpoint(TransformerLanguageModel(settings, len(tokenizer)), tokenizer)  # type: ignore[arg-type]


def _parts(order: NDArray[np.int64], size: int) -> Iterator[NDArray[np.int64]]:
    for first in range(0, len(order), size):
        yield order[first : first + size]


def _pad(sequences: list[Text]) -> Tensor:
    rows = torch.full((len(sequences), max(len(each) for each in sequences)), _IGNORED)
    for row, each in enumerate(sequences):
        rows[row, : len(each)] = torch.from_numpy(each)
    return rows


def _card(
    recipe: LanguageModelRecipe,
    tokenizer: Tokenizer,
    parameters: int,
    texts: int,
    tokens: int,
    progress: Progress,
    metrics: dict[str, float] | None,
) -> str:
    whose = f"those of {Path(recipe.model).name}" if recipe.model else "characters of the text"
    rows = [
        f"# {recipe.name}: a language model",
        "",
        "- For `--language-model` of a recogniser that writes the same tokens.",
        f"- Trained by `asr train-lm`, {progress.step} steps, {progress.seconds / 3600:.2f} hours, {progress.precision}.",
        f"- Parameters: {parameters:,}; tokens: {len(tokenizer):,}, {whose}.",
        f"- Training text: {', '.join(Path(path).name for path in recipe.data.train)}; {texts:,} lines, {tokens:,} tokens.",
    ]
    if metrics:
        source = ", ".join(Path(path).name for path in recipe.data.validation) or f"one line of {recipe.data.held_out}, held out"
        rows.append(f"- Validation ({source}): perplexity {metrics['perplexity']:.2f} a token.")
    return "\n".join(rows) + "\n"
