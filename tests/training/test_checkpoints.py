from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from asr.configuration import validate
from asr.exceptions import CheckpointError
from asr.model import checkpoint as model_folder
from asr.model.checkpoint import Checkpoint
from asr.model.configuration import ModelConfiguration
from asr.model.recognizer import Recognizer
from asr.text.tokenizer import CharacterTokenizer
from asr.training import checkpoints
from asr.training.checkpoints import Progress
from asr.training.configuration import Recipe
from tests.training.conftest import MODEL


def make(seed: int, letters: str = "abcde", **encoder: Any) -> Checkpoint:
    torch.manual_seed(seed)
    settings = validate({**MODEL, "encoder": {**MODEL["encoder"], **encoder}}, ModelConfiguration, "test")
    tokenizer = CharacterTokenizer.build([letters])
    return Checkpoint(Recognizer(settings, len(tokenizer)), tokenizer)


def write(run: Path, step: int, error_rate: float | None, keep_best: int = 2, checkpoint: Checkpoint | None = None) -> Path:
    metrics = None if error_rate is None else {"error_rate": error_rate}
    state = {"encoder.x/step": torch.tensor(float(step))}
    return checkpoints.write(run, checkpoint or make(step), f"card {step}", Progress(step=step), state, metrics, keep_best)


def names(run: Path) -> list[int]:
    return [int(path.name.removeprefix("step-")) for path in sorted((run / "checkpoints").iterdir())]


def test_the_best_and_the_last_stay_and_only_the_last_has_the_optimizer(tmp_path: Path) -> None:
    for step, error_rate in ((1, 0.5), (2, 0.2), (3, None), (4, 0.3), (5, 0.4), (6, None)):
        write(tmp_path, step, error_rate)
    assert names(tmp_path) == [2, 4, 6]
    assert [path.name for path in checkpoints.best(tmp_path, 5)] == ["step-00000002", "step-00000004"]
    assert checkpoints.last(tmp_path) == tmp_path / "checkpoints" / "step-00000006"
    assert [path.parent.name for path in tmp_path.rglob(checkpoints.OPTIMIZER)] == ["step-00000006"]


def test_a_run_without_checkpoints_has_no_last_one(tmp_path: Path) -> None:
    assert checkpoints.last(tmp_path) is None
    assert checkpoints.best(tmp_path) == []


def test_a_step_written_again_takes_the_new_place_and_figures(tmp_path: Path) -> None:
    write(tmp_path, 3, None)
    state = {"encoder.x/step": torch.tensor(3.0)}
    folder = checkpoints.write(tmp_path, make(3), "new", Progress(step=3, epoch=1), state, {"error_rate": 0.5}, 2)
    assert checkpoints.read_progress(folder) == Progress(step=3, epoch=1)
    assert checkpoints.read_metrics(folder) == {"error_rate": 0.5}
    assert (folder / "README.md").read_text() == "new"
    assert checkpoints.read_optimizer(folder)["encoder.x/step"] == 3


class Stopped(BaseException):
    """The process ends here; nothing catches it."""


