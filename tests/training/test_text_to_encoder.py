from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from asr import configuration
from asr.exceptions import CheckpointError, TrainingError
from asr.model import checkpoint as model_folder
from asr.model import text_to_encoder as network_folder
from asr.model.text_to_encoder import TextToEncoder, TextToEncoderConfiguration, lay_out
from asr.training import checkpoints, loop, spoken_text, text_to_encoder
from asr.training.alignment import SILENT, Aligner, Spoken, confusions, durations, numbered, spans_of
from asr.training.configuration import Recipe, SpokenTextConfiguration, TextToEncoderRecipe
from asr.training.spoken_text import SpokenText
from tests.training.conftest import log

Make = Callable[..., Recipe]


def letters(text: str, language: str) -> tuple[str, ...] | None:
    """A language in which every letter is a sound."""
    assert language == "en"
    return tuple("|" if letter == " " else letter for letter in text) if text.isascii() else None


@pytest.fixture
def _spelt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_to_encoder, "units", letters)
    monkeypatch.setattr(spoken_text, "units", letters)


@given(st.lists(st.floats(0.1, 9), min_size=1, max_size=12))
def test_each_position_is_in_the_unit_that_its_middle_is_in(lengths: list[float]) -> None:
    sounds = lay_out(range(len(lengths)), lengths)
    assert len(sounds.units) == max(round(float(torch.tensor(lengths).sum())), 1)
    ends = np.cumsum(np.array(lengths))
    for position, unit in enumerate(sounds.units.tolist()):
        begin, end = ends[unit] - lengths[unit], ends[unit]
        inside = begin - 1e-4 <= position + 0.5 <= end + 1e-4
        assert inside or (unit == len(lengths) - 1 and position + 0.5 > end)
    assert bool((sounds.places[:, 0] >= 0).all() and (sounds.places[:, 0] <= 1).all())


@given(st.data())
def test_durations_are_the_whole_utterance(data: st.DataObject) -> None:
    gaps = data.draw(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 3)), min_size=1, max_size=10))
    spans, position = [], 0
    for gap, length in gaps:
        spans.append((position + gap, position + gap + length))
        position += gap + length
    first = tuple(data.draw(st.booleans()) for _ in gaps)
    positions = position + data.draw(st.integers(0, 60))
    utterance = Spoken(torch.zeros(positions, 1), tuple(range(1, len(gaps) + 1)), first)
    aligned = durations(spans, utterance, positions, 50.0)
    assert [unit for unit in aligned.units if unit != SILENT] == list(utterance.sounds)
    assert min(aligned.durations) >= 0
    assert sum(aligned.durations) == pytest.approx(positions)
    # Silence inside only before a word.
    places = np.cumsum([unit != SILENT for unit in aligned.units])
    for index, unit in enumerate(aligned.units[1:-1], start=1):
        assert unit != SILENT or first[places[index]]


def test_spans_of_a_path() -> None:
    assert spans_of([0, 5, 5, 0, 5, 7, 7, 7, 0]) == [(1, 3), (4, 5), (5, 8)]


def test_sounds_know_which_of_them_begin_a_word() -> None:
    assert numbered(("a", "b", "|", "x", "a", ",", "b"), {"a": 1, "b": 2}) == ((1, 2, 1, 2), (True, False, True, True))


def test_confusions_are_shares() -> None:
    generator = torch.Generator().manual_seed(0)
    heard = [((1, 2, 2), torch.rand(3, 4, generator=generator)), ((2,), torch.rand(1, 4, generator=generator))]
    shares = confusions(heard, 4)
    torch.testing.assert_close(shares.sum(dim=1), torch.ones(4))
    assert float(shares[:, SILENT].sum()) == 1.0  # of silence itself alone
    assert float(shares[3, 3]) == 1.0


