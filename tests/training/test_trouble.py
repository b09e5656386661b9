"""What goes wrong in the middle of a run, and what of it is left to go on from."""

from __future__ import annotations

import json
import resource
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from asr.audio.features import Filterbank
from asr.corpora import manifests
from asr.corpora.batches import BatchLoader
from asr.exceptions import AudioError, CheckpointError, TrainingError
from asr.model import checkpoint as model_folder
from asr.model import device, precision
from asr.training import checkpoints, loop
from asr.training.checkpoints import Progress
from asr.training.configuration import Recipe
from asr.training.validation import Validation
from tests.training.conftest import log, write_tones

Make = Callable[..., Recipe]


class Witness:
    """Keeps what it is told, and does something after a step."""

    def __init__(self, after: int = 0, act: Callable[[], None] = lambda: None) -> None:
        self.after, self.act = after, act
        self.began: Progress | None = None
        self.messages: list[str] = []

    def started(self, recipe: Recipe, parameters: dict[str, int], dropped: str, batches: int, progress: Progress) -> None:
        self.began = progress

    def stepped(self, step: loop.Step, batch: int, batches: int) -> None:
        if step.step == self.after:
            self.act()

    def validated(self, validation: Validation, checkpoint: Path) -> None:
        pass

    def noticed(self, message: str) -> None:
        self.messages.append(message)


class Stopped(BaseException):
    """The process ends here; nothing catches it."""


def stop() -> None:
    raise Stopped


def last(run: Path) -> Path:
    found = checkpoints.last(run)
    assert found is not None
    return found


