"""Checkpoints of a run: written whole or not at all, the best and the last kept, averaged, resumed from.

A run's folder holds ``checkpoints/step-00001200/``: a model folder like any other, ``metrics.json`` where it was
validated and, in the last one only, the optimiser's state and the place in the data. No file is a pickle.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from asr import configuration as settings
from asr.exceptions import CheckpointError, TrainingError
from asr.model import checkpoint as model_folder
from asr.model import language_model as language_model_folder
from asr.model import punctuation as punctuation_folder
from asr.model.checkpoint import Storable
from asr.model.configuration import ModelConfiguration
from asr.model.storage import Storage, write_tensors

OPTIMIZER, PROGRESS, METRICS = "optimizer.safetensors", "progress.json", "metrics.json"
_UNFINISHED = ".unfinished-"
_MOST_SKIPPED_IN_A_ROW = 10


@dataclass(frozen=True)
class Progress:
    """The place of a run in its data and schedule; with the seed it determines all that follows.

    Attributes:
        epoch: number of the epoch, from 0.
        batch: batches of the epoch that are done.
        step: optimiser steps done.
        seconds: time spent so far, of all runs together.
        skipped: steps left out because the loss or gradient was not finite.
        skipped_in_a_row: of these, how many were the last ones.
        order: digest of the epoch's utterances in their batches, which ``batch`` counts in.
        precision: float32 or bfloat16, that it is computed in; empty in older checkpoints.
    """

    epoch: int = 0
    batch: int = 0
    step: int = 0
    seconds: float = 0.0
    skipped: int = 0
    skipped_in_a_row: int = 0
    order: str = ""
    precision: str = ""

    def after_step(self, recipe: str, finite: bool, epoch: int, batch: int, order: str, seconds: float) -> Progress:
        """The place after one more step of a recipe, which was left out if its loss or gradient was not ``finite``.

        Raises:
            TrainingError: ten steps in a row were left out.
        """
        in_a_row = 0 if finite else self.skipped_in_a_row + 1
        if in_a_row >= _MOST_SKIPPED_IN_A_ROW:
            raise TrainingError(
                f"recipe {recipe}: {in_a_row} steps in a row had a loss or gradient that is not finite, the last at step "
                f"{self.step + 1}; lower training.learning_rate or look at the data."
            )
        return Progress(
            epoch, batch, self.step + 1, seconds, self.skipped + (not finite), in_a_row, order=order, precision=self.precision
        )


def write(
    run: Path,
    checkpoint: Storable,
    card: str,
    progress: Progress,
    optimizer: dict[str, Tensor],
    metrics: dict[str, float] | None,
    keep_best: int,
) -> Path:
    """Write a checkpoint of a run, then drop what is no longer needed.

    Everything goes to a folder with a temporary name, is flushed to the disk, and only then renamed: a reader finds a
    complete checkpoint or none, whenever the process or the machine stops.

    Args:
        run: folder of the run.
        checkpoint: model and tokenizer.
        card: text of the model card.
        progress: place in the data.
        optimizer: its state, as ``optimizer_tensors`` gives it.
        metrics: figures of a validation, or None.
        keep_best: how many validated checkpoints stay.

    Raises:
        CheckpointError: the disk is full or cannot be written to; the checkpoints before stay as they are.
    """
    try:
        return _write(run, checkpoint, card, progress, optimizer, metrics, keep_best)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(run / "checkpoints" / f"{_UNFINISHED}step-{progress.step:08d}", ignore_errors=True)
        reason = error.strerror if isinstance(error, OSError) else error
        raise CheckpointError(
            f"{run}: the checkpoint of step {progress.step} cannot be written ({reason}); make room and go on with --resume."
        ) from error


def _write(
    run: Path,
    checkpoint: Storable,
    card: str,
    progress: Progress,
    optimizer: dict[str, Tensor],
    metrics: dict[str, float] | None,
    keep_best: int,
) -> Path:
    folder = run / "checkpoints" / f"step-{progress.step:08d}"
    if (folder / PROGRESS).is_file() and (folder / OPTIMIZER).is_file():
        # The weights of a step are the same, so the folder stays and is complete at any time. Its place comes last:
        # until then the run goes on from before the validation.
        if metrics is not None:
            _replace(folder / METRICS, json.dumps(metrics, indent=1))
            _replace(folder / model_folder.CARD, card)
        _replace(folder / PROGRESS, json.dumps(asdict(progress), indent=1))
        _flush(folder)
        _prune(run, keep_best)
        return folder
    temporary = folder.parent / f"{_UNFINISHED}{folder.name}"
    shutil.rmtree(temporary, ignore_errors=True)
    model_folder.save(checkpoint, temporary, card)
    write_tensors(optimizer, temporary / OPTIMIZER)
    (temporary / PROGRESS).write_text(json.dumps(asdict(progress), indent=1), encoding="utf-8")
    if metrics is not None:
        (temporary / METRICS).write_text(json.dumps(metrics, indent=1), encoding="utf-8")
    for path in temporary.iterdir():
        _flush(path)
    _flush(temporary)
    temporary.rename(folder)
    _flush(folder.parent)
    _prune(run, keep_best)
    return folder


def last(run: Path) -> Path | None:
    """The last complete checkpoint that a run can be resumed from, or None."""
    found = [path for path in _folders(run) if (path / PROGRESS).is_file() and (path / OPTIMIZER).is_file()]
    return found[-1] if found else None


def best(run: Path, count: int = 1) -> list[Path]:
    """The checkpoints with the lowest validation error, or loss of a language model, best first."""
    validated = [(_badness(read_metrics(path)), path) for path in _folders(run) if (path / METRICS).is_file()]
    return [path for _, path in sorted(validated)[:count]]


def read_progress(folder: Path) -> Progress:
    """The place in the data that a checkpoint was written at."""
    return Progress(**json.loads((folder / PROGRESS).read_text(encoding="utf-8")))


def read_metrics(folder: Path) -> dict[str, float]:
    """Figures of a checkpoint's validation, empty if there was none."""
    path = folder / METRICS
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}


