"""A corpus of tones, a letter each, and recipes small enough to train on one core in seconds."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from lhotse import CutSet
from torch import Tensor

from asr import configuration
from asr.corpora import librispeech, manifests
from asr.model import checkpoint as model_folder
from asr.training import checkpoints, curves, text
from asr.training.configuration import Recipe

MODEL: dict[str, Any] = {
    "front_end": {"mels": 40, "normalization": "utterance"},
    "encoder": {"stem": "conv2d", "layers": 1, "width": 32, "heads": 2, "feed_forward": 64},
    "decoder": {"layers": 1, "heads": 2, "feed_forward": 64},
}


def write_tones(folder: Path, count: int) -> Path:
    """Write ``count`` utterances in which every letter is a tone of its own, and the table that lists them."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(7)
    rows = []
    for number in range(count):
        words = ["".join(random.choice(list("abcde"), size=random.integers(2, 4))) for _ in range(2)]
        text = " ".join(words)
        sounds = []
        for letter in text:
            time = np.arange(2400) / 16_000
            tone = 0 * time if letter == " " else 0.3 * np.sin(2 * np.pi * 300 * 1.5 ** "abcde".index(letter) * time)
            # A little silence after each, so that equal neighbours can be told apart.
            sounds += [tone * np.hanning(2400), np.zeros(640)]
        waveform = np.concatenate(sounds) + 0.001 * random.standard_normal(sum(map(len, sounds)))
        soundfile.write(folder / f"{number}.wav", waveform.astype(np.float32), 16_000)
        rows.append(json.dumps({"audio": f"{number}.wav", "text": text}))
    table = folder / "table.jsonl"
    table.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return table


@pytest.fixture(scope="session")
def tones(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Table of eight utterances."""
    return write_tones(tmp_path_factory.mktemp("tones"), 8)


@pytest.fixture(scope="session")
def sentences(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Manifest of eight sentences spoken for this project."""
    return librispeech.prepare(data / "LibriSpeech", tmp_path_factory.mktemp("sentences")).subsets[0].manifest


@pytest.fixture(scope="session")
def librispeech_flac(corpora: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Manifest of the eight shortest of LibriSpeech's own FLAC files."""
    folder = tmp_path_factory.mktemp("flac")
    prepared = librispeech.prepare(corpora / "LibriSpeech-flac-sample" / "LibriSpeech", folder)
    cuts = [cut for subset in prepared.subsets for cut in manifests.load(subset.manifest)]
    path = folder / "eight.jsonl.gz"
    CutSet.from_cuts(sorted(cuts, key=lambda cut: float(cut.duration))[:8]).to_file(path)
    return path


@pytest.fixture
def recipe(tones: Path, tmp_path: Path) -> Callable[..., Recipe]:
    """Makes a recipe: changes by dotted key -> recipe; the run's folder is ``tmp_path / name``."""

    def make(name: str = "run", table: Path = tones, **changes: Any) -> Recipe:
        path = tmp_path / f"{name}.yaml"
        path.write_text(json.dumps(values(name, tmp_path / name, table)))
        return configuration.load(path, Recipe, [f"{key.replace('__', '.')}={json.dumps(v)}" for key, v in changes.items()])

    return make


@pytest.fixture
def without_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where each step writes a checkpoint, its picture would be most of the work."""
    monkeypatch.setattr(curves, "draw", lambda *arguments: None)


def values(name: str, output: Path, table: Path) -> dict[str, Any]:
    """A recipe as YAML would say it."""
    return {
        "name": name,
        "output": str(output),
        "model": MODEL,
        "data": {"train": [str(table)], "validation": [str(table)], "validation_utterances": 3, "batch_seconds": 4.0},
        "training": {
            "epochs": 2,
            "precision": "float32",
            "device": "cpu",
            "learning_rate": 2e-3,
            "warmup_steps": 2,
        },
    }


def weights(run: Path) -> dict[str, Tensor]:
    """Those of a run's last checkpoint."""
    last = checkpoints.last(run)
    assert last is not None
    return model_folder.load(last).model.state_dict()


def log(run: Path, kind: str) -> list[dict[str, Any]]:
    """Entries of a run's log of one kind."""
    entries = [json.loads(line) for line in (run / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    return [entry for entry in entries if entry["kind"] == kind]


def interrupt_text(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """Interrupt the next run on plain text as Ctrl-C does, when it has written so many steps into its log."""
    append = text.log.append
    steps = 0

    def stop(path: Path, entry: Any) -> None:
        nonlocal steps
        append(path, entry)
        steps += isinstance(entry, text.Step)
        if steps == count:
            raise KeyboardInterrupt

    monkeypatch.setattr(text.log, "append", stop)