def same(first: Path, second: Path) -> bool:
    one, other = (model_folder.load(last(run)).model.state_dict() for run in (first, second))
    return all(torch.equal(value, other[name]) for name, value in one.items())


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """No file can be written beyond so many bytes, as on a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_is_one_sentence_and_what_was_there_stays(recipe: Make) -> None:
    whole = loop.train(recipe("whole", training__epochs=2))
    run = loop.train(recipe("broken", training__epochs=1))
    before = last(run)
    with (
        largest_file(20_000),
        pytest.raises(CheckpointError, match=r"broken: the checkpoint of step \d+ cannot be written .*--resume"),
    ):
        loop.train(recipe("broken", training__epochs=2), resume=True)
    assert last(run) == before
    assert list((run / "checkpoints").iterdir()) == [before]
    loop.train(recipe("broken", training__epochs=2), resume=True)
    assert log(run, "step") == log(whole, "step")
    assert same(run, whole)


@pytest.mark.usefixtures("without_pictures")
def test_audio_that_vanishes_is_named_and_once_it_is_back_the_run_goes_on(recipe: Make, tmp_path: Path) -> None:
    table = write_tones(tmp_path / "speech", 8)
    settings = {"table": table, "training__checkpoint_minutes": 1e-9, "data__batch_seconds": 1.5}
    whole = loop.train(recipe("whole", **settings))
    away, back = tmp_path / "speech" / "3.wav", tmp_path / "3.wav"
    with pytest.raises(AudioError, match=r"speech/3\.wav"):
        loop.train(recipe("broken", **settings), Witness(3, lambda: shutil.move(away, back)))
    shutil.move(back, away)
    run = loop.train(recipe("broken", **settings), resume=True)
    assert log(run, "step") == log(whole, "step")
    assert same(run, whole)


def test_epochs_that_are_in_no_checkpoint_are_computed_again(recipe: Make) -> None:
    settings = {"training__epochs": 4, "training__validate_every": 2}
    whole = loop.train(recipe("whole", **settings))
    steps = len(log(whole, "step")) // 4
    validated = [whole / "checkpoints" / f"step-{number * steps:08d}" for number in (2, 4)]
    assert sorted((whole / "checkpoints").iterdir()) == validated
    with pytest.raises(Stopped):
        loop.train(recipe("broken", **settings), Witness(3 * steps + 1, stop))
    seen = Witness()
    run = loop.train(recipe("broken", **settings), seen, resume=True)
    assert seen.began is not None
    assert (seen.began.epoch, seen.began.batch, seen.began.step) == (2, 0, 2 * steps)
    assert log(run, "step") == log(whole, "step")
    assert same(run, whole)


def test_a_rate_for_added_tokens_needs_added_tokens(recipe: Make) -> None:
    with pytest.raises(TrainingError, match=r"added_tokens_rate is 20, but the model has no tokens that asr adapt-vocabulary"):
        loop.train(recipe(training__added_tokens_rate=20))


def test_another_model_is_refused_and_dropout_may_change(recipe: Make) -> None:
    run = loop.train(recipe(training__epochs=1))
    with pytest.raises(TrainingError, match=r"model\.encoder\.width was 32 and is 64; resume"):
        loop.train(recipe(training__epochs=2, model__encoder__width=64), resume=True)
    with pytest.raises(TrainingError, match=r"model\.ctc was True and is False"):
        loop.train(recipe(training__epochs=2, model__ctc=False, training__ctc_weight=0), resume=True)
    loop.train(recipe(training__epochs=2, model__encoder__dropout=0.3), resume=True)
    model = model_folder.load(last(run)).model
    assert model.configuration.encoder.dropout == 0.3
    assert model.encoder.layers[0].self_attention.dropout == 0.3
    assert [entry["epoch"] for entry in log(run, "validation")] == [0, 1]


def test_other_data_begins_the_epoch_again_and_says_so(recipe: Make, tmp_path: Path) -> None:
    settings = {"training__checkpoint_minutes": 1e-9, "training__epochs": 1}
    with pytest.raises(Stopped):
        loop.train(recipe(**settings), Witness(2, stop))
    # Drawn with the checkpoint of the first step, before any validation.
    assert (tmp_path / "run" / "curves.png").is_file()
    seen = Witness()
    with pytest.raises(Stopped):
        loop.train(recipe(**settings), seen := Witness(2, stop), resume=True)
    assert seen.began is not None
    assert (seen.began.batch, seen.messages) == (1, [])
    seen = Witness()
    loop.train(recipe(table=write_tones(tmp_path / "more", 12), **settings), seen, resume=True)
    assert seen.began is not None
    assert (seen.began.step, seen.began.batch) == (1, 0)
    assert seen.messages == [f"{tmp_path / 'run'}: the data or their batches are not those of before; epoch 0 begins again."]
    assert checkpoints.read_progress(last(tmp_path / "run")).epoch == 1


def test_another_precision_goes_on_and_is_said(recipe: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (device, precision):
        monkeypatch.setattr(module, "has_bfloat16_units", lambda name: False)
    begun = Witness()
    run = loop.train(recipe(training__epochs=1, training__precision="auto"), begun)
    assert (begun.began, begun.messages) == (Progress(precision="float32"), [])
    assert ", float32." in (last(run) / "README.md").read_text(encoding="utf-8")
    losses = [entry["loss"] for entry in log(run, "step")]
    same_again = loop.train(recipe("explicit", training__epochs=1, training__precision="float32"))
    assert [entry["loss"] for entry in log(same_again, "step")] == losses

    seen = Witness()
    loop.train(recipe(training__epochs=2, training__precision="bfloat16"), seen, resume=True)
    slow, changed = seen.messages
    assert slow.startswith(f"{run}: this processor has no units for bfloat16")
    assert changed == f"{run}: was computed in float32 and goes on in bfloat16; training.precision sets it."
    assert checkpoints.read_progress(last(run)).precision == "bfloat16"
    # The arithmetic is bfloat16's indeed: seven bits leave another loss.
    straight = loop.train(recipe("straight", training__epochs=2))
    steps = len(losses)
    assert [entry["loss"] for entry in log(straight, "step")][:steps] == losses
    assert [entry["loss"] for entry in log(straight, "step")][steps:] != [entry["loss"] for entry in log(run, "step")][steps:]


def test_a_place_that_cannot_be_written_to_is_one_sentence(recipe: Make, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for output in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(TrainingError, match="cannot be written"):
            loop.train(recipe(output=str(output)))


def test_global_normalisation_is_measured_on_the_training_speech(recipe: Make, sentences: Path) -> None:
    changes: dict[str, Any] = {"table": sentences, "training__epochs": 1, "data__batch_seconds": 20.0}
    run = loop.train(recipe(model__front_end__normalization="global", **changes))
    settings = model_folder.load(last(run)).model.configuration.front_end
    assert settings.mean is not None
    batches = BatchLoader(manifests.load(sentences), maximum_seconds=20.0, shuffle=False, seed=0).epoch(0)
    frames = torch.cat(
        [
            features[row, :count]
            for batch in batches
            for features, counts in [Filterbank(settings)(batch.waveforms, batch.lengths)]
            for row, count in enumerate(counts)
        ]
    )
    assert frames.mean(0).abs().max() < 1e-3
    assert (frames.std(0) - 1).abs().max() < 1e-2
    # What was measured when the run began stays.
    loop.train(recipe(model__front_end__normalization="global", **{**changes, "training__epochs": 2}), resume=True)
    assert model_folder.load(last(run)).model.configuration.front_end == settings


def test_one_path_is_a_list_of_one(recipe: Make, tones: Path) -> None:
    assert recipe(data__train=str(tones)) == recipe()
    assert json.loads(recipe().model_dump_json())["data"]["train"] == [str(tones)]