def test_a_sentence_is_the_same_alone_and_beside_longer_ones() -> None:
    torch.manual_seed(0)
    network = TextToEncoder(
        TextToEncoderConfiguration(
            language="en", encoder="", encoder_layers=1, units=("", "a", "b"), output=6, width=16, layers=2
        )
    ).eval()
    sentences = [([0, 1, 2, 0], [2.0, 3.4, 1.2, 5.0]), ([0, 2, 2, 1, 1, 0], [2.0, 9.1, 3.0, 7.0, 4.0, 20.0])]
    voice = network.voice(torch.randn(2, 6))
    both, lengths = network.speak([lay_out(*each) for each in sentences], voice)
    lasting = network.durations([units for units, _ in sentences], voice)
    for row, each in enumerate(sentences):
        alone, _ = network.speak([lay_out(*each)], voice[row : row + 1])
        torch.testing.assert_close(both[row, : int(lengths[row])], alone[0], atol=1e-5, rtol=1e-4)
        assert network.durations([each[0]], voice[row : row + 1])[0] == pytest.approx(lasting[row], abs=1e-4)


def sequences(count: int, generator: np.random.Generator) -> list[tuple[list[int], list[float]]]:
    """Sentences of units 1 to 5, silence around them, with whole durations; equal units are not neighbours."""
    found = []
    for _ in range(count):
        units = [int(generator.integers(1, 6))]
        while len(units) < 8:
            unit = int(generator.integers(1, 6))
            units += [unit] * (unit != units[-1])
        found.append(([SILENT, *units, SILENT], [float(each) for each in generator.integers(3, 9, size=10)]))
    return found


def plain() -> torch.autocast:
    return torch.autocast("cpu", enabled=False)


def test_sounds_are_found_where_they_are() -> None:
    torch.manual_seed(0)
    generator = np.random.default_rng(0)
    vectors = torch.randn(6, 12)
    truth = sequences(20, generator)
    spoken = [
        Spoken(vectors[lay_out(*each).units] + 0.1 * torch.randn(int(sum(each[1])), 12), tuple(each[0][1:-1]), (True,) * 8)
        for each in truth
    ]
    aligner = Aligner(12, 6, 50.0)
    aligner.fit(spoken[:15], 150, 0, plain, lambda message: None)
    for utterance, (units, lengths) in zip(spoken[15:], truth[15:], strict=True):
        found = aligner.align(utterance)
        assert found is not None
        aligned, heard = found
        middles, place = [], 0.0
        for unit, length in zip(aligned.units, aligned.durations, strict=True):
            middles += [place + length / 2] * (unit != SILENT)
            place += length
        ends = np.cumsum(lengths)
        for index, middle in enumerate(middles, start=1):
            assert ends[index - 1] - 2 <= middle <= ends[index] + 2
            # What is no silence there is the sound itself.
            assert (heard[:, 1:].argmax(dim=1) + 1).tolist() == units[1:-1]


def test_a_network_learns_what_is_said_of_sounds_and_how_long_they_last() -> None:
    torch.manual_seed(0)
    vectors = torch.randn(6, 12)
    lasting = [6.0, 3.0, 4.0, 5.0, 6.0, 7.0]
    examples = []
    for units, _ in sequences(60, np.random.default_rng(1)):
        lengths = [lasting[unit] for unit in units]
        sounds = lay_out(units, lengths)
        examples.append(text_to_encoder.Example(sounds, vectors[sounds.units], torch.tensor(units), torch.tensor(lengths)))
    settings = TextToEncoderConfiguration(
        language="en", encoder="", encoder_layers=1, units=("", *"abcde"), output=12, width=32, layers=2, kernel=5
    )
    network = TextToEncoder(settings)
    recipe = network_recipe(Path("model"), Path("table"), Path("output"), epochs=25, learning_rate=4e-3, batch_positions=400)
    text_to_encoder.fit(network, examples[:50], recipe, plain, lambda message: None)
    errors = [float(text_to_encoder.losses(network, [each], plain, [examples[0]])[0].detach()) for each in examples[50:]]
    assert max(errors) < 0.1
    voice = network.voice(examples[0].wanted.mean(dim=0, keepdim=True))
    for found, unit in zip(network.durations([[0, 1, 5, 2, 0]], voice)[0][1:-1], [1, 5, 2], strict=True):
        assert found == pytest.approx(lasting[unit], abs=0.5)


