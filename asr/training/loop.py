"""The training loop, from recipe to checkpoint, to be read from top to bottom.

Every step draws its random numbers from (seed, step, rank) alone, and every batch follows from (seed, epoch, place).
So a run that was stopped anywhere continues with the same numbers as if it had never stopped.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs, ProjectConfiguration

from asr.audio.augmentation import SpecAugment, WaveformAugmentation
from asr.corpora import manifests
from asr.corpora.batches import Batch, BatchLoader, select
from asr.exceptions import TrainingError
from asr.model.device import choose_device, slow_bfloat16
from asr.model.precision import choose_for_training
from asr.model.recognizer import Recognizer
from asr.search.language import heard_languages
from asr.search.realignment import unsaid
from asr.text.tokenizer import BytePairTokenizer
from asr.training import checkpoints, curves, log
from asr.training.beginning import build
from asr.training.checkpoints import Progress
from asr.training.configuration import Recipe
from asr.training.encoder_cache import EncoderCache
from asr.training.imitation import Teacher
from asr.training.nonspeech import add_nonspeech
from asr.training.objective import Objective, encoded_targets, fits, moved
from asr.training.optimization import hasten_rows, make_optimizer, set_learning_rate
from asr.training.spoken_text import Heard, SpokenText
from asr.training.validation import Validation, validate, validation_loader

_READABLE = 0.95


@dataclass(frozen=True)
class Step:
    """One optimiser step, as the log keeps it."""

    epoch: int
    step: int
    loss: float
    attention: float
    ctc: float
    nonautoregressive: float
    encoder: float
    learning_rate: float
    gradient_norm: float
    audio_seconds: float


class Monitor(Protocol):
    """Who wants to see how training goes: the command line's progress bar, a test."""

    def started(self, recipe: Recipe, parameters: dict[str, int], dropped: str, batches: int, progress: Progress) -> None:
        """Training begins, or goes on from ``progress``."""

    def stepped(self, step: Step, batch: int, batches: int) -> None:
        """A step is done."""

    def validated(self, validation: Validation, checkpoint: Path) -> None:
        """A validation is done."""

    def noticed(self, message: str) -> None:
        """Something is not as the user may expect, in one sentence."""


