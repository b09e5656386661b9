"""A Transformer language model learns a small language, goes on where it stopped, and says what is wrong with its input."""

from __future__ import annotations

import json
import math
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from asr import configuration
from asr.exceptions import AsrError, CheckpointError, TrainingError
from asr.model import checkpoint as model_folder
from asr.model import language_model as language_model_folder
from asr.model.checkpoint import Checkpoint
from asr.search import language_model
from asr.text.tokenizer import CharacterTokenizer
from asr.training import language_model as training
from asr.training.configuration import LanguageModelRecipe
from tests.search import toy
from tests.training.conftest import interrupt_text, log

Make = Callable[..., LanguageModelRecipe]


def sentences(seed: int, count: int) -> list[str]:
    """A language in which each letter says which two may follow."""
    generator = random.Random(seed)
    found = []
    for _ in range(count):
        letters = [generator.choice("abcdef")]
        while len(letters) < generator.randint(4, 10):
            place = "abcdef".index(letters[-1])
            letters.append("abcdef"[(place + generator.choice((1, 3))) % 6])
        found.append("".join(letters))
    return found


@pytest.fixture
def recipe(tmp_path: Path) -> Make:
    """Makes a recipe of 300 sentences and 50 of validation; changes by dotted key with ``__``."""
    (tmp_path / "train.txt").write_text("\n".join(sentences(1, 300)))
    (tmp_path / "other.txt").write_text("\n".join(sentences(2, 50)))

    def make(name: str = "run", **changes: Any) -> LanguageModelRecipe:
        values = {
            "name": name,
            "output": str(tmp_path / name),
            "language_model": {"width": 32, "layers": 2, "heads": 2, "feed_forward": 64, "maximum_length": 24},
            "data": {"train": str(tmp_path / "train.txt"), "validation": str(tmp_path / "other.txt"), "batch_tokens": 400},
            "training": {"epochs": 2, "device": "cpu", "learning_rate": 1e-2, "warmup_steps": 10},
        }
        (tmp_path / f"{name}.yaml").write_text(json.dumps(values))
        given = [f"{key.replace('__', '.')}={json.dumps(value)}" for key, value in changes.items()]
        return configuration.load(tmp_path / f"{name}.yaml", LanguageModelRecipe, given)

    return make


def unigram_perplexity(texts: list[str], others: list[str]) -> float:
    """Of letters and the end, by their shares in ``texts``."""
    counts = Counter(letter for text in texts for letter in f"{text}.")
    total = sum(counts.values())
    spoken = [math.log(counts[letter] / total) for text in others for letter in f"{text}."]
    return math.exp(-sum(spoken) / len(spoken))


def test_it_learns_a_small_language(recipe: Make) -> None:
    said: list[str] = []
    folder = training.train(recipe(training__epochs=6), said.append)
    alone = unigram_perplexity(sentences(1, 300), sentences(2, 50))
    entries = log(folder.parent.parent, "validation")
    assert len(entries) == 6
    assert entries[-1]["perplexity"] < 0.6 * alone
    assert "perplexity" in said[-1]

    # The folder is a model for the search, and what it says there is what was measured.
    fused = language_model.load(folder)
    tokenizer = language_model_folder.load(folder).tokenizer
    texts = [tokenizer.encode(each) for each in sentences(2, 50)]
    scores = language_model.score_texts(fused, tokenizer, texts)
    best = min(entries, key=lambda entry: entry["loss"])
    perplexity = math.exp(-sum(scores) / sum(len(text) + 1 for text in texts))
    assert perplexity == pytest.approx(best["perplexity"], rel=1e-4)
    card = (folder / "README.md").read_text()
    assert f"perplexity {best['perplexity']:.2f} a token" in card
    assert (folder.parent.parent / "curves.png").is_file()


