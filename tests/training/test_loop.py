from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from lhotse import CutSet
from torch import Tensor

from asr import configuration
from asr.corpora import manifests
from asr.corpora.batches import BatchLoader
from asr.exceptions import TrainingError
from asr.model import checkpoint as model_folder
from asr.training import checkpoints, loop
from asr.training.beginning import build
from asr.training.checkpoints import Progress
from asr.training.configuration import Recipe
from asr.training.objective import Losses, Objective
from asr.training.schedule import inverse_square_root
from asr.training.validation import Validation
from tests.conftest import ROOT
from tests.training.conftest import log, weights, write_tones

Make = Callable[..., Recipe]

# All that is random: order, speed, noise, masks, dropout, and sounds without speech.
RANDOM: dict[str, Any] = {
    "data__nonspeech": 0.2,
    "data__augmentation__speed__factors": [0.9, 1.0, 1.1],
    "data__augmentation__volume__probability": 0.5,
    "data__augmentation__spec_augment__frequency_masks": 2,
    "training__checkpoint_minutes": 1e-9,
    "training__epochs": 3,
}

INTERRUPTED = """
import os, signal, sys
from asr import configuration
from asr.training import curves, loop
from asr.training.configuration import Recipe

recipe, place, number = sys.argv[1:]
calls = 0
curves.draw = lambda *arguments: None

def kill():
    global calls
    calls += 1
    if calls == int(number):
        os.kill(os.getpid(), signal.SIGKILL)

class Monitor:
    def started(self, *arguments): pass
    def validated(self, *arguments): pass
    def noticed(self, *arguments): pass
    def stepped(self, *arguments):
        if place == "step":
            kill()

if place == "fsync":
    flush = os.fsync
    def fsync(descriptor):
        kill()
        flush(descriptor)
    os.fsync = fsync
loop.train(configuration.load(recipe, Recipe), Monitor(), resume=True)
"""


def interrupted(recipe: Recipe, path: Path, place: str, number: int) -> None:
    """Train in another process, which kills itself."""
    configuration.dump(recipe, path)
    arguments = [sys.executable, "-c", INTERRUPTED, str(path), place, str(number)]
    ended = subprocess.run(arguments, cwd=ROOT, env={**os.environ, "CUDA_VISIBLE_DEVICES": ""}, capture_output=True, text=True)
    assert ended.returncode == -signal.SIGKILL, ended.stderr


def without_times(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in entry.items() if key != "seconds"} for entry in entries]


@pytest.mark.timeout(1500)
@pytest.mark.usefixtures("without_pictures")
@pytest.mark.parametrize(("source", "precision"), [("tones", "float32"), ("sentences", "auto"), ("librispeech_flac", "float32")])
def test_a_run_killed_twice_ends_bit_for_bit_as_one_that_was_not(
    recipe: Make, tmp_path: Path, source: str, precision: str, request: pytest.FixtureRequest
) -> None:
    table: Path = request.getfixturevalue(source)
    changes = {**RANDOM, "training__precision": precision, "data__batch_seconds": 4.0 if source == "tones" else 10.0}
    whole = loop.train(recipe("whole", table=table, **changes))
    broken = recipe("broken", table=table, **changes)
    interrupted(broken, tmp_path / "again.yaml", "step", 2)
    run = Path(broken.output)
    # Its second step was logged and is in no checkpoint.
    assert [entry["step"] for entry in log(run, "step")] == [1, 2]
    assert checkpoints.read_progress(checkpoints.last(run) or run).step == 1
    # The third write of the second life stops between two of its files.
    interrupted(broken, tmp_path / "again.yaml", "fsync", 19)
    stopped = checkpoints.last(run)
    assert stopped is not None
    assert 1 < checkpoints.read_progress(stopped).step < len(log(whole, "step"))
    loop.train(broken, resume=True)

    assert len(log(whole, "step")) >= 9
    assert log(run, "step") == log(whole, "step")
    assert without_times(log(run, "validation")) == without_times(log(whole, "validation"))
    first, second = weights(whole), weights(run)
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    states = [checkpoints.read_optimizer(checkpoints.last(folder) or folder) for folder in (whole, run)]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def test_a_finished_run_is_not_trained_over_and_resuming_it_changes_nothing(recipe: Make) -> None:
    settings = recipe(training__epochs=1)
    run = loop.train(settings)
    before = weights(run)
    with pytest.raises(TrainingError, match="--resume"):
        loop.train(settings)
    loop.train(settings, resume=True)
    assert all(torch.equal(value, before[name]) for name, value in weights(run).items())
    assert len(log(run, "validation")) == 1


