"""A punctuation model learns where a small language has its marks, goes on where it stopped, and is a folder like any other."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from asr import configuration
from asr.exceptions import AsrError, CheckpointError
from asr.model import checkpoint as model_folder
from asr.model import language_model as language_model_folder
from asr.model import punctuation as punctuation_folder
from asr.model.punctuation import PunctuationConfiguration, PunctuationModel, Punctuator
from asr.training import checkpoints
from asr.training import punctuation as training
from asr.training.configuration import PunctuationRecipe
from tests.training.conftest import interrupt_text, log

Make = Callable[..., PunctuationRecipe]


def paragraphs(seed: int, count: int) -> list[str]:
    """A language whose sentences all begin with 我, of which nothing warns; 吗 makes questions, 但 follows a comma."""
    generator = random.Random(seed)

    def some() -> str:
        return "".join(generator.choice("天地人山水火吗") for _ in range(generator.randint(2, 4)))

    def sentence() -> str:
        said = "我" + some() + generator.choice(("", f"，但{some()}"))
        return said + ("？" if said[-1] == "吗" else "。")

    return ["".join(sentence() for _ in range(6)) for _ in range(count)]


@pytest.fixture
def recipe(tmp_path: Path) -> Make:
    """Makes a recipe of 400 paragraphs; changes by dotted key with ``__``."""
    (tmp_path / "train.txt").write_text("\n".join(paragraphs(1, 400)), encoding="utf-8")

    def make(name: str = "run", **changes: Any) -> PunctuationRecipe:
        values = {
            "name": name,
            "output": str(tmp_path / name),
            "punctuation": {"width": 64, "layers": 2, "heads": 2, "feed_forward": 64, "dropout": 0.0},
            "data": {"train": str(tmp_path / "train.txt"), "held_out": 10, "batch_tokens": 400},
            "training": {"epochs": 2, "device": "cpu", "learning_rate": 5e-3, "warmup_steps": 20},
        }
        (tmp_path / f"{name}.yaml").write_text(json.dumps(values))
        given = [f"{key.replace('__', '.')}={json.dumps(value)}" for key, value in changes.items()]
        return configuration.load(tmp_path / f"{name}.yaml", PunctuationRecipe, given)

    return make


def test_it_learns_a_small_language(recipe: Make, tmp_path: Path) -> None:
    said: list[str] = []
    folder = training.train(recipe(training__epochs=6), said.append)
    assert "360 lines" in said[0]
    punctuator = punctuation_folder.load(folder)
    figures = training.figures(punctuator, paragraphs(2, 30))
    # Only what comes after a character tells that there is a mark.
    assert figures["all"].f1 > 0.95
    assert {mark for mark, each in figures.items() if each.printed} == {"all", "，", "。", "？"}
    assert punctuator.write("我天地但人山吗我吗水天我山水") == "我天地，但人山吗？我吗水天。我山水。"
    # Marks that were there are replaced; a name and what is not Mandarin stay as they are.
    assert punctuator.write("我、天地但人。山吗我吗水天我山水") == "我天地，但人山吗？我吗水天。我山水。"
    assert punctuator.write("我天地") == "我天地"
    assert punctuator.write("so it is, then 我") == "so it is, then 我"
    assert punctuator.write("") == punctuator.write("……")[:0] == ""
    # However long a text is, it is read in parts that are no longer than what was learned from.
    long = "".join(paragraphs(3, 40))
    assert training.agreement(punctuator, [long])["all"].f1 > 0.9
    # Within a number no clause ends.
    assert not any(punctuator.marks("三点一四一五九", threshold=1.0)[:-1])
    assert "characters" in (folder / "README.md").read_text(encoding="utf-8")

    # Stored in fewer bits it still is one, and no recogniser or language model.
    checkpoints.average([folder], tmp_path / "small", storage="int6")
    assert (tmp_path / "small" / "model.safetensors").stat().st_size < (folder / "model.safetensors").stat().st_size / 3
    assert (
        punctuation_folder.load(tmp_path / "small").write("我天地但人山吗我吗水天我山水")
        == "我天地，但人山吗？我吗水天。我山水。"
    )
    with pytest.raises(CheckpointError, match="is a punctuation model and no recogniser"):
        model_folder.load(folder)
    with pytest.raises(CheckpointError, match="is no language model"):
        language_model_folder.load(folder)


def test_a_run_goes_on_as_if_it_had_never_stopped(recipe: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = training.train(recipe("whole", training__checkpoint_minutes=1e-9))
    settings = recipe("stopped", training__checkpoint_minutes=1e-9)
    interrupt_text(monkeypatch, 7)
    with pytest.raises(KeyboardInterrupt):
        training.train(settings)
    monkeypatch.undo()
    stopped = training.train(settings, resume=True)
    expected, found = (punctuation_folder.load(each).model.state_dict() for each in (whole, stopped))
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    losses = [[entry["loss"] for entry in log(each.parent.parent, "step")] for each in (whole, stopped)]
    assert losses[0] == losses[1]
    with pytest.raises(AsrError, match=r"punctuation.width 64 and not 32; choose another output"):
        training.train(recipe("stopped", punctuation__width=32), resume=True)


def test_a_long_text_is_read_in_windows_and_padding_changes_nothing() -> None:
    torch.manual_seed(0)
    tokenizer = punctuation_folder.vocabulary(paragraphs(1, 20), 1)
    punctuator = Punctuator(
        PunctuationModel(PunctuationConfiguration(width=32, layers=1, heads=2), len(tokenizer)).eval(), tokenizer
    )
    assert len(punctuator.marks("天地人山水火" * 200)) == 1200
    assert punctuation_folder._WINDOW + 2 * punctuation_folder._MARGIN < punctuation_folder.LONGEST
    rows = torch.randint(4, len(tokenizer), (2, 9))
    short = punctuator.model(rows[:, :5], torch.tensor([5, 5]))
    padded = punctuator.model(rows, torch.tensor([5, 9]))
    assert torch.allclose(short[0], padded[0, :5], atol=1e-5)
    assert not torch.allclose(short[1], padded[1, :5], atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data__train": "nothing.txt"}, "nothing.txt: cannot be read as UTF-8 text"),
        ({"punctuation__heads": 3}, "cannot be divided among 3 heads"),
        ({"punctuation__marks": ["", "!"]}, "train the model again"),
        ({"punctuation__widht": 3}, "did you mean 'width'"),
        ({"data__train": "empty.txt", "data__held_out": 2}, "data.train hold nothing to learn from"),
    ],
)
def test_bad_input_is_one_sentence(
    recipe: Make, changes: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty.txt").write_text("……\n" * 4, encoding="utf-8")
    with pytest.raises(AsrError, match=message) as error:
        training.train(recipe(**changes))
    assert "\n" not in str(error.value)
