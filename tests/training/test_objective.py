from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.audio.augmentation import SpecAugment, SpecAugmentConfiguration
from asr.configuration import validate
from asr.model.configuration import ModelConfiguration
from asr.model.recognizer import Recognizer
from asr.training.objective import Objective, encoded_targets, fits, targets
from tests.search.multilingual import PROMPT, small_multilingual
from tests.training.conftest import MODEL

TEXTS = [[5, 6, 6, 7], [8], [7, 5]]
START, STOP, BLANK, SIZE = [2], 3, 0, 9


@pytest.fixture
def model() -> Recognizer:
    torch.manual_seed(0)
    return Recognizer(validate(MODEL, ModelConfiguration, "test"), SIZE).eval()


@pytest.fixture
def speech() -> tuple[torch.Tensor, torch.Tensor]:
    lengths = torch.tensor([16_000, 7_000, 12_000])
    waveforms = 0.1 * torch.randn(3, 16_000, generator=torch.Generator().manual_seed(1))
    return waveforms * (torch.arange(16_000) < lengths[:, None]), lengths


def plain(model: Recognizer, speech: tuple[torch.Tensor, torch.Tensor], smoothing: float) -> tuple[float, float]:
    """Both losses, utterance by utterance and token by token, from the definitions."""
    crosses, ctcs = [], []
    for row, text in enumerate(TEXTS):
        length = speech[1][row : row + 1]
        encoded = model.encode(speech[0][row : row + 1, : int(length)], length)
        logits = model.decoder(torch.tensor([[*START, *text]]), encoded.values, encoded.lengths)[0]
        for scores, token in zip(logits.log_softmax(-1), [*text, STOP], strict=True):
            wanted = torch.full((SIZE,), smoothing / SIZE)
            wanted[token] += 1 - smoothing
            crosses.append(float(-(wanted * scores).sum()))
        log_probabilities = model.ctc_log_probabilities(encoded).transpose(0, 1)
        loss = F.ctc_loss(
            log_probabilities, torch.tensor([text]), encoded.lengths, torch.tensor([len(text)]), blank=BLANK, reduction="sum"
        )
        ctcs.append(float(loss))
    return sum(crosses) / len(crosses), sum(ctcs) / sum(map(len, TEXTS))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_the_loss_is_that_of_the_definitions(
    model: Recognizer, speech: tuple[torch.Tensor, torch.Tensor], weight: float, smoothing: float
) -> None:
    wanted = targets(TEXTS, START, STOP, BLANK)
    with torch.no_grad():
        losses = Objective(model, BLANK, weight, smoothing)(*speech, wanted)
        attention, ctc = plain(model, speech, smoothing)
    expected = (1 - weight) * attention * (weight < 1) + weight * ctc
    assert float(losses.total) == pytest.approx(expected, rel=1e-4)
    assert float(losses.attention) == pytest.approx(attention if weight < 1 else 0, rel=1e-4)
    assert float(losses.ctc) == pytest.approx(ctc if weight > 0 else 0, rel=1e-4)


def test_what_the_decoder_reads_and_what_it_is_asked() -> None:
    found = targets([[5, 6], []], [1, 2], STOP, BLANK)
    assert found.inputs.tolist() == [[1, 2, 5, 6], [1, 2, 0, 0]]
    assert found.outputs.tolist() == [[-100, 5, 6, STOP], [-100, STOP, -100, -100]]
    assert found.lengths.tolist() == [4, 2]
    assert found.labels.tolist() == [5, 6]
    assert found.label_lengths.tolist() == [2, 0]


def test_a_multilingual_decoder_is_asked_for_the_language_of_each_utterance() -> None:
    model = small_multilingual()
    # A name of a language is no code, and the last two say nothing: these are asked for in the model's own.
    found = encoded_targets(model, ["5-", "6-", "7-", "8-", "9-"], [16_000] * 5, None, languages=["zh", "en", "Chinese", ""])
    asked = [[model.tokenizer.tokens[token] for token in row[: len(PROMPT)]] for row in found.inputs.tolist()]
    assert asked == [[PROMPT[0], f"<|{code}|>", *PROMPT[2:]] for code in ("zh", "en", "en", "en", "en")]
    plain = encoded_targets(model, ["5-", "6-", "7-", "8-", "9-"], [16_000] * 5, None)
    assert torch.equal(found.inputs[1:], plain.inputs[1:])
    assert torch.equal(found.outputs, plain.outputs)


def test_a_batch_without_any_text_has_a_finite_loss_and_gradient(
    model: Recognizer, speech: tuple[torch.Tensor, torch.Tensor]
) -> None:
    losses = Objective(model, BLANK, 0.3, 0.1)(*speech, targets([[], [], []], START, STOP, BLANK))
    losses.total.backward()
    assert losses.total.isfinite()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters() if parameter.grad is not None)


def test_masks_are_drawn_in_training_only(model: Recognizer, speech: tuple[torch.Tensor, torch.Tensor]) -> None:
    masks = SpecAugment(SpecAugmentConfiguration(frequency_masks=2, frequency_width=20))
    objective = Objective(model, BLANK, 0.3, 0.0, masks)
    wanted = targets(TEXTS, START, STOP, BLANK)

    def loss(seed: int | None) -> float:
        torch.manual_seed(0)  # dropout's, which is the same each time
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        torch.manual_seed(0)  # dropout is the same each time
        with torch.no_grad():
            return float(objective(*speech, wanted, generator).total)

    objective.train()
    assert loss(1) == loss(1)
    assert loss(1) != loss(2)
    objective.eval()
    assert loss(1) == loss(2) == loss(None)


@settings(max_examples=50)
@given(text=st.lists(st.integers(1, 2), max_size=4), positions=st.integers(1, 6))
def test_a_text_fits_where_some_path_of_ctc_spells_it(text: list[int], positions: int) -> None:
    def spells(path: tuple[int, ...]) -> bool:
        return [token for token, _ in itertools.groupby(path) if token != 0] == text

    assert fits(positions, text, None, 1) == any(map(spells, itertools.product((0, 1, 2), repeat=positions)))


def test_a_text_must_fit_the_decoder_with_its_prompt() -> None:
    assert fits(100, [1, 2, 3], 5, 2)
    assert not fits(100, [1, 2, 3], 5, 3)
