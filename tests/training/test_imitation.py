"""A teacher that hears undisturbed speech, against torch's own divergence, plain sums and a model that is its own teacher."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from asr.configuration import validate
from asr.exceptions import ConfigurationError
from asr.model import checkpoint as model_folder
from asr.model.checkpoint import Checkpoint
from asr.model.configuration import ModelConfiguration
from asr.model.recognizer import Encoded, Recognizer
from asr.text.tokenizer import CharacterTokenizer, TokenizerConfiguration
from asr.training import checkpoints, loop
from asr.training.configuration import ImitationConfiguration, Recipe
from asr.training.imitation import Teacher, difference, divergence
from asr.training.objective import Losses, Objective, Targets, targets
from tests.training.conftest import MODEL, log, weights, write_tones

LENGTHS = torch.tensor([16_000, 7_000, 12_000])


def checkpoint(seed: int, letters: str = "abcd") -> Checkpoint:
    torch.manual_seed(seed)
    tokenizer = CharacterTokenizer.build([letters], TokenizerConfiguration())
    return Checkpoint(Recognizer(validate(MODEL, ModelConfiguration, "test"), len(tokenizer)).eval(), tokenizer)


@pytest.fixture
def wanted() -> Targets:
    tokenizer = checkpoint(0).tokenizer
    texts = [tokenizer.encode(text) for text in ("abba", "c", "da")]
    return targets(texts, [tokenizer.start], tokenizer.stop, tokenizer.blank)


@pytest.fixture
def speech() -> Tensor:
    waveforms = 0.1 * torch.randn(3, 16_000, generator=torch.Generator().manual_seed(1))
    return waveforms * (torch.arange(16_000) < LENGTHS[:, None])


def noisy(speech: Tensor) -> Tensor:
    return speech + 0.1 * torch.randn(speech.shape, generator=torch.Generator().manual_seed(2))


def losses(pupil: Checkpoint, heard: Tensor, wanted: Targets, speech: Tensor | None, **settings: float) -> Losses:
    teacher = Teacher(checkpoint(7), ImitationConfiguration(teacher="", **settings)) if settings else None
    objective = Objective(pupil.model, pupil.tokenizer.blank, 0.3, 0.1, teacher=teacher)
    with torch.no_grad():
        found: Losses = objective(heard, LENGTHS, wanted, undisturbed=speech)
    return found


def test_the_divergence_is_that_of_torch() -> None:
    own, other = torch.randn(2, 5, 9, generator=torch.Generator().manual_seed(0)) * 3
    pairs = (torch.distributions.Categorical(logits=each) for each in (other, own))
    torch.testing.assert_close(divergence(own, other), torch.distributions.kl_divergence(*pairs))
    assert divergence(own, own).abs().max() < 1e-5


def test_the_difference_is_in_shares_of_the_variance_and_looks_at_no_padding() -> None:
    generator = torch.Generator().manual_seed(0)
    own, other = torch.randn(2, 2, 6, 4, generator=generator)
    lengths = torch.tensor([6, 2])
    rows = [(0, place) for place in range(6)] + [(1, 0), (1, 1)]
    told = torch.stack([other[row] for row in rows])
    squares = [float((own[row] - other[row]).square().sum()) for row in rows]
    variance = float((told - told.mean(0)).square().sum())
    assert float(difference(Encoded(own, lengths), Encoded(other, lengths))) == pytest.approx(sum(squares) / variance, rel=1e-5)


@pytest.mark.parametrize(("share", "encoder_weight"), [(0.8, 0.2), (1.0, 0.0), (0.3, 2.0)])
def test_the_loss_is_what_the_teacher_says_of_undisturbed_speech_and_the_text(
    speech: Tensor, wanted: Targets, share: float, encoder_weight: float
) -> None:
    pupil, teacher = checkpoint(0), checkpoint(7).model
    assert teacher.decoder is not None
    assert pupil.model.decoder is not None
    heard = noisy(speech)
    alone = losses(pupil, heard, wanted, None)
    # Utterance by utterance, from what the teacher hears and what the pupil hears.
    divergences = []
    for row, text in enumerate(wanted.lengths.tolist()):
        length = LENGTHS[row : row + 1]
        logits = []
        for model, waveforms in ((teacher, speech), (pupil.model, heard)):
            with torch.no_grad():
                encoded = model.encode(waveforms[row : row + 1, : int(length)], length)
                logits.append(model.decoder(wanted.inputs[row : row + 1, :text], encoded.values, encoded.lengths)[0])
        pairs = (torch.distributions.Categorical(logits=each) for each in logits)
        divergences += torch.distributions.kl_divergence(*pairs).tolist()
    with torch.no_grad():
        apart = difference(pupil.model.encode(heard, LENGTHS), teacher.encode(speech, LENGTHS))
    found = losses(pupil, heard, wanted, speech, share=share, encoder_weight=encoder_weight)
    mean = sum(divergences) / len(divergences)
    attention = (1 - share) * float(alone.attention) + share * mean
    assert float(found.attention) == pytest.approx(attention, rel=1e-4)
    total = 0.7 * attention + 0.3 * float(alone.ctc) + encoder_weight * float(apart)
    assert float(found.total) == pytest.approx(total, rel=1e-4)
    assert float(found.encoder) == pytest.approx(float(apart) if encoder_weight else 0.0, rel=1e-5)


def test_its_own_teacher_that_hears_the_same_asks_for_nothing(speech: Tensor, wanted: Targets) -> None:
    found = losses(checkpoint(7), speech, wanted, speech, share=1.0, encoder_weight=1.0)
    assert float(found.attention) == pytest.approx(0, abs=1e-5)
    assert float(found.total) == pytest.approx(0.3 * float(found.ctc), rel=1e-4)


def test_where_nobody_speaks_the_text_alone_is_asked_for(speech: Tensor) -> None:
    tokenizer = checkpoint(0).tokenizer
    silent = targets([[], [], []], [tokenizer.start, tokenizer.start], tokenizer.stop, tokenizer.blank)
    alone = losses(checkpoint(0), speech, silent, None)
    found = losses(checkpoint(0), speech, silent, speech, share=1.0, encoder_weight=0.0)
    assert float(found.attention) == pytest.approx(float(alone.attention), rel=1e-5)


def test_a_teacher_is_neither_trained_nor_a_part_of_what_is(speech: Tensor, wanted: Targets) -> None:
    pupil, other = checkpoint(0), checkpoint(7)
    teacher = Teacher(other, ImitationConfiguration(teacher=""))
    objective = Objective(pupil.model.train(), pupil.tokenizer.blank, 0.3, 0.1, teacher=teacher).train()
    objective(noisy(speech), LENGTHS, wanted, undisturbed=speech).total.backward()
    assert {id(each) for each in objective.parameters()} == {id(each) for each in pupil.model.parameters()}
    assert all(each.grad is not None for each in pupil.model.parameters())
    assert all(each.grad is None and not each.requires_grad for each in other.model.parameters())
    assert not other.model.training


def test_a_model_learns_to_say_in_noise_what_its_teacher_says_without(
    recipe: Callable[..., Recipe], tmp_path: Path, without_pictures: None
) -> None:
    table = write_tones(tmp_path / "tones", 8)
    loop.train(recipe("teacher", table, training__epochs=4))
    teacher = checkpoints.last(tmp_path / "teacher")
    assert teacher is not None
    noise = {"probability": 1.0, "lowest": 0, "highest": 5, "kinds": ["pink"]}
    changes = {
        "training__imitation": {"teacher": str(teacher), "share": 1.0, "encoder_weight": 0.0},
        "training__ctc_weight": 0.0,
        "data__augmentation": {"noise": noise, "speed": {"factors": [0.9, 1.0, 1.1]}},
    }
    whole = loop.train(recipe("whole", table, training__epochs=12, **changes))
    found = [entry["attention"] for entry in log(whole, "step")]
    assert all(map(math.isfinite, found))
    few = len(found) // 4
    assert sum(found[-few:]) < 0.5 * sum(found[:few])
    assert all(entry["encoder"] == 0 for entry in log(whole, "step"))
    # A run that goes on hears what it would have heard.
    loop.train(recipe("halved", table, training__epochs=4, **changes))
    halved = loop.train(recipe("halved", table, training__epochs=12, **changes), resume=True)
    for name, value in weights(whole).items():
        torch.testing.assert_close(weights(halved)[name], value, atol=1e-6, rtol=1e-5)
    changes["training__imitation"] = {**changes["training__imitation"], "encoder_weight": 2.0}
    for entry in log(loop.train(recipe("apart", table, training__epochs=1, **changes)), "step"):
        assert entry["encoder"] > 0
        assert entry["loss"] == pytest.approx(entry["attention"] + 2 * entry["encoder"], rel=1e-4)


def test_a_teacher_of_another_kind_is_refused(tmp_path: Path) -> None:
    model_folder.save(checkpoint(0, "abcdx"), tmp_path / "letters", "card")
    settings = ImitationConfiguration(teacher=str(tmp_path / "letters"))
    with pytest.raises(ConfigurationError, match=r"imitation: .*letters does not fit the model, it differs in tokens; .*from\.$"):
        Teacher.load(settings, checkpoint(1), "cpu")
    other = {**MODEL, "encoder": {**MODEL["encoder"], "width": 16, "trailing_seconds": 1.0}}
    narrow = Recognizer(validate(other, ModelConfiguration, "test"), len(checkpoint(0).tokenizer))
    model_folder.save(Checkpoint(narrow, checkpoint(0).tokenizer), tmp_path / "narrow", "card")
    for weight, keys in ((0.2, r"encoder\.trailing_seconds, encoder\.width"), (0.0, r"encoder\.trailing_seconds")):
        settings = ImitationConfiguration(teacher=str(tmp_path / "narrow"), encoder_weight=weight)
        with pytest.raises(ConfigurationError, match=f"it differs in {keys}; "):
            Teacher.load(settings, checkpoint(1), "cpu")
    without = Recognizer(validate({**MODEL, "decoder": None}, ModelConfiguration, "test"), len(checkpoint(0).tokenizer))
    model_folder.save(Checkpoint(without, checkpoint(0).tokenizer), tmp_path / "ctc", "card")
    with pytest.raises(ConfigurationError, match="both need an autoregressive decoder"):
        Teacher.load(ImitationConfiguration(teacher=str(tmp_path / "ctc")), checkpoint(1), "cpu")


def test_a_teacher_needs_speech(recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    cached = {"encoder_cache": str(tmp_path), "learning_rates": {"encoder": 0}, "imitation": {"teacher": "zh"}}
    with pytest.raises(ConfigurationError, match=r"training\.imitation needs speech to hear"):
        recipe(training=cached)
    with pytest.raises(ConfigurationError, match=r"set training\.ctc_weight below 1"):
        recipe(training__imitation={"teacher": "zh"}, training__ctc_weight=1.0)
    with pytest.raises(ConfigurationError, match="'nobody' is neither a checkpoint folder nor an embedded model"):
        recipe(training__imitation={"teacher": "nobody"})