def network_recipe(model: Path, table: Path, output: Path, **training: Any) -> TextToEncoderRecipe:
    values = {
        "name": "speaker",
        "output": str(output),
        "model": str(model),
        "language": "en",
        "data": {"train": str(table), "workers": 1},
        "network": {"width": 48, "layers": 2, "kernel": 5},
        "training": {"epochs": 60, "aligner_steps": 120, "learning_rate": 4e-3, "batch_positions": 300, **training},
    }
    return configuration.validate(values, TextToEncoderRecipe, "recipe")


@pytest.fixture
def trained(recipe: Make, tones: Path, tmp_path: Path, _spelt: None) -> tuple[Path, Path]:
    """A recogniser's checkpoint, and a network that imitates its encoder."""
    model = checkpoints.last(loop.train(recipe("parent", table=tones, training__epochs=1)))
    assert model is not None
    result = text_to_encoder.train(network_recipe(model, tones, tmp_path / "network"))
    assert result.utterances == 7
    return model, result.folder


@pytest.mark.usefixtures("without_pictures")
def test_a_network_says_what_the_encoder_says_and_decoders_learn_from_it(
    recipe: Make, tones: Path, tmp_path: Path, trained: tuple[Path, Path]
) -> None:
    model, folder = trained
    network = network_folder.load(folder)
    assert network.configuration.units == ("", *"abcde")
    # What is kept of utterances is one segment after another.
    assert network.segments[0, 1] == 0
    assert network.segments[-1, 2] == len(network.residuals)
    assert torch.equal(network.segments[1:, 1], network.segments[:-1, 2])
    recogniser = model_folder.load(model).model
    recogniser.encoder.requires_grad_(False)
    sentences = tmp_path / "sentences.txt"
    sentences.write_text("abc de\nädä\nbad cab\ndeaf ace\n", encoding="utf-8")
    settings = SpokenTextConfiguration(sentences=(str(sentences),), network=str(folder), batches=2, batch_positions=400)
    spoken = SpokenText(settings, recogniser, 0, lambda positions, text: len(text) < 8)
    heard = spoken.batches(0, np.random.default_rng(1))
    again = SpokenText(settings, recogniser, 0, lambda positions, text: len(text) < 8).batches(0, np.random.default_rng(1))
    sentence = [0, 1, 2, 3, 0, 4, 5, 0]
    similar = spoken._similar(sentence, np.random.default_rng(2))
    assert network.segments[similar, 0].tolist() == sentence
    texts = [text for batch in heard for text in batch.texts]
    assert "ädä" not in texts
    assert "deaf ace" not in texts
    for one, other in zip(heard, again, strict=True):
        torch.testing.assert_close(one.lower.values, other.lower.values)
        assert one.lower.values.shape[2] == recogniser.configuration.encoder.width
        for row, length in zip(one.lower.values, one.lower.lengths.tolist(), strict=True):
            assert not row[length:].any()
            assert row[:length].isfinite().all()

    # A run with text goes on as if it had not stopped.
    changes: dict[str, Any] = {
        "initialize": str(model),
        "training__epochs": 2,
        "training__learning_rates": {"encoder": 0.0},
        "training__checkpoint_minutes": 1e-9,
        "data__text": settings.model_dump(mode="json"),
    }
    whole = loop.train(recipe("whole", table=tones, **changes))

    class Stop:
        def __init__(self) -> None:
            self.steps = 0

        def started(self, *arguments: object) -> None: ...
        def validated(self, *arguments: object) -> None: ...
        def noticed(self, *arguments: object) -> None: ...
        def stepped(self, *arguments: object) -> None:
            self.steps += 1
            if self.steps == 2:
                raise KeyboardInterrupt

    broken = recipe("broken", table=tones, **changes)
    with pytest.raises(KeyboardInterrupt):
        loop.train(broken, Stop())
    loop.train(broken, resume=True)
    last = [checkpoints.last(run) for run in (whole, Path(broken.output))]
    states = [model_folder.load(each).model.state_dict() for each in last if each is not None]
    before = recogniser.state_dict()
    changed = {name for name, value in states[0].items() if not torch.equal(value, before[name])}
    assert changed
    assert not any(name.startswith("encoder.") for name in changed)
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name]), name
    assert len(log(whole, "step")) == len(log(Path(broken.output), "step"))