def test_what_a_run_leaves_behind(recipe: Make) -> None:
    seen: list[tuple[str, Any]] = []

    class Monitor:
        def started(self, recipe: Recipe, parameters: dict[str, int], dropped: str, batches: int, progress: Progress) -> None:
            seen.append(("started", progress))

        def stepped(self, step: loop.Step, batch: int, batches: int) -> None:
            seen.append(("stepped", asdict(step)))

        def validated(self, validation: Validation, checkpoint: Path) -> None:
            seen.append(("validated", checkpoint))

    settings = recipe()
    run = loop.train(settings, Monitor())
    assert seen[0] == ("started", Progress(precision="float32"))
    steps = [value for kind, value in seen if kind == "stepped"]
    assert [{"kind": "step", **step} for step in steps] == log(run, "step")
    for step in steps:
        rate = settings.training.learning_rate * inverse_square_root(step["step"], 2)
        assert step["learning_rate"] == pytest.approx(rate)
        assert step["loss"] == pytest.approx(0.7 * step["attention"] + 0.3 * step["ctc"], rel=1e-5)
    folders = [value for kind, value in seen if kind == "validated"]
    assert sorted(path for path in (run / "checkpoints").iterdir()) == folders
    assert checkpoints.read_metrics(folders[-1])["error_rate"] == log(run, "validation")[-1]["error_rate"]
    assert configuration.load(run / "recipe.yaml", Recipe) == settings
    assert (run / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert not list(run.rglob("*.pt")) + list(run.rglob("*.bin")) + list(run.rglob("*.pkl"))


class Poisoned(Objective):
    """An objective whose losses in training are not a number at the given calls."""

    at: range = range(0)
    calls = 0

    def forward(self, *arguments: Any, **settings: Any) -> Losses:
        losses = super().forward(*arguments, **settings)
        if not self.training:
            return losses
        type(self).calls += 1
        bad = losses.total * math.nan if self.calls in self.at else losses.total
        return replace(losses, total=bad)


@pytest.fixture
def poisoned(monkeypatch: pytest.MonkeyPatch) -> type[Poisoned]:
    monkeypatch.setattr(Poisoned, "calls", 0)
    monkeypatch.setattr(loop, "Objective", Poisoned)
    return Poisoned


def test_a_loss_that_is_not_finite_changes_no_weight_and_is_counted(
    recipe: Make, poisoned: type[Poisoned], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(poisoned, "at", range(3, 4))
    settings = recipe(training__epochs=1, training__keep_best=100, training__checkpoint_minutes=1e-9)
    kept: dict[int, dict[str, Tensor]] = {}
    write = checkpoints.write

    def spy(run: Path, checkpoint: Any, card: str, progress: Progress, *others: Any) -> Path:
        kept[progress.step] = {name: value.clone() for name, value in checkpoint.model.state_dict().items()}
        return write(run, checkpoint, card, progress, *others)

    monkeypatch.setattr(checkpoints, "write", spy)
    run = loop.train(settings)
    assert all(torch.equal(value, kept[3][name]) for name, value in kept[2].items())
    assert not all(torch.equal(value, kept[2][name]) for name, value in kept[1].items())
    last = checkpoints.read_progress(checkpoints.last(run) or run)
    assert last.skipped == 1
    assert last.skipped_in_a_row == (1 if last.step == 3 else 0)
    assert all(value.isfinite().all() for value in weights(run).values())


def test_ten_in_a_row_end_the_run_and_nine_do_not(
    recipe: Make, poisoned: type[Poisoned], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(poisoned, "at", range(1, 10))
    run = loop.train(recipe("nine", training__epochs=5, training__validate_every=5))
    assert checkpoints.read_progress(checkpoints.last(run) or run).skipped == 9
    monkeypatch.setattr(poisoned, "calls", 0)
    monkeypatch.setattr(poisoned, "at", range(2, 12))
    with pytest.raises(TrainingError, match="not finite, the last at step 11"):
        loop.train(recipe("ten", training__epochs=5, training__validate_every=5))


def test_accumulated_batches_make_the_step_of_their_mean(recipe: Make, tones: Path, tmp_path: Path) -> None:
    settings = recipe(
        training__accumulation=2,
        training__epochs=1,
        training__clip=1e9,
        training__label_smoothing=0.0,
        model__encoder__dropout=0.0,
        model__decoder__dropout=0.0,
    )
    run = loop.train(settings)
    batches = list(BatchLoader(manifests.load_all([str(tones)]), maximum_seconds=4.0, shuffle=True, seed=0).epoch(0))
    steps = log(run, "step")
    assert len(steps) == math.ceil(len(batches) / 2)
    for number, step in enumerate(steps):
        mine = batches[2 * number : 2 * number + 2]
        assert step["audio_seconds"] == pytest.approx(sum(float(batch.lengths.sum()) for batch in mine) / 16_000)
    # The same first step by hand, from the same random weights.
    torch.manual_seed(settings.training.seed)
    built = build(settings, manifests.load_all([str(tones)]), None)
    objective = Objective(built.model, built.tokenizer.blank, 0.3, 0.0).train()
    means = []
    for batch in batches[:2]:
        wanted = loop.encoded_targets(built, batch.texts, batch.lengths, None)
        means.append(objective(batch.waveforms, batch.lengths, wanted).total)
    mean = torch.stack(means).mean()
    mean.backward()
    norm = torch.stack([p.grad.norm() for p in built.model.parameters() if p.grad is not None]).norm()
    assert steps[0]["loss"] == pytest.approx(float(mean.detach()), rel=1e-5)
    assert steps[0]["gradient_norm"] == pytest.approx(float(norm), rel=1e-4)


def test_time_that_is_up_ends_the_run_with_a_validated_checkpoint_to_go_on_from(recipe: Make) -> None:
    run = loop.train(recipe(training__maximum_hours=1e-9))
    assert [entry["step"] for entry in log(run, "step")] == [1]
    assert len(log(run, "validation")) == 1
    assert checkpoints.read_progress(checkpoints.last(run) or run).batch == 1


def test_texts_that_do_not_fit_are_left_out(recipe: Make, tmp_path: Path) -> None:
    table = write_tones(tmp_path / "long", 3)
    rows = [json.loads(line) for line in table.read_text().splitlines()]
    for row in rows:
        row["text"] = "abcde" * 100
    table.write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(TrainingError, match="no utterance is left"):
        loop.train(recipe(table=table))


@pytest.mark.parametrize("trained", [(), ("encoder.layers.1", "encoder.norm")])
def test_what_frozen_layers_say_is_read_and_changes_no_loss(recipe: Make, tmp_path: Path, trained: tuple[str, ...]) -> None:
    def losses(name: str, **changes: Any) -> list[float]:
        settings = recipe(
            name,
            model__encoder__layers=2,
            model__encoder__dropout=0.0,
            model__decoder__dropout=0.0,
            training__learning_rates={"encoder": 0.0, **dict.fromkeys(trained, 1.0)},
            **changes,
        )
        return [entry["loss"] for entry in log(loop.train(settings), "step")]

    cache = tmp_path / "cache"
    computed = losses("computed")
    assert losses("filling", training__encoder_cache=str(cache)) == pytest.approx(computed, rel=2e-3)
    assert len(list(cache.rglob("*.npy"))) == 8
    # Not to the last digit: it is kept in half precision.
    assert losses("reading", training__encoder_cache=str(cache)) == pytest.approx(computed, rel=2e-3)


@pytest.mark.timeout(1500)  # as in tests/test_round.py
def test_a_tiny_model_learns_its_utterances_by_heart(recipe: Make, tmp_path: Path) -> None:
    settings = recipe(
        table=write_tones(tmp_path / "few", 4),
        training__epochs=300,
        training__validate_every=300,
        training__learning_rate=5e-3,
        training__label_smoothing=0.0,
        training__warmup_steps=20,
        training__schedule="cosine",
        data__batch_seconds=10.0,
        data__validation_utterances=4,
        model__encoder__dropout=0.0,
        model__decoder__dropout=0.0,
    )
    figures = log(loop.train(settings), "validation")[-1]
    # The decoder's own search ends each text with the stop token: one word more would be an error.
    assert figures["error_rate"] == 0
    assert figures["length_ratio"] == 1
    assert figures["ctc_error_rate"] == 0


@pytest.mark.parametrize(("weight", "speech"), [(0.3, "sentences"), (0.0, "tones")])
def test_two_processes_share_uneven_data_and_end_together(
    recipe: Make, tmp_path: Path, weight: float, speech: str, request: pytest.FixtureRequest
) -> None:
    table = tmp_path / "seven.jsonl.gz"
    CutSet.from_cuts(list(manifests.load(request.getfixturevalue(speech)))[:7]).to_file(table)
    settings = recipe(table=table, training__ctc_weight=weight, data__batch_seconds=1.5)
    configuration.dump(settings, tmp_path / "two.yaml")
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--master_port=0", "--standalone"]

    def together(*arguments: str) -> None:
        ended = subprocess.run(
            [*launch, "-m", "asr", "train", str(tmp_path / "two.yaml"), *arguments],
            cwd=ROOT,
            env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=240,
        )
        assert ended.returncode == 0, ended.stderr

    run = Path(settings.output)
    if speech == "sentences":
        together("training.maximum_hours=1e-9")
        assert len(log(run, "step")) == 1
        together("--resume", "training.maximum_hours=null")
    else:
        together()
    cuts = manifests.load_all([str(table)])
    loader = BatchLoader(cuts, maximum_seconds=1.5, shuffle=True, seed=0, rank=1, world_size=2)
    steps = log(run, "step")
    assert [step["step"] for step in steps] == list(range(1, loader.count(0) + loader.count(1) + 1))
    assert [step["epoch"] for step in steps] == [0] * loader.count(0) + [1] * loader.count(1)
    assert log(run, "validation")[-1]["epoch"] == 1


@pytest.mark.usefixtures("without_pictures")
def test_an_encoder_that_is_not_trained_stays_as_it_is(recipe: Make) -> None:
    # A Conformer's batch normalisation would move its statistics, and train on other values than are used later.
    parent = checkpoints.last(loop.train(recipe("parent", model__encoder__block="conformer", training__epochs=1)))
    assert parent is not None
    before = model_folder.load(parent).model.state_dict()
    assert any("running_mean" in name for name in before)
    frozen = {"initialize": str(parent), "training__learning_rates": {"encoder": 0.0}, "training__epochs": 1}
    after = weights(loop.train(recipe("frozen", **frozen)))
    changed = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert changed
    assert not any(name.startswith("encoder.") for name in changed)
