"""Greedy search that reads guesses against greedy search that does not: whatever is guessed, the text is the same."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import asr
from asr import configuration
from asr.audio import files
from asr.exceptions import CheckpointError
from asr.model import checkpoint as model_folder
from asr.model import draft as draft_folder
from asr.model.draft import Draft, DraftConfiguration, Guesser, begin
from asr.model.recognizer import Encoded
from asr.search.greedy import GUESSES, greedy_search
from asr.search.hypothesis import Hypothesis
from asr.search.options import DecodingOptions
from tests.search.test_greedy import TOKENIZER, random_encoded, recognizer
from tests.search.toy import Passes


class Prophet(Guesser):
    """Knows the text, and lies at the places that it is told to lie at."""

    def __init__(self, text: tuple[int, ...], lies: frozenset[int], most: int) -> None:
        self.text = (*text, TOKENIZER.stop)
        self.lies = lies
        self.most = most
        self.written = 0
        self.guesses: list[int] = []
        self.asked = 0

    def guess(self, state: Tensor, token: int, memory: tuple[Tensor, Tensor], most: int, least: float, stop: int) -> list[int]:
        """What follows, or something else."""
        assert most <= GUESSES
        self.asked += 1
        told = self.text[self.written :]
        right = next((place for place, each in enumerate(self.guesses) if each != told[place]), len(self.guesses))
        self.written += right + 1
        if self.text[self.written - 1 : self.written] != (token,):  # in a loop, which is cut off in the end
            self.guesses = []
            return []
        places = range(self.written, min(self.written + max(min(most, self.most), 0), len(self.text)))
        self.guesses = [(self.text[place] + (place in self.lies)) % len(TOKENIZER) for place in places]
        return self.guesses


def same(found: Hypothesis, expected: Hypothesis) -> None:
    assert found.tokens == expected.tokens
    assert found.text == expected.text
    assert found.finish_reason == expected.finish_reason
    assert found.log_probabilities == pytest.approx(expected.log_probabilities, abs=1e-3)
    assert found.score == pytest.approx(expected.score, abs=1e-3)


@given(st.integers(0, 60), st.frozensets(st.integers(0, 40), max_size=12), st.integers(0, 6))
def test_any_guesses_leave_the_text_as_it_is(seed: int, lies: frozenset[int], most: int) -> None:
    model = recognizer(seed, suppressed=(0, 1, 2), suppressed_at_start=(3, 4))
    encoded, samples = random_encoded(1)
    (expected,) = greedy_search(model, TOKENIZER, encoded, samples)
    prophet = Prophet(expected.tokens, lies, most)
    (found,) = greedy_search(model, TOKENIZER, encoded, samples, guesser=prophet)
    same(found, expected)
    if expected.finish_reason == "stop" and not lies and most >= GUESSES:
        # With each pass come as many tokens as were guessed, and the one that follows them.
        assert prophet.asked == -(-len(expected.tokens) // (GUESSES + 1))


def test_guesses_come_when_one_utterance_is_left() -> None:
    several = 0
    for seed in range(8):
        model = recognizer(seed)
        encoded, samples = random_encoded(4)
        expected = greedy_search(model, TOKENIZER, encoded, samples)
        assert model.decoder is not None
        guesser = Guesser(begin(model.decoder, 20, 0.0).eval(), model.decoder)
        found = greedy_search(model, TOKENIZER, encoded, samples, guesser=guesser)
        for one, other in zip(found, expected, strict=True):
            same(one, other)
        several += len({len(each.tokens) for each in expected}) > 1
    assert several


def test_a_shortest_text_holds_among_guesses() -> None:
    model = recognizer(3)
    encoded, samples = random_encoded(1)
    samples = samples * 20
    (short,) = greedy_search(model, TOKENIZER, encoded, samples)
    for share in (0.5, 1.0, 2.0):
        (expected,) = greedy_search(model, TOKENIZER, encoded, samples, minimum_length=share)
        # What it would say without: the stop token is among the guesses, too early.
        prophet = Prophet(expected.tokens, frozenset({len(short.tokens)}), 6)
        (found,) = greedy_search(model, TOKENIZER, encoded, samples, minimum_length=share, guesser=prophet)
        same(found, expected)


def test_the_embedded_model_writes_the_same(data: Path) -> None:
    paths = sorted((data / "LibriSpeech").rglob("*.flac"))[:3]
    plain = asr.load("en", "cpu", DecodingOptions(beam_size=1, speculative=False))
    guessing = asr.load("en", "cpu", DecodingOptions(beam_size=1))
    assert plain.options.guesser is None
    assert guessing.options.guesser is not None
    decoder = guessing.checkpoint.model.decoder
    assert decoder is not None
    passes = Passes(decoder)
    tokens = 0
    for path in paths:
        sound = [files.read(path)]
        (found,), (expected,) = guessing.decode(sound), plain.decode(sound)
        assert found.tokens == expected.tokens
        assert found.log_probabilities == pytest.approx(expected.log_probabilities, abs=2e-2)
        tokens += len(found.tokens) + 1
    assert tokens > 1.5 * passes.count


def test_a_beam_reads_no_guesses() -> None:
    assert asr.load("en", "cpu").options.guesser is None


def test_another_decoders_draft_is_refused(tmp_path: Path) -> None:
    model = recognizer(0)
    assert model.decoder is not None
    for changed in ({"width": 16}, {"heads": 8}, {"vocabulary": 1000}):
        values = {"width": 32, "heads": 4, "feed_forward": 64, "vocabulary": 20, **changed}
        with pytest.raises(CheckpointError, match="asr train-draft"):
            Guesser(Draft(DraftConfiguration.model_validate(values)), model.decoder)
    with pytest.raises(CheckpointError, match=r"config\.yaml is missing"):
        draft_folder.load(tmp_path)
    for name, values in (("a", {"kind": "language_model"}), ("b", {"kind": "draft", "width": 32, "heads": 4})):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.yaml").write_text(f"kind: {values['kind']}\n")
        (tmp_path / name / "model.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match="is no draft"):
        draft_folder.load(tmp_path / "a")
    with pytest.raises(CheckpointError, match="draft for a recogniser's decoder"):
        model_folder.load(tmp_path / "b")


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "int8"])
def test_a_draft_says_the_same_in_any_precision(precision: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    settings = DraftConfiguration(width=64, heads=4, feed_forward=128, vocabulary=10)
    whole = Draft(settings).eval()
    model_folder.write_tensors(dict(whole.state_dict()), tmp_path / "model.safetensors")
    configuration.dump(settings, tmp_path / "config.yaml")
    read = draft_folder.load(tmp_path, precision=precision)  # type: ignore[arg-type]
    kind = torch.bfloat16 if precision == "bfloat16" else torch.float32
    states, tokens = torch.randn(2, 3, 64, dtype=kind), torch.randn(2, 3, 64, dtype=kind)
    memory = [(torch.randn(4, positions, 16, dtype=kind), torch.randn(4, positions, 16, dtype=kind)) for positions in (5, 9)]
    with torch.inference_mode():
        found = read(states, tokens, memory)
        expected = whole(states.float(), tokens.float(), [(keys.float(), values.float()) for keys, values in memory])
    assert float((found.float() - expected).norm() / expected.norm()) < (1e-6 if precision == "float32" else 0.02)


def test_rows_do_not_depend_on_the_others() -> None:
    torch.manual_seed(0)
    draft = Draft(DraftConfiguration(width=32, heads=4, feed_forward=64, vocabulary=10)).eval()
    states, tokens = torch.randn(2, 3, 32), torch.randn(2, 3, 32)
    memory = [(torch.randn(4, positions, 8), torch.randn(4, positions, 8)) for positions in (5, 9)]
    with torch.inference_mode():
        both = draft(states, tokens, memory)
        for row in range(2):
            torch.testing.assert_close(draft(states[row : row + 1], tokens[row : row + 1], memory[row : row + 1])[0], both[row])


def test_a_cache_forgets_what_was_not_right() -> None:
    model = recognizer(1)
    decoder = model.decoder
    assert decoder is not None
    encoded = Encoded(torch.randn(1, 9, 32), torch.tensor([9]))
    tokens = torch.randint(3, 20, (1, 7))
    with torch.inference_mode():
        cache = decoder.cache()
        decoder(tokens[:, :4], encoded.values, encoded.lengths, cache)
        decoder(torch.randint(3, 20, (1, 3)), encoded.values, encoded.lengths, cache)
        cache.truncate(4)
        assert cache.length == 4
        found = decoder(tokens[:, 4:], encoded.values, encoded.lengths, cache)
        expected = decoder(tokens, encoded.values, encoded.lengths)[:, 4:]
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_a_token_is_read_alike_alone_and_after_guesses() -> None:
    decoder = asr.load("en", "cpu", DecodingOptions(beam_size=1), precision="int8").checkpoint.model.decoder
    assert decoder is not None
    torch.manual_seed(0)
    encoded, lengths = torch.randn(1, 60, 512), torch.tensor([60])  # few positions: attended to in 32 bits on any processor
    tokens = torch.randint(0, 50_000, (1, 14))
    found = []
    with torch.inference_mode():
        for parts in ((2, *[1] * 12), (2, 5, 4, 3)):
            cache = decoder.cache()
            found.append(torch.cat([decoder.states(part, encoded, lengths, cache) for part in tokens.split(parts, 1)], 1))
    assert torch.equal(*found)
