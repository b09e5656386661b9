"""A draft learns from what a decoder writes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from asr.exceptions import CheckpointError, TrainingError
from asr.model import checkpoint as model_folder
from asr.model import draft as draft_folder
from asr.model.checkpoint import Checkpoint
from asr.model.draft import Guesser, begin
from asr.model.recognizer import Recognizer
from asr.training import draft
from asr.training.draft import DEPTH, Example
from tests.search.test_greedy import TOKENIZER, recognizer


def test_it_learns_what_the_embedded_model_writes(sentences: Path, tmp_path: Path) -> None:
    said: list[str] = []
    result = draft.train("en", [sentences], tmp_path / "draft", epochs=3, vocabulary=3000, device="cpu", report=said.append)
    assert result.utterances == 7
    assert len(result.right) == DEPTH
    assert sorted(result.right, reverse=True) == list(result.right)
    losses = [float(found[1]) for each in said if (found := re.search(r"([\d.]+) nats", each))]
    assert len(losses) == 3
    assert losses[2] < losses[0]
    settings = draft_folder.load(tmp_path / "draft", precision="int8").configuration
    assert settings.vocabulary == 3000
    card = (tmp_path / "draft" / "README.md").read_text()
    assert "7 of 0.00 hours" in card
    with pytest.raises(TrainingError, match="holds a model already"):
        draft.train("en", [sentences], tmp_path / "draft")
    with pytest.raises(CheckpointError, match="draft for a recogniser's decoder"):
        model_folder.load(tmp_path / "draft")


def examples(model: Recognizer, count: int) -> list[Example]:
    """What a random decoder writes of random utterances, as it is."""
    decoder = model.decoder
    assert decoder is not None
    found = []
    for _ in range(count):
        positions = int(torch.randint(5, 12, ()))
        encoded, lengths = torch.randn(1, positions, 32), torch.tensor([positions])
        tokens = [TOKENIZER.start]
        with torch.no_grad():
            for _ in range(12):
                logits = decoder(torch.tensor([tokens]), encoded, lengths, last_only=True)[0, -1]
                tokens.append(int(logits.argmax()))
            cache = decoder.cache()
            states = decoder.states(torch.tensor([tokens[:-1]]), encoded, lengths, cache)[0]
            found.append(Example(torch.tensor(tokens), states, decoder.memory(cache, 0, positions)))
    return found


def test_guesses_come_to_be_right() -> None:
    model = recognizer(4)
    decoder = model.decoder
    assert decoder is not None
    decoder.requires_grad_(False)
    torch.manual_seed(0)
    guesser = Guesser(begin(decoder, len(TOKENIZER), 0.0), decoder)
    spoken = examples(model, 40)
    before = draft.accuracy(guesser, spoken, autocast=False)
    draft.fit(guesser, spoken, 60, 1, False, lambda message: None)
    after = draft.accuracy(guesser, spoken, autocast=False)
    assert after[0] > before[0] + 0.15
    assert after[2] > before[2]
    # Counted plainly: where the tokens after the next are what it says, one utterance and one place at a time.
    right, places = 0, 0
    with torch.inference_mode():
        for each in spoken:
            for place in range(len(each.states) - 1):
                least = 0.0
                told = guesser.guess(each.states[place], int(each.tokens[place + 1]), each.memory, 1, least, TOKENIZER.stop)
                right += told == [int(each.tokens[place + 2])]
                places += 1
    assert right / places == pytest.approx(after[0], abs=1e-6)


def test_what_is_not_likely_is_not_guessed_and_nothing_after_the_stop_token() -> None:
    model = recognizer(4)
    decoder = model.decoder
    assert decoder is not None
    guesser = Guesser(begin(decoder, len(TOKENIZER), 0.0).eval(), decoder)
    (example,) = examples(model, 1)
    with torch.inference_mode():
        told = guesser.guess(example.states[0], int(example.tokens[1]), example.memory, 5, 0.0, -1)
        assert len(told) == 5
        assert guesser.guess(example.states[0], int(example.tokens[1]), example.memory, 5, 1.01, -1) == []
        assert guesser.guess(example.states[0], int(example.tokens[1]), example.memory, 0, 0.0, -1) == []
        assert guesser.guess(example.states[0], int(example.tokens[1]), example.memory, 5, 0.0, told[0]) == told[:1]


def test_a_decoder_of_another_kind_is_refused(tones: Path, tmp_path: Path) -> None:
    for name, changes in (("after", {"norm": "after"}), ("silent", {})):
        model = recognizer(0, **changes)
        model_folder.save(Checkpoint(model, TOKENIZER), tmp_path / name, "")
    with pytest.raises(TrainingError, match="norms before"):
        draft.train(str(tmp_path / "after"), [tones], tmp_path / "a", device="cpu")
    # It does not come to an end within the bound.
    with pytest.raises(TrainingError, match="too few"):
        draft.train(str(tmp_path / "silent"), [tones], tmp_path / "b", device="cpu")