def stop_at(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Stop before the ``number``-th change of the disk."""
    count = itertools.count()

    def guarded(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **settings: Any) -> Any:
            if next(count) == number:
                raise Stopped
            return function(*arguments, **settings)

        return call

    for place, name in ((os, "fsync"), (os, "rename"), (os, "replace"), (os, "unlink"), (os, "rmdir"), (shutil, "rmtree")):
        monkeypatch.setattr(place, name, guarded(getattr(place, name)))
    for name in ("rename", "replace", "unlink", "write_text"):
        monkeypatch.setattr(Path, name, guarded(getattr(Path, name)))
    for name in ("write_tensors",):
        monkeypatch.setattr(checkpoints, name, guarded(getattr(checkpoints, name)))
        monkeypatch.setattr(model_folder, name, guarded(getattr(model_folder, name)))


@pytest.mark.parametrize("step", [1, 2], ids=["the same step", "the next step"])
def test_wherever_writing_stops_there_is_a_whole_last_checkpoint(
    step: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = {1: make(1), 2: make(2)}
    for number in itertools.count():
        run = tmp_path / str(number)
        write(run, 1, None, checkpoint=models[1])
        with monkeypatch.context() as patch:
            stop_at(patch, number)
            try:
                write(run, step, 0.5, checkpoint=models[step])
                break
            except Stopped:
                pass
        last = checkpoints.last(run)
        assert last is not None, number
        at = checkpoints.read_progress(last).step
        assert checkpoints.read_optimizer(last)["encoder.x/step"] == at
        loaded = model_folder.load(last).model.state_dict()
        assert all(torch.equal(value, loaded[name]) for name, value in models[at].model.state_dict().items())
        # And the run goes on from there without a trace of it.
        write(run, 3, 0.1, keep_best=1)
        assert names(run) == [3], number
    assert number > 6


def test_a_damaged_optimizer_state_is_one_sentence(tmp_path: Path) -> None:
    folder = write(tmp_path, 1, None)
    (folder / checkpoints.OPTIMIZER).write_bytes(b"\0" * 20)
    with pytest.raises(CheckpointError, match=checkpoints.OPTIMIZER):
        checkpoints.read_optimizer(folder)


def test_an_optimizer_restored_steps_as_the_one_it_came_from() -> None:
    def stepped(model: Recognizer, optimizer: torch.optim.Optimizer, seed: int) -> None:
        random = torch.Generator().manual_seed(seed)
        for parameter in model.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=random)
        optimizer.step()

    first, second = make(1).model, make(1).model
    ours, other = torch.optim.AdamW(first.parameters(), lr=0.1), torch.optim.AdamW(second.parameters(), lr=0.1)
    stepped(first, ours, 0)
    second.load_state_dict(first.state_dict())
    # A copy, as a file would be: on the CPU the tensors taken are the optimizer's own.
    taken = {name: value.clone() for name, value in checkpoints.optimizer_tensors(ours, first).items()}
    checkpoints.restore_optimizer(other, second, taken)
    stepped(first, ours, 1)
    stepped(second, other, 1)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def saved(folder: Path, checkpoint: Checkpoint) -> Path:
    model_folder.save(checkpoint, folder, f"card of {folder.name}")
    return folder


@pytest.mark.parametrize("shares", [None, [0.5, 0.2, 0.3]])
def test_an_average_is_the_mean_of_the_weights(shares: list[float] | None, tmp_path: Path) -> None:
    folders = [saved(tmp_path / str(seed), make(seed)) for seed in range(3)]
    checkpoints.average(folders, tmp_path / "mean", shares)
    found = model_folder.load(tmp_path / "mean")
    parts = [model_folder.load(folder).model.state_dict() for folder in folders]
    for name, value in found.model.state_dict().items():
        stacked = torch.stack([part[name].double() for part in parts])
        expected = (stacked * torch.tensor(shares or [1 / 3] * 3).double().view(-1, *[1] * value.dim())).sum(0)
        torch.testing.assert_close(value.double(), expected, rtol=1e-6, atol=1e-7)
    card = (tmp_path / "mean" / "README.md").read_text()
    assert "card of 0" in card
    assert "`2`" in card


def test_the_average_of_one_is_itself(tmp_path: Path) -> None:
    folder = saved(tmp_path / "one", make(1))
    checkpoints.average([folder], tmp_path / "mean")
    before, after = (model_folder.load(path).model.state_dict() for path in (folder, tmp_path / "mean"))
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_files_beside_the_weights_go_with_an_average_and_not_with_what_is_trained_from_it(tmp_path: Path) -> None:
    named = {"decoding": {"language_model": "a.safetensors, b"}, "punctuation": "marks"}
    checkpoint = make(1)
    settings = validate({**checkpoint.model.configuration.model_dump(), **named}, ModelConfiguration, "test")
    parent = saved(tmp_path / "parent", Checkpoint(Recognizer(settings, len(checkpoint.tokenizer)), checkpoint.tokenizer))
    (parent / "a.safetensors").write_text("n-grams")
    for folder in ("b", "marks"):
        (parent / folder).mkdir()
        (parent / folder / "config.yaml").write_text(folder)
    checkpoints.average([parent], tmp_path / "mean")
    assert (tmp_path / "mean" / "a.safetensors").read_text() == "n-grams"
    assert [(tmp_path / "mean" / each / "config.yaml").read_text() for each in ("b", "marks")] == ["b", "marks"]
    assert model_folder.load(tmp_path / "mean").model.configuration.files() == ("a.safetensors", "b", "marks")

    recipe = {"name": "child", "output": "run", "initialize": str(parent), "data": {"train": "a", "validation": "b"}}
    inherited = validate(recipe, Recipe, "test").model_configuration()
    assert inherited.files() == ()
    assert inherited == settings.without_files()


@pytest.mark.parametrize(
    "other",
    [{"feed_forward": 32}, {"layers": 2}, {"width": 16}, {"letters": "abcdf"}, {"letters": "abcdef"}],
    ids=str,
)
def test_models_of_another_kind_are_not_averaged(other: dict[str, Any], tmp_path: Path) -> None:
    folders = [saved(tmp_path / "a", make(1)), saved(tmp_path / "b", make(2, **other))]
    with pytest.raises(CheckpointError, match="b:"):
        checkpoints.average(folders, tmp_path / "mean")
    assert not (tmp_path / "mean").exists()


@pytest.mark.parametrize("shares", [[1.0], [0.5, 0.6], [1.0, 1.0]])
def test_shares_must_be_one_each_and_sum_to_one(shares: list[float], tmp_path: Path) -> None:
    folders = [saved(tmp_path / "a", make(1)), saved(tmp_path / "b", make(2))]
    with pytest.raises(CheckpointError, match="sum of 1"):
        checkpoints.average(folders, tmp_path / "mean", shares)
    with pytest.raises(CheckpointError, match="at least one"):
        checkpoints.average([], tmp_path / "mean")
