"""A Transformer language model in all searches, against full passes and against enumeration of everything."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.exceptions import CheckpointError, ConfigurationError
from asr.model import checkpoint as model_folder
from asr.model.checkpoint import Checkpoint
from asr.model.language_model import LanguageModelCheckpoint, LanguageModelConfiguration, TransformerLanguageModel
from asr.search import language_model
from asr.search.decoding import decode
from asr.search.language_model import MixedLanguageModel, score_texts
from asr.search.options import DecodingOptions
from asr.search.transformer_scorer import NeuralLanguageModel
from asr.text.tokenizer import CharacterTokenizer
from asr.training.ngram_text import train
from tests.search import test_greedy, toy

SAMPLES = [16000] * 3
LONGEST = 12


def language(seed: int = 0, tokenizer: CharacterTokenizer = toy.TOKENIZER, positions: str = "learned") -> NeuralLanguageModel:
    """A random model with opinions."""
    torch.manual_seed(seed)
    configuration = LanguageModelConfiguration(
        width=16,
        layers=2,
        heads=2,
        feed_forward=32,
        positions=positions,  # type: ignore[arg-type]
        maximum_length=LONGEST,
    )
    model = TransformerLanguageModel(configuration, len(tokenizer)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                torch.nn.init.normal_(parameter, std=0.5)
    return NeuralLanguageModel(LanguageModelCheckpoint(model, tokenizer))


@torch.no_grad()
def by_one_pass(fused: NeuralLanguageModel, text: tuple[int, ...]) -> float:
    """Log-probability of a text and its stop token, in one pass without a cache."""
    tokenizer = fused.checkpoint.tokenizer
    spoken = fused.checkpoint.model(torch.tensor([[2, *text]]))[0].double().log_softmax(dim=-1)
    return sum(float(spoken[place, token]) for place, token in enumerate((*text, tokenizer.stop)))


@pytest.mark.parametrize("positions", ["learned", "sinusoidal"])
@given(st.lists(st.lists(st.integers(4, 6), max_size=LONGEST - 1), min_size=1, max_size=5))
@settings(max_examples=30)
def test_steps_equal_one_pass(positions: str, texts: list[list[int]]) -> None:
    fused = language(1, positions=positions)
    expected = [by_one_pass(fused, tuple(text)) for text in texts]
    assert score_texts(fused, toy.TOKENIZER, texts) == pytest.approx(expected, abs=1e-4)


@given(st.data())
@settings(max_examples=40)
def test_rows_that_stay_leave_and_grow_are_scored_as_from_scratch(data: st.DataObject) -> None:
    fused = language(2)
    scorer = fused.scorer(toy.TOKENIZER, 2)
    texts: list[list[int]] = [[], []]
    for _ in range(data.draw(st.integers(1, 8))):
        rows = data.draw(st.lists(st.integers(0, len(texts) - 1), min_size=1, max_size=4))
        tokens = data.draw(st.lists(st.sampled_from([-1, 4, 5, 6]), min_size=len(rows), max_size=len(rows)))
        scorer.advance(torch.tensor(rows), torch.tensor(tokens))
        texts = [texts[row] + [token] * (token >= 0) for row, token in zip(rows, tokens, strict=True)]
    candidates = torch.tensor([[3, 4, 5, 6]] * len(texts))
    with torch.no_grad():
        for text, scores in zip(texts, scorer.score(candidates), strict=True):
            spoken = fused.checkpoint.model(torch.tensor([[2, *text]]))[0, -1].double().log_softmax(dim=-1)
            torch.testing.assert_close(scores, spoken[3:7], atol=1e-4, rtol=0)


@pytest.mark.parametrize("decoder", ["autoregressive", "joint"])
def test_a_wide_beam_finds_the_best_of_all_texts(decoder: str) -> None:
    model, fused = toy.recognizer(3), language(3)
    encoded = toy.encoded()
    options = DecodingOptions(
        decoder,  # type: ignore[arg-type]
        beam_size=200,
        n_best=5,
        beam_threshold=1e9,
        ctc_weight=0.4,
        length_bonus=0.3,
        language_model=fused,
        language_model_weight=0.8,
    )
    share = 0.4 if decoder == "joint" else 0.0
    alone = []
    for row, best in enumerate(decode(model, toy.TOKENIZER, encoded, SAMPLES, options)):
        utterance = toy.one(encoded, row)
        by_ctc = toy.alignments(model.ctc_log_probabilities(utterance)[0].detach())
        without = {
            text: (1 - share) * toy.decoder_score(model, utterance, text) + share * by_ctc.get(text, -1e9) + 0.3 * len(text)
            for text in toy.every_text()
        }
        scores = {text: score + 0.8 * by_one_pass(fused, text) for text, score in without.items()}
        ranking = sorted(scores, key=lambda text: -scores[text])[:5]
        assert [each.tokens for each in (best, *best.alternatives)] == ranking
        assert [each.score for each in (best, *best.alternatives)] == pytest.approx([scores[t] for t in ranking], abs=1e-4)
        alone.append(max(without, key=lambda text: without[text]) == ranking[0])
    assert not all(alone)  # the language model had something to say


def test_a_wide_ctc_beam_finds_the_best_of_all_texts() -> None:
    model, fused = toy.recognizer(6), language(3)
    encoded = toy.encoded()
    options = DecodingOptions("ctc-beam", beam_size=200, language_model=fused, language_model_weight=0.5, length_bonus=0.2)
    for row, best in enumerate(decode(model, toy.TOKENIZER, encoded, SAMPLES, options)):
        by_ctc = toy.alignments(model.ctc_log_probabilities(toy.one(encoded, row))[0].detach())
        scores = {text: value + 0.5 * by_one_pass(fused, text) + 0.2 * len(text) for text, value in by_ctc.items()}
        assert best.tokens == max(scores, key=lambda text: scores[text])
        assert best.score == pytest.approx(max(scores.values()), abs=1e-4)


def test_rescoring_adds_what_a_pass_says() -> None:
    model, fused = toy.recognizer(7), language(4)
    encoded = toy.encoded()
    options = DecodingOptions(
        "rescoring", beam_size=60, n_best=20, ctc_weight=0.4, language_model=fused, language_model_weight=0.5
    )
    for row, best in enumerate(decode(model, toy.TOKENIZER, encoded, SAMPLES, options)):
        utterance = toy.one(encoded, row)
        by_ctc = toy.alignments(model.ctc_log_probabilities(utterance)[0].detach())
        for each in (best, *best.alternatives):
            if each.tokens in toy.every_text():
                acoustic = 0.6 * toy.decoder_score(model, utterance, each.tokens) + 0.4 * by_ctc[each.tokens]
                assert each.score == pytest.approx(acoustic + 0.5 * by_one_pass(fused, each.tokens), abs=1e-4)


def test_neighbours_do_not_matter() -> None:
    model, fused = test_greedy.recognizer(1, suppressed=(0, 1, 2)), language(5, test_greedy.TOKENIZER)
    encoded, samples = test_greedy.random_encoded(4)
    options = DecodingOptions("autoregressive", beam_size=4, n_best=2, language_model=fused, language_model_weight=0.5)
    for row, together in enumerate(decode(model, test_greedy.TOKENIZER, encoded, samples, options)):
        (alone,) = decode(model, test_greedy.TOKENIZER, toy.one(encoded, row), samples[row : row + 1], options)
        assert alone.tokens == together.tokens
        assert alone.score == pytest.approx(together.score, abs=1e-4)


def test_what_is_longer_than_the_model_reads_is_not_judged() -> None:
    fused = language(6)
    short, long = [4] * (LONGEST - 1), [4] * (3 * LONGEST)
    one, other, end = score_texts(fused, toy.TOKENIZER, [short, long, [*short, 5]])
    stop = one - end
    spoken = by_one_pass(fused, tuple(short))
    assert one == pytest.approx(spoken, abs=1e-4)
    assert other == pytest.approx(end + _last(fused, short, 4) - _last(fused, short, 5), abs=1e-4)
    assert stop == pytest.approx(_last(fused, short, 3) - _last(fused, short, 5), abs=1e-4)


@torch.no_grad()
def _last(fused: NeuralLanguageModel, text: list[int], token: int) -> float:
    return float(fused.checkpoint.model(torch.tensor([[2, *text]]))[0, -1].double().log_softmax(dim=-1)[token])


def test_tokens_may_be_in_another_order() -> None:
    fused = language(7)
    turned = CharacterTokenizer([*toy.TOKENIZER.tokens[:4], *reversed(toy.TOKENIZER.tokens[4:])])
    (expected,) = score_texts(fused, toy.TOKENIZER, [[4, 5, 5, 6]])
    assert score_texts(fused, turned, [[6, 5, 5, 4]]) == pytest.approx([expected], abs=1e-4)


def test_a_folder_is_read_back_and_disagreement_is_one_sentence(tmp_path: Path) -> None:
    fused = language(8)
    folder = tmp_path / "letters"
    model_folder.save(fused.checkpoint, folder, "# card\n")
    again = language_model.load(folder)
    assert sorted(each.name for each in folder.iterdir()) == ["README.md", "config.yaml", "model.safetensors", "tokens.txt"]
    expected = score_texts(fused, toy.TOKENIZER, [[4, 5]])
    assert score_texts(again, toy.TOKENIZER, [[4, 5]]) == pytest.approx(expected, abs=1e-4)

    encoded, samples = test_greedy.random_encoded(2)
    options = DecodingOptions("autoregressive", beam_size=2, language_model=again)
    with pytest.raises(ConfigurationError, match=r"letters: the language model does not know .* 'c' for one; train it with"):
        decode(test_greedy.recognizer(0), test_greedy.TOKENIZER, encoded, samples, options)
    with pytest.raises(CheckpointError, match="letters: is a language model and no recogniser; give it as --language-model"):
        model_folder.load(folder)
    model_folder.save(Checkpoint(toy.recognizer(0), toy.TOKENIZER), tmp_path / "recogniser", "")
    with pytest.raises(CheckpointError, match="recogniser: is no language model; give a folder that asr train-lm wrote"):
        language_model.load(tmp_path / "recogniser")
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"letters: is not a checkpoint, model.safetensors is missing"):
        language_model.load(folder)


@given(st.lists(st.integers(4, 6), max_size=LONGEST - 2))
@settings(max_examples=30)
def test_a_mixture_is_the_mean_of_probabilities(text: list[int]) -> None:
    parts = [language(1), language(2), language(3)]
    mixture = MixedLanguageModel(parts).scorer(toy.TOKENIZER, 2)
    alone = [part.scorer(toy.TOKENIZER, 2) for part in parts]
    candidates = torch.arange(len(toy.TOKENIZER)).expand(2, -1)
    for token in [*text, None]:
        expected = torch.stack([each.score(candidates).exp() for each in alone]).mean(dim=0)
        assert torch.allclose(mixture.score(candidates).exp(), expected, atol=1e-9)
        if token is not None:
            for each in (mixture, *alone):
                each.advance(torch.tensor([1, 0]), torch.tensor([token, 4]))


def test_several_files_are_mixed(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 2), ("a,b", 3)):
        model_folder.save(language(seed).checkpoint, tmp_path / name, "")
    mixed = language_model.load_mixture("b, a", tmp_path)
    assert isinstance(mixed, MixedLanguageModel)
    # A path that holds a comma is one path.
    assert isinstance(language_model.load_mixture(str(tmp_path / "a,b")), NeuralLanguageModel)
    scores = [score_texts(each, toy.TOKENIZER, [[]])[0] for each in (mixed, *mixed.models)]
    assert min(scores[1:]) < scores[0] < max(scores[1:])
    with pytest.raises(CheckpointError, match="c: does not exist"):
        language_model.load_mixture("a,c", tmp_path)
    with pytest.raises(CheckpointError, match="'a,': a language model's name is missing beside a comma"):
        language_model.load_mixture("a,", tmp_path)


def test_words_and_tokens_are_not_mixed(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("ab abc\nba cab\n" * 5)
    words = train([tmp_path / "text.txt"], tmp_path / "words.safetensors", order=2).path
    tokens = train([tmp_path / "text.txt"], tmp_path / "tokens.safetensors", order=2, tokenizer=toy.TOKENIZER).path
    letters = language_model.load_mixture(f"{tokens},{tokens}").scorer(toy.TOKENIZER, 1)
    alone = language_model.load(tokens).scorer(toy.TOKENIZER, 1)
    candidates = torch.arange(len(toy.TOKENIZER))[None]
    assert torch.allclose(letters.score(candidates), alone.score(candidates))
    with pytest.raises(ConfigurationError, match="of words cannot be mixed with one of tokens"):
        language_model.load_mixture(f"{words},{tokens}").scorer(toy.TOKENIZER, 1)