def read_optimizer(folder: Path) -> dict[str, Tensor]:
    """State of the optimiser.

    Raises:
        CheckpointError: the file is damaged.
    """
    try:
        return dict(load_file(folder / OPTIMIZER))
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{folder / OPTIMIZER}: cannot be read ({error}); resume without this folder.") from error


def optimizer_tensors(optimizer: torch.optim.Optimizer, model: nn.Module) -> dict[str, Tensor]:
    """State of an optimiser by ``parameter/quantity``."""
    names: dict[Tensor, str] = {parameter: name for name, parameter in model.named_parameters()}
    return {
        f"{names[parameter]}/{key}": torch.as_tensor(value).detach().cpu().contiguous()
        for parameter, state in optimizer.state.items()
        for key, value in state.items()
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, model: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Give an optimiser the state that ``optimizer_tensors`` took."""
    parameters = dict(model.named_parameters())
    state: dict[Tensor, dict[str, Any]] = {}
    for name, value in tensors.items():
        parameter_name, _, key = name.rpartition("/")
        parameter = parameters[parameter_name]
        # Counters of steps stay on the CPU, as the optimisers of torch keep them.
        state.setdefault(parameter, {})[key] = value if value.dim() == 0 else value.to(parameter.device)
    optimizer.state.update(state)


def average(folders: Sequence[Path], output: Path, weights: Sequence[float] | None = None, storage: Storage = "float32") -> None:
    """Average the weights of checkpoints of one model and write them as a checkpoint.

    Averaging the last or best epochs removes the noise of single steps (Polyak and Juditsky 1992); averaging a
    fine-tuned model with its parent keeps what the parent knew (WiSE-FT, Wortsman et al. 2022).

    Args:
        folders: checkpoint folders of equal configuration and vocabulary.
        output: folder to write.
        weights: share of each; equal if None.
        storage: type of the weights on disk.

    Raises:
        CheckpointError: the checkpoints do not fit together, or the shares are not one a folder with a sum of 1.
    """
    if not folders:
        raise CheckpointError("no checkpoint was given; name at least one folder to average.")
    shares = list(weights) if weights is not None else [1 / len(folders)] * len(folders)
    if len(shares) != len(folders) or abs(sum(shares) - 1) > 1e-6:
        raise CheckpointError(f"{len(shares)} weights for {len(folders)} checkpoints; give one each, with a sum of 1.")
    first = _load(folders[0])
    total = {name: value.double() * shares[0] for name, value in first.model.state_dict().items()}
    for folder, share in zip(folders[1:], shares[1:], strict=True):
        other = _load(folder)
        if other.tokenizer.tokens != first.tokenizer.tokens or other.model.state_dict().keys() != total.keys():
            raise CheckpointError(f"{folder}: is not the same kind of model as {folders[0]}; average one run's checkpoints.")
        for name, value in other.model.state_dict().items():
            if value.shape != total[name].shape:
                raise CheckpointError(f"{folder}: '{name}' has another shape than in {folders[0]}; average one run's.")
            total[name] += value.double() * share
    first.model.load_state_dict({name: value.float() for name, value in total.items()})
    parts = "\n".join(f"- {share:.4g} x `{folder.name}`" for folder, share in zip(folders, shares, strict=True))
    card = f"# {output.name}\n\nAverage of\n\n{parts}\n\n{_inherited(folders[0])}"
    model_folder.save(first, output, card, storage)
    _copy_beside(first, output)


def _copy_beside(checkpoint: Any, output: Path) -> None:
    """Copy the files that a recogniser's configuration names: its language models and punctuation model."""
    configuration = checkpoint.model.configuration
    for name in configuration.files() if isinstance(configuration, ModelConfiguration) else ():
        source = checkpoint.folder / name
        if source.exists() and not (output / name).exists():
            (shutil.copytree if source.is_dir() else shutil.copy)(source, output / name)


def _load(folder: Path) -> Any:
    """A checkpoint folder of any kind, in float32."""
    model_folder.check_files(folder)
    kind = model_folder.kind(folder)
    if kind == "language_model":
        return language_model_folder.load(folder)
    return punctuation_folder.load(folder) if kind == "punctuation" else model_folder.load(folder)


def _badness(metrics: dict[str, float]) -> float:
    """Error rate of a recogniser; what is trained on text alone has a loss only."""
    return metrics["error_rate"] if "error_rate" in metrics else metrics["loss"]


def _inherited(folder: Path) -> str:
    card = folder / model_folder.CARD
    return card.read_text(encoding="utf-8") if card.is_file() else ""


def _folders(run: Path) -> list[Path]:
    return sorted((run / "checkpoints").glob("step-*"))


def _prune(run: Path, keep_best: int) -> None:
    """Keep the best and the last checkpoint; only the last can be resumed from and needs the optimiser's state."""
    folders = _folders(run)
    kept = {*best(run, keep_best), folders[-1]}
    for folder in folders:
        if folder not in kept:
            shutil.rmtree(folder)
        elif folder != folders[-1]:
            (folder / OPTIMIZER).unlink(missing_ok=True)
    for leftover in (run / "checkpoints").glob(f"{_UNFINISHED}*"):
        shutil.rmtree(leftover, ignore_errors=True)


def _replace(path: Path, text: str) -> None:
    temporary = path.with_name(f"{_UNFINISHED}{path.name}")
    temporary.write_text(text, encoding="utf-8")
    _flush(temporary)
    temporary.replace(path)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_recipe(recipe: settings.StrictModel, run: Path) -> None:
    """Keep the recipe as it was validated beside what it made.

    Raises:
        TrainingError: the folder cannot be made or written to.
    """
    try:
        run.mkdir(parents=True, exist_ok=True)
        settings.dump(recipe, run / "recipe.yaml")
    except OSError as error:
        raise TrainingError(f"{run}: cannot be written ({error.strerror}); choose another output.") from error