def train(recipe: Recipe, monitor: Monitor | None = None, resume: bool = False) -> Path:
    """Train a recipe.

    Args:
        recipe: what to train.
        monitor: told of each step and validation, on the main process only.
        resume: go on from the run's last checkpoint; without one, begin.

    Returns:
        The folder of the run.

    Raises:
        TrainingError: the folder holds a run already or cannot be written to, the run to go on with has another model,
            nothing is left to train on, or ten losses in a row were not finite.
        CorpusError, ConfigurationError, CheckpointError: the data, the recipe or a checkpoint are not valid.
        AudioError: a file of the data cannot be read any more.
    """
    settings = recipe.training
    run = Path(recipe.output)
    earlier = checkpoints.last(run)
    if earlier is not None and not resume:
        raise TrainingError(f"{run}: holds a run already; go on with --resume or choose another output.")

    # A head that the loss leaves out has no gradient that the ranks could wait for, nor has a batch of alignment lengths.
    second = recipe.model_configuration().nonautoregressive
    mixed = second is not None and "alignment" in second.lengths and len(second.lengths) > 1
    idle = settings.ctc_weight in (0, 1) or settings.nonautoregressive_weight == 0 or mixed
    device = choose_device(settings.device)
    precision = choose_for_training(settings.precision, device)
    # accelerate remembers the first run's precision and device for the life of the process; this may be the second.
    AcceleratorState._reset_state(reset_partial_state=True)
    accelerator = Accelerator(
        mixed_precision="bf16" if precision == "bfloat16" else "no",
        cpu=device == "cpu",
        log_with="tensorboard",
        project_config=ProjectConfiguration(project_dir=str(run)),
        # Batch normalisation's statistics are those of rank 0.
        kwargs_handlers=[DistributedDataParallelKwargs(broadcast_buffers=True, find_unused_parameters=idle)],
    )
    torch.manual_seed(settings.seed)

    # Data, tokenizer and model.
    cuts = manifests.load_all(recipe.data.train)
    checkpoint = build(recipe, cuts, earlier)
    model, tokenizer, ctc_tokenizer = checkpoint.model, checkpoint.tokenizer, checkpoint.ctc_tokenizer
    decoder = model.decoder
    start = decoder.configuration.prompt if decoder else ()
    longest = decoder.configuration.maximum_length if decoder else None
    if model.nonautoregressive is not None:
        # Its rows have a stop token where the other decoder's have a prompt.
        longest = min(longest or 10**9, model.nonautoregressive.configuration.maximum_length)

    def fits_positions(positions: int, text: str) -> bool:
        labels = ctc_tokenizer.encode(text)
        prompt = max(len(start), 1)
        return fits(positions if settings.ctc_weight else 10**9, labels, longest, prompt, tokenizer.encode(text))

    def fits_seconds(seconds: float, text: str) -> bool:
        # Augmentation makes some copies shorter: the text must fit the fastest of them.
        fastest = max(1.0, *recipe.data.augmentation.speed.factors)
        return fits_positions(model.positions(seconds / fastest), text)

    cuts, dropped = select(
        cuts, minimum_seconds=recipe.data.minimum_seconds, maximum_seconds=recipe.data.maximum_seconds, fits=fits_seconds
    )
    if not len(cuts):
        raise TrainingError(f"recipe {recipe.name}: no utterance is left to train on; check data.minimum_seconds and texts.")
    augmentation = WaveformAugmentation(recipe.data.augmentation)
    loader = BatchLoader(
        cuts,
        maximum_seconds=recipe.data.batch_seconds,
        shuffle=True,
        seed=settings.seed,
        rank=accelerator.process_index,
        world_size=accelerator.num_processes,
        workers=recipe.data.workers,
        augmentation=augmentation,
        undisturbed=augmentation.at_speed if settings.imitation else None,
    )
    held_out = validation_loader(recipe, accelerator)

    # Objective, optimiser and schedule.
    spec_augment = SpecAugment(recipe.data.augmentation.spec_augment)
    objective = Objective(
        model,
        ctc_tokenizer.blank,
        settings.ctc_weight,
        settings.label_smoothing,
        spec_augment,
        settings.nonautoregressive_weight,
        settings.length_weight,
        settings.unheard,
        settings.misread,
        unsaid(model.nonautoregressive, tokenizer) if model.nonautoregressive else (),
        Teacher.load(settings.imitation, checkpoint, accelerator.device) if settings.imitation else None,
    )
    optimizer = make_optimizer(model, settings, settings.learning_rates)
    if settings.added_tokens_rate != 1:
        if decoder is None or not isinstance(tokenizer, BytePairTokenizer) or not tokenizer.added:
            raise TrainingError(
                f"recipe {recipe.name}: training.added_tokens_rate is {settings.added_tokens_rate:g}, but the model has "
                "no tokens that asr adapt-vocabulary --merge added; initialize from one that has, or leave it out."
            )
        rows = slice(tokenizer.added.start, tokenizer.added.stop)
        hasten_rows(optimizer, decoder.get_parameter("token_embedding.weight"), rows, settings.added_tokens_rate)
    wrapped, optimizer = accelerator.prepare(objective, optimizer)
    # The optimiser knows which of the encoder's layers are not trained.
    known = EncoderCache(Path(settings.encoder_cache), model) if settings.encoder_cache else None
    text = SpokenText(recipe.data.text, model, settings.seed, fits_positions) if recipe.data.text else None

    def order(epoch: int) -> str:
        """What an epoch's batches are, of speech and of text."""
        return loader.order(epoch) + (text.digest if text else "")

    batches = loader.count(0)
    steps_in_all = settings.epochs * math.ceil(batches / settings.accumulation)

    progress = Progress(precision=precision)
    messages = [message] if (message := slow_bfloat16(settings.precision, device)) else []
    if text is not None and text.readable < _READABLE:
        messages.append(f"of the sentences of data.text, {100 * text.readable:.0f} % can be pronounced; the others are left out.")
    if known_codes := heard_languages(model.configuration, tokenizer):
        codes = {supervision.language for cut in cuts for supervision in cut.supervisions if supervision.language}
        if unknown := sorted(codes - known_codes.keys()):
            messages.append(f"has no token for the languages {', '.join(unknown)} of utterances; its own is asked for there.")
    if earlier is not None:
        progress = checkpoints.read_progress(earlier)
        if progress.batch and progress.order and progress.order != order(progress.epoch):
            # Its place would be another one's.
            messages.append(f"the data or their batches are not those of before; epoch {progress.epoch} begins again.")
            progress = replace(progress, batch=0)
        if progress.precision not in ("", precision):
            messages.append(f"was computed in {progress.precision} and goes on in {precision}; training.precision sets it.")
        progress = replace(progress, precision=precision)
        checkpoints.restore_optimizer(optimizer.optimizer, model, checkpoints.read_optimizer(earlier))
    if accelerator.is_main_process:
        checkpoints.write_recipe(recipe, run)
        accelerator.init_trackers("tensorboard")
        log.truncate(run / "log.jsonl", progress.step)
        if monitor:
            monitor.started(recipe, model.parameter_counts(), _describe(dropped), batches, progress)
            for message in messages:
                monitor.noticed(f"{run}: {message}")
    accelerator.wait_for_everyone()

    def save(metrics: dict[str, float] | None) -> Path:
        folder = run / "checkpoints" / f"step-{progress.step:08d}"
        if accelerator.is_main_process:
            state = checkpoints.optimizer_tensors(optimizer.optimizer, model)
            card = _card(recipe, model, progress, metrics)
            checkpoints.write(run, checkpoint, card, progress, state, metrics, settings.keep_best)
        accelerator.wait_for_everyone()
        return folder

    # The loop.
    base = progress.seconds
    began = saved = time.monotonic()
    for epoch in range(progress.epoch, settings.epochs):
        wrapped.train()
        if not any(each.requires_grad for each in model.encoder.parameters()):
            # What is not trained shall say what it says in use: without dropout, and with the statistics that it has.
            model.encoder.eval()
        skip = progress.batch if epoch == progress.epoch else 0
        batches = loader.count(epoch)
        for first, group in _grouped(loader.epoch(epoch, skip), skip, settings.accumulation):
            factor = set_learning_rate(optimizer, settings, progress.step + 1, steps_in_all)
            random = _random(settings.seed, progress.step, accelerator.process_index)
            totals = [0.0] * 5
            seconds = 0.0
            place = progress.step * accelerator.num_processes + accelerator.process_index
            pieces = [*group, *(text.batches(place, random.numpy) if text else ())]
            for index, piece in enumerate(pieces):
                inputs: dict[str, Any] = {"waveforms": None, "lengths": None}
                languages: tuple[str, ...] = ()
                if isinstance(piece, Heard):
                    samples, inputs["lower"] = piece.samples, piece.lower.to(accelerator.device)
                else:
                    piece = add_nonspeech(piece, recipe.data.nonspeech, random.numpy)
                    samples, languages = piece.lengths, piece.languages
                    seconds += float(samples.sum()) / 16_000
                    inputs = {"waveforms": piece.waveforms.to(accelerator.device), "lengths": samples.to(accelerator.device)}
                    inputs["lower"] = known.read(piece, accelerator.device) if known else None
                    inputs["undisturbed"] = None if piece.undisturbed is None else piece.undisturbed.to(accelerator.device)
                wanted = encoded_targets(checkpoint, piece.texts, samples, random.torch, settings.unheard, languages)
                # Gradients of all ranks are exchanged once a step, with the last batch.
                with accelerator.no_sync(wrapped) if index < len(pieces) - 1 else nullcontext(), accelerator.autocast():
                    losses = wrapped(targets=moved(wanted, accelerator.device), generator=random.torch, **inputs)
                    accelerator.backward(losses.total / len(pieces))
                values = (losses.total, losses.attention, losses.ctc, losses.nonautoregressive, losses.encoder)
                for number, value in enumerate(values):
                    totals[number] += float(value.detach()) / len(pieces)
            norm = float(torch.nn.utils.clip_grad_norm_(model.parameters(), settings.clip))
            # Gradients are averaged over ranks, so all of them come to the same conclusion here.
            finite = math.isfinite(norm)
            if finite:
                optimizer.step()
            optimizer.zero_grad()
            spent = base + time.monotonic() - began
            progress = progress.after_step(recipe.name, finite, epoch, first + len(group), order(epoch), spent)
            rate = settings.learning_rate * factor
            loss, attention, ctc, masked, apart = totals
            step = Step(epoch, progress.step, loss, attention, ctc, masked, apart, rate, norm, seconds)
            if accelerator.is_main_process:
                log.append(run / "log.jsonl", step)
                accelerator.log({"loss": step.loss, "learning_rate": step.learning_rate}, step=step.step)
                if monitor:
                    monitor.stepped(step, progress.batch, batches)
            late = settings.maximum_hours is not None and progress.seconds > 3600 * settings.maximum_hours
            # Every rank follows the main process's clock, or they would wait for each other for ever.
            due = time.monotonic() - saved > 60 * settings.checkpoint_minutes
            late, due = _agreed(accelerator, late, due)
            if late:
                break
            if due:
                save(None)
                if accelerator.is_main_process:
                    curves.draw(run / "log.jsonl", run / "curves.png", recipe.name)
                saved = time.monotonic()

        ended = progress.batch >= batches
        if ended:
            progress = replace(progress, epoch=epoch + 1, batch=0)
        finished = epoch + 1 == settings.epochs or not ended
        if finished or (epoch + 1) % settings.validate_every == 0:
            figures = validate(objective, checkpoint, held_out, accelerator, epoch, progress.step)
            folder = save(asdict(figures))
            if accelerator.is_main_process:
                log.append(run / "log.jsonl", figures)
                accelerator.log({"validation_error_rate": figures.error_rate}, step=figures.step)
                curves.draw(run / "log.jsonl", run / "curves.png", recipe.name)
                if monitor:
                    monitor.validated(figures, folder)
            saved = time.monotonic()
        if not ended:
            break
    accelerator.end_training()
    return run


