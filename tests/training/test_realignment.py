"""The objective of writing CTC's text anew, against a sum over all ways, and what it teaches."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from asr.model import checkpoint as model_folder
from asr.model.configuration import EncoderConfiguration, LengthWay, ModelConfiguration, NonautoregressiveConfiguration
from asr.model.nonautoregressive import NonautoregressiveDecoder
from asr.model.recognizer import Encoded, Recognizer
from asr.search.ctc import Spike
from asr.search.realignment import alignment_rows, realign_search
from asr.text.tokenizer import CharacterTokenizer
from asr.training import checkpoints, loop
from asr.training.configuration import Recipe
from asr.training.objective import Objective, targets
from asr.training.realignment import mistaken, realignment_loss, realigns, unheard_positions
from tests.training.conftest import log, weights

BLANK = 0
VOCABULARY = 4


def decoder(vocabulary: int = VOCABULARY, **changes: Any) -> NonautoregressiveDecoder:
    torch.manual_seed(3)
    settings = NonautoregressiveConfiguration.model_validate(
        {"layers": 1, "feed_forward": 32, "lengths": ("alignment",), "acoustic_embedding": True, "dropout": 0.0, **changes}
    )
    made = NonautoregressiveDecoder(settings, 16, vocabulary)
    # A spread of answers: all ways count.
    torch.nn.init.normal_(made.token_embedding.weight, std=0.5)
    return made


def path_of(tokens: list[list[int]], positions: int) -> Tensor:
    """Log-probabilities (batch, positions, tokens) whose greedy path says the tokens at every second position."""
    scores = torch.zeros(len(tokens), positions, VOCABULARY)
    scores[..., BLANK] = 3.0
    for row, text in enumerate(tokens):
        for number, token in enumerate(text):
            scores[row, 2 * number + 1, token] = 6.0
    return scores.log_softmax(dim=-1)


def test_the_loss_is_that_of_all_ways_to_write_the_text_in_the_row() -> None:
    made = decoder()
    encoded = Encoded(torch.randn(3, 9, 16), torch.tensor([9, 7, 9]))
    # CTC's text, and the true one: a token more, one less, another.
    heard, true = [[1, 2], [1, 2, 3], [2]], [[1, 2, 3], [1, 3], [3]]
    labels, lengths = torch.tensor([token for text in true for token in text]), torch.tensor([3, 2, 1])
    loss = realignment_loss(made, encoded, path_of(heard, 9), labels, lengths, BLANK).detach()
    total = 0.0
    for row, (text, wanted) in enumerate(zip(heard, true, strict=True)):
        rows = alignment_rows(
            [[Spike(token, 2 * n + 1, 0.0) for n, token in enumerate(text)]], [int(encoded.lengths[row])], BLANK, 1.0
        )
        values = encoded.values[row : row + 1, : int(encoded.lengths[row])]
        acoustic = made.heard_embedding(values, rows.begins, rows.ends)
        with torch.no_grad():
            answers = made(rows.tokens, rows.lengths, values, encoded.lengths[row : row + 1], acoustic=acoustic)[0].softmax(
                dim=-1
            )
        likelihood = 0.0
        for way in itertools.product(range(VOCABULARY), repeat=2 * len(text) + 1):
            if [token for token, _ in groupby(way) if token != BLANK] == wanted:
                likelihood += math.prod(float(answers[place, token]) for place, token in enumerate(way))
        total -= math.log(likelihood)
    assert float(loss) == pytest.approx(total / 6, rel=1e-4)


def test_a_text_that_does_not_fit_into_its_row_teaches_nothing_and_harms_nothing() -> None:
    made = decoder()
    encoded = Encoded(torch.randn(2, 9, 16), torch.tensor([9, 9]))
    both = realignment_loss(made, encoded, path_of([[], [1, 2]], 9), torch.tensor([1, 2, 3, 1, 2]), torch.tensor([3, 2]), BLANK)
    both.backward()  # type: ignore[no-untyped-call]
    assert math.isfinite(float(both.detach()))
    assert all(torch.isfinite(each.grad).all() for each in made.parameters() if each.grad is not None)
    none = torch.zeros(0, dtype=torch.int64)
    nothing = realignment_loss(made, encoded, path_of([[], []], 9), none, torch.tensor([0, 0]), BLANK).detach()
    assert math.isfinite(float(nothing))


def test_mistakes_are_as_many_as_asked_for_and_of_all_kinds() -> None:
    text = [Spike(1 + n % 2, n, 0.0) for n in range(50)]
    rows = alignment_rows([text] * 400, [60] * 400, BLANK, 1.0)
    letters = torch.tensor([1, 2, 2, 3])
    read = mistaken(rows, letters, BLANK, 0.4, torch.Generator().manual_seed(0))
    before, now = rows.tokens[:, 1::2], read.tokens[:, 1::2]
    # A share of 0 to 0.4, half of them blank; some of the others are what was there before.
    blank = now == BLANK
    assert float(blank.float().mean()) == pytest.approx(0.1, abs=0.01)
    other = (now != before) & ~blank
    assert float(other.float().mean()) == pytest.approx(0.1 * (1 - 0.25 * 0.5 - 0.5 * 0.5), abs=0.01)
    shares = (now != before).float().mean(dim=1)
    assert float(shares.min()) < 0.02
    assert float(shares.max()) > 0.25
    put_in = read.tokens[:, ::2]
    assert float((put_in != BLANK).float().mean()) == pytest.approx(0.3 * 0.2, abs=0.01)
    counts = torch.bincount(put_in[put_in != BLANK], minlength=4).float()
    assert (counts / counts.sum()).tolist() == pytest.approx([0.0, 0.25, 0.5, 0.25], abs=0.03)
    assert torch.equal(mistaken(rows, letters, BLANK, 0.0, torch.Generator()).tokens, rows.tokens)
    assert torch.equal(mistaken(rows, letters[:0], BLANK, 0.5, torch.Generator()).tokens, rows.tokens)


def test_what_is_unheard_is_runs_of_the_rows_places() -> None:
    text = [Spike(1, 5 * n + 2, 0.0) for n in range(40)]
    rows = alignment_rows([text, text[:10]], [200, 50], BLANK, 1.0)
    silent = unheard_positions(rows, 200, 0.3, torch.Generator().manual_seed(0))
    assert not silent[1, 50:].any()
    runs = [len(list(group)) for quiet, group in itertools.groupby(silent[0].tolist()) if quiet]
    # Eight places are four tokens, five positions each, and what is beside them; one at the end is shorter.
    assert sorted(runs)[1] >= 15
    shares = [
        float(unheard_positions(rows, 200, 0.3, torch.Generator().manual_seed(seed))[0].float().mean()) for seed in range(300)
    ]
    assert sum(shares) / len(shares) == pytest.approx(0.3, abs=0.06)
    assert not unheard_positions(rows, 200, 0.0, torch.Generator()).any()


def test_half_of_the_batches_are_its_where_there_are_other_ways_too() -> None:
    both: tuple[LengthWay, ...] = ("ctc", "alignment")
    generator = torch.Generator().manual_seed(0)
    assert sum(realigns(both, generator) for _ in range(2000)) == pytest.approx(1000, abs=80)
    assert all(realigns(("alignment",), generator) for _ in range(10))
    assert not any(realigns(("ctc", "predictor"), generator) for _ in range(10))
    assert not realigns(both, None)
    assert realigns(("alignment", "ctc"), None)


def test_it_learns_to_write_what_ctc_has_heard_wrong() -> None:
    """CTC and encoder stay as they are, and say nothing of one letter in three: the decoder learns to write it."""
    torch.manual_seed(0)
    tokenizer = CharacterTokenizer.build(["abcd"])
    second = NonautoregressiveConfiguration(
        layers=1, feed_forward=64, dropout=0.0, lengths=("alignment",), acoustic_embedding=True, tokens_per_second=40
    )
    settings = ModelConfiguration(
        encoder=EncoderConfiguration(layers=1, width=32, feed_forward=64), decoder=None, nonautoregressive=second
    )
    model = Recognizer(settings, len(tokenizer))
    assert model.ctc is not None
    texts = [tokenizer.encode(text) for text in ("abcabc", "bcab", "cababcab", "ab")]
    # What each position says is its letter, c like silence.
    letters = torch.zeros(len(tokenizer), 32)
    for token in tokenizer.encode("ab"):
        letters[token, token] = 1.0
    values = torch.zeros(4, 24, 32)
    for row, text in enumerate(texts):
        for number, token in enumerate(text):
            values[row, 3 * number + 1] = letters[token]
    encoded = Encoded(values, torch.tensor([3 * len(text) for text in texts]))
    with torch.no_grad():
        model.ctc.weight.copy_(letters * 12)  # never surer than 0.88: between all letters there is a place
        model.ctc.bias.zero_()
        model.ctc.bias[tokenizer.blank] = 10.0
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith("nonautoregressive"))
    wanted = targets(texts, [tokenizer.start], tokenizer.stop, tokenizer.blank)
    objective = Objective(model, tokenizer.blank, 1.0, 0.0, misread=0.1, unheard=0.05)
    optimizer = torch.optim.Adam(model.nonautoregressive.parameters(), 3e-3)  # type: ignore[union-attr]
    samples = [16_000] * 4
    assert [each.text for each in realign_search(model, tokenizer, encoded, samples)] != ["abcabc", "bcab", "cababcab", "ab"]
    generator = torch.Generator().manual_seed(0)
    for _ in range(300):
        losses = objective.losses(encoded, wanted, generator)
        losses.total.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()
    for iterations in (1, 3):
        found = realign_search(model.eval(), tokenizer, encoded, samples, iterations)
        assert [each.text for each in found] == ["abcabc", "bcab", "cababcab", "ab"]


@pytest.mark.parametrize("lengths", [["alignment"], ["alignment", "ctc"]])
@pytest.mark.usefixtures("without_pictures")
def test_a_run_trains_it_alone(recipe: Callable[..., Recipe], tmp_path: Path, lengths: list[str]) -> None:
    first = model_folder.load(checkpoints.last(loop.train(recipe("first", training__epochs=1))))  # type: ignore[arg-type]
    assert first.model.ctc is not None
    with torch.no_grad():
        # It has only learned to say nothing yet, and a row that the text does not fit into teaches nothing.
        first.model.ctc.bias[first.tokenizer.blank] -= 5.0
    model_folder.save(first, tmp_path / "parent", "# parent\n")
    second = {
        "layers": 1,
        "heads": 2,
        "feed_forward": 32,
        "lengths": lengths,
        "acoustic_embedding": True,
        "tokens_per_second": 20,
    }
    frozen = {"encoder": 0.0, "decoder": 0.0, "ctc": 0.0}
    settings = recipe(
        initialize=str(tmp_path / "parent"),
        model__nonautoregressive=second,
        training__ctc_weight=1.0,
        training__learning_rates=frozen,
        training__misread=0.2,
        training__unheard=0.1,
    )
    run = loop.train(settings)
    before, after = first.model.state_dict(), weights(run)
    for name, value in after.items():
        moved = not torch.equal(value, before.get(name, torch.zeros(0)))
        assert moved == name.startswith("nonautoregressive"), name
    losses = [step["nonautoregressive"] for step in log(run, "step")]
    assert min(losses) > 0
    if lengths == ["alignment"]:  # otherwise the last and the first may be of two kinds
        assert losses[-1] < losses[0]
    # The decoder that stays as it is has an error rate too, but not the one by which checkpoints are compared.
    for validation in log(run, "validation"):
        assert validation["error_rate"] == validation["nonautoregressive_error_rate"]