@pytest.mark.usefixtures("_spelt")
def test_mistakes_are_one_sentence(recipe: Make, tones: Path, tmp_path: Path, trained: tuple[Path, Path]) -> None:
    model, folder = trained
    with pytest.raises(TrainingError, match="holds a network already"):
        text_to_encoder.train(network_recipe(model, tones, folder))
    with pytest.raises(CheckpointError, match="no text-to-encoder network"):
        network_folder.load(model)
    with pytest.raises(CheckpointError, match="text-to-encoder network"):
        model_folder.load(folder)
    recogniser = model_folder.load(model).model
    recogniser.encoder.requires_grad_(False)
    empty = tmp_path / "empty.txt"
    empty.write_text("\n", encoding="utf-8")
    settings = SpokenTextConfiguration(sentences=(str(empty),), network=str(folder))
    with pytest.raises(TrainingError, match="holds no sentence"):
        SpokenText(settings, recogniser, 0, lambda positions, text: True)
    strange = tmp_path / "strange.txt"
    strange.write_text("ädä\nxyz\n", encoding="utf-8")
    with pytest.raises(TrainingError, match="can be pronounced in the language"):
        SpokenText(settings.model_copy(update={"sentences": (str(strange),)}), recogniser, 0, lambda positions, text: True)
    with torch.no_grad():
        recogniser.encoder.layers[0].feed_forward.expand.weight += 1e-3
    with pytest.raises(TrainingError, match="imitates another encoder"):
        SpokenText(settings, recogniser, 0, lambda positions, text: True)
    with pytest.raises(Exception, match="encoder that is not trained"):
        recipe("trained", table=tones, initialize=str(model), data__text=settings.model_dump(mode="json"))


@pytest.mark.usefixtures("without_pictures", "_spelt")
def test_layers_above_those_that_are_imitated_learn_from_text(recipe: Make, tones: Path, tmp_path: Path) -> None:
    model = checkpoints.last(loop.train(recipe("parent", table=tones, training__epochs=1, model__encoder__layers=2)))
    assert model is not None
    parent = model_folder.load(model).model
    lower = text_to_encoder.train(network_recipe(model, tones, tmp_path / "lower", epochs=2).model_copy(update={"layers": 1}))
    assert network_folder.load(lower.folder).configuration.encoder_layers == 1
    with pytest.raises(TrainingError, match="has 2"):
        text_to_encoder.train(network_recipe(model, tones, tmp_path / "none").model_copy(update={"layers": 3}))
    sentences = tmp_path / "sentences.txt"
    sentences.write_text("abc de\nbad cab\n", encoding="utf-8")
    changes: dict[str, Any] = {
        "initialize": str(model),
        # A layer that the parent has not.
        "model__encoder__layers": 3,
        "training__epochs": 1,
        "training__learning_rates": {"encoder": 0.0, **{f"encoder.layers.{layer}": 1.0 for layer in (1, 2)}},
        "data__text": {"sentences": [str(sentences)], "network": str(lower.folder)},
    }
    found = checkpoints.last(loop.train(recipe("upper", table=tones, **changes)))
    assert found is not None
    before, after = parent.state_dict(), model_folder.load(found).model.state_dict()
    changed = {name for name, value in after.items() if name not in before or not torch.equal(value, before[name])}
    assert any(name.startswith("encoder.layers.2.") for name in changed)
    assert any(name.startswith("encoder.layers.1.") for name in changed)
    assert not any(name.startswith(("encoder.stem.", "encoder.layers.0.")) for name in changed)
    changes["training__learning_rates"]["encoder.layers.0"] = 1.0
    with pytest.raises(TrainingError, match="imitates 1 layers of the encoder, of which 0 are not trained"):
        loop.train(recipe("trained", table=tones, **changes))