def _grouped(batches: Iterator[Batch], first: int, size: int) -> Iterator[tuple[int, list[Batch]]]:
    """Batches of an optimiser's step, with the place of the first; the last group of an epoch may be smaller."""
    group: list[Batch] = []
    for batch in batches:
        group.append(batch)
        if len(group) == size:
            yield first, group
            first, group = first + size, []
    if group:
        yield first, group


@dataclass(frozen=True)
class _Random:
    numpy: np.random.Generator
    torch: torch.Generator


def _random(seed: int, step: int, rank: int) -> _Random:
    """Random numbers of one step on one rank; dropout draws from torch's global generator."""
    values = np.random.SeedSequence((seed, step, rank)).generate_state(3)
    torch.manual_seed(int(values[0]))
    generator = torch.Generator().manual_seed(int(values[1]))
    return _Random(np.random.default_rng(int(values[2])), generator)


def _agreed(accelerator: Accelerator, *flags: bool) -> list[bool]:
    if accelerator.num_processes == 1:
        return list(flags)
    from accelerate.utils import broadcast_object_list

    return cast(list[bool], broadcast_object_list(list(flags)))


def _describe(dropped: Any) -> str:
    reasons = {key.replace("_", " "): count for key, count in asdict(dropped).items() if count}
    return ", ".join(f"{count} {reason}" for reason, count in reasons.items())


def _card(recipe: Recipe, model: Recognizer, progress: Progress, metrics: dict[str, float] | None) -> str:
    counts = ", ".join(f"{part} {count:,}" for part, count in model.parameter_counts().items())
    lines = [
        f"# {recipe.name}",
        "",
        f"- Trained by `asr train`, {progress.step} steps, {progress.seconds / 3600:.2f} hours, {progress.precision}.",
        f"- Parameters: {counts}.",
        f"- Initialised from: {Path(recipe.initialize).name if recipe.initialize else 'random numbers'}.",
        f"- Training data: {', '.join(Path(path).name for path in recipe.data.train)}.",
    ]
    if metrics:
        lines.append(f"- Validation: error rate {100 * metrics['error_rate']:.2f} %, greedy.")
    return "\n".join(lines) + "\n"