def test_a_run_goes_on_as_if_it_had_never_stopped(recipe: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = training.train(recipe("whole", training__checkpoint_minutes=1e-9))
    settings = recipe("stopped", training__checkpoint_minutes=1e-9)
    interrupt_text(monkeypatch, 7)
    with pytest.raises(KeyboardInterrupt):
        training.train(settings)
    monkeypatch.undo()
    with pytest.raises(TrainingError, match="holds a run already; go on with --resume"):
        training.train(settings)
    stopped = training.train(settings, resume=True)
    assert stopped.name == whole.name
    expected, found = (language_model_folder.load(each).model.state_dict() for each in (whole, stopped))
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    losses = [[entry["loss"] for entry in log(each.parent.parent, "step")] for each in (whole, stopped)]
    assert losses[0] == losses[1]
    # What is done is done.
    assert training.train(settings, resume=True) == stopped
    with pytest.raises(TrainingError, match=r"language_model.width 32 and not 64; choose another output"):
        training.train(recipe("stopped", language_model__width=64), resume=True)


@given(st.lists(st.integers(2, 40), min_size=1, max_size=200), st.integers(20, 200), st.integers(0, 3))
@settings(max_examples=60)
def test_batches_hold_every_text_once_and_no_more_than_they_may(lengths: list[int], tokens: int, epoch: int) -> None:
    found = training.text.batches(np.array(lengths), tokens, 5, epoch)
    assert sorted(row for batch in found for row in batch) == list(range(len(lengths)))
    for batch in found:
        assert len(batch) == 1 or len(batch) * max(lengths[row] for row in batch) <= tokens


def test_padding_does_not_change_the_loss(recipe: Make) -> None:
    tokenizer = CharacterTokenizer.build(["abcdef"])
    settings = language_model_folder.LanguageModelConfiguration(width=16, layers=1, heads=2, feed_forward=32)
    torch.manual_seed(0)
    model = language_model_folder.TransformerLanguageModel(settings, len(tokenizer)).eval()
    sequences = training.encode(["abc", "f", "abcdefabc"], tokenizer, tokenizer.start, 448)
    task = training.Foreseeing(recipe(), language_model_folder.LanguageModelCheckpoint(model, tokenizer))
    alone = [training.text.held_out_loss(task, training.text.padded([each], 1)) * (len(each) - 1) for each in sequences]
    together = training.text.held_out_loss(task, training.text.padded(sequences, 1000))
    assert together == pytest.approx(sum(alone) / sum(len(each) - 1 for each in sequences), rel=1e-5)


def test_long_text_is_read_from_its_beginning() -> None:
    (short, long) = training.encode(["ab", "ababab"], toy.TOKENIZER, 2, 4)
    a, b = toy.TOKENIZER.encode("ab")
    assert short.tolist() == [2, a, b, 3]
    assert long.tolist() == [2, a, b, a]


def test_lines_are_held_out_where_no_text_is_given(recipe: Make) -> None:
    said: list[str] = []
    training.train(recipe("held", data__validation=[], data__held_out=10, training__epochs=1), said.append)
    assert "270 lines" in said[0]
    assert "of 30 lines" in said[-1]


def test_tokens_of_a_recogniser_are_taken(recipe: Make, tmp_path: Path) -> None:
    model_folder.save(Checkpoint(toy.recognizer(0), toy.TOKENIZER), tmp_path / "recogniser", "")
    folder = training.train(recipe(model=str(tmp_path / "recogniser"), training__epochs=1))
    assert language_model_folder.load(folder).tokenizer.tokens == toy.TOKENIZER.tokens
    # Letters that the recogniser cannot write are unknown to both.
    assert language_model.score_texts(language_model.load(folder), toy.TOKENIZER, [[4, 5]])[0] < 0
    assert "those of recogniser" in (folder / "README.md").read_text()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data__train": "nothing.txt"}, r"nothing.txt: cannot be read as UTF-8 text"),
        ({"data__held_out": 1000, "data__validation": []}, "data.held_out leaves no line of text"),
        ({"model": "nothing"}, "nothing: is neither a checkpoint folder nor an embedded model"),
        ({"language_model__tokenizer__kind": "byte_pair"}, "not made from text; name a model that has it"),
        ({"language_model__widht": 3}, "did you mean 'width'"),
        ({"language_model__heads": 3}, "cannot be divided among 3 heads"),
    ],
)
def test_bad_input_is_one_sentence(recipe: Make, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(AsrError, match=message) as error:
        training.train(recipe(**changes))
    assert "\n" not in str(error.value)


def test_text_that_is_not_utf_8_is_one_sentence(recipe: Make, tmp_path: Path) -> None:
    (tmp_path / "latin.txt").write_bytes("schön\n".encode("latin-1") * 10)
    with pytest.raises(TrainingError, match=r"latin.txt: cannot be read as UTF-8 text"):
        training.train(recipe(data__train=str(tmp_path / "latin.txt")))
    (tmp_path / "cut.txt.gz").write_bytes(b"\x1f\x8b\x08\x00")
    with pytest.raises(TrainingError, match=r"cut.txt.gz: cannot be read"):
        training.train(recipe(data__train=str(tmp_path / "cut.txt.gz")))


def test_damaged_weights_are_one_sentence(recipe: Make) -> None:
    folder = training.train(recipe(training__epochs=1))
    (folder / "model.safetensors").write_bytes(b"hello")
    with pytest.raises(CheckpointError, match=r"model.safetensors: cannot be read"):
        language_model.load(folder)
