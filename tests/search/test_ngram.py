"""N-grams against KenLM, estimation against a count written out, and texts' scores against each other."""

from __future__ import annotations

import math
import random
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.exceptions import CheckpointError
from asr.search import language_model, ngram
from asr.search.decoding import decode
from asr.search.options import DecodingOptions
from asr.text.tokenizer import CharacterTokenizer
from asr.training.ngram_text import train
from asr.training.ngrams import estimate, vocabulary
from tests.search import test_greedy, toy

TOKENS = vocabulary("abcde")
SENTENCES = st.lists(st.lists(st.integers(3, 7), max_size=8), min_size=1, max_size=30)


@given(SENTENCES, st.integers(1, 4), st.sampled_from([(), (1, 1, 2), (1, 2, 2, 3)]), st.lists(st.integers(2, 7), max_size=5))
@settings(max_examples=50)
def test_what_may_follow_sums_to_one(sentences: list[list[int]], order: int, minimum: tuple[int, ...], before: list[int]) -> None:
    model = estimate(sentences, TOKENS, order, minimum)
    contexts = model.begin(1)
    for token in before:
        contexts = model.advance(contexts, torch.tensor([token]))
    scores = model.score(contexts, torch.arange(1, len(TOKENS))[None])
    assert float(scores.double().exp().sum()) == pytest.approx(1, abs=1e-4)


def text(seed: int, count: int = 300) -> list[list[int]]:
    """Sentences in which some tokens follow others more often."""
    generator = random.Random(seed)
    sentences = []
    for _ in range(count):
        sentence = [generator.randint(3, 7)]
        while generator.random() < 0.85:
            sentence.append(3 + (2 * sentence[-1] + generator.choice([0, 0, 0, 1, 3])) % 5)
        sentences.append(sentence)
    return sentences


def by_definition(sentences: list[list[int]], order: int, context: tuple[int, ...], token: int) -> float:
    """Interpolated modified Kneser-Ney as the paper writes it (Chen and Goodman 1998, equations 24 to 26)."""
    grams: dict[int, Counter[tuple[int, ...]]] = defaultdict(Counter)
    for sentence in sentences:
        whole = (0, *sentence, 1)
        for size in range(1, order + 1):
            grams[size].update(whole[place : place + size] for place in range(len(whole) - size + 1))

    def counts(size: int) -> dict[tuple[int, ...], int]:
        if size == order:
            return dict(grams[size])
        followed: Counter[tuple[int, ...]] = Counter(gram[1:] for gram in grams[size + 1])
        return {gram: grams[size][gram] if gram[0] == 0 else followed[gram] for gram in grams[size] if gram != (0,)}

    def probability(context: tuple[int, ...], token: int) -> float:
        size = len(context) + 1
        known = counts(size)
        of = Counter(known.values())
        shrink = of[1] / (of[1] + 2 * of[2])
        discounts = [0.0] + [number - (number + 1) * shrink * of[number + 1] / of[number] for number in (1, 2, 3)]
        lower = probability(context[1:], token) if context else 1 / (MANY + 2)
        after = {gram[-1]: count for gram, count in known.items() if gram[:-1] == context}
        total = sum(after.values())
        if not total:
            return lower
        own = after.get(token, 0)
        left = sum(discounts[min(count, 3)] for count in after.values())
        return (own - discounts[min(own, 3)]) / total + left / total * lower

    return probability(context, token)


MANY = 150


def test_estimates_are_the_definition() -> None:
    # Rare and frequent tokens, so that there are counts of 1, 2, 3 and 4 to take the discounts from.
    generator = random.Random(1)
    sentences = [[3 + int(MANY * generator.random() ** 4) for _ in range(generator.randint(1, 8))] for _ in range(150)]
    model = estimate(sentences, vocabulary(str(number) for number in range(MANY)), 3)
    for _ in range(12):
        *context_of, token = generator.choice(sentences)[-3:] if generator.random() < 0.8 else [4, 5, 6]
        context = tuple(context_of[-2:])
        if len(context) < 2:
            context = (0, *context) if context else (0,)
        contexts = model.begin(1)
        for each in context[context[0] == 0 :]:
            contexts = model.advance(contexts, torch.tensor([each]))
        value = float(model.score(contexts, torch.tensor([[token]])))
        assert math.exp(value) == pytest.approx(by_definition(sentences, 3, context, token), rel=1e-4)


@pytest.mark.parametrize("minimum", [(), (1, 1, 2, 3)])
def test_texts_are_scored_as_kenlm_scores_them(tmp_path: Path, minimum: tuple[int, ...]) -> None:
    kenlm = pytest.importorskip("kenlm")
    model = estimate(text(3), TOKENS, 4, minimum)
    for name in ("plain.arpa", "packed.arpa.gz"):
        ngram.write_arpa(model, tmp_path / name)
    ngram.write(model, tmp_path / "own.safetensors")
    other = kenlm.Model(str(tmp_path / "plain.arpa"))
    again = [ngram.read_arpa(tmp_path / "plain.arpa"), ngram.read_arpa(tmp_path / "packed.arpa.gz")]
    again.append(ngram.read(tmp_path / "own.safetensors"))
    for sentence in [*text(4, 50), [], [7, 2, 2, 3]]:
        expected = other.score(" ".join(TOKENS[token] for token in sentence)) * math.log(10)
        assert model.sentence(sentence) == pytest.approx(expected, abs=1e-3)
        for each in again:
            numbers = [each.tokens.index(TOKENS[token]) for token in sentence]
            assert each.sentence(numbers) == pytest.approx(expected, abs=1e-3)


def test_many_values_lose_little_when_written(tmp_path: Path) -> None:
    """More than 256 different logarithms, and one token that more than 255 others follow."""
    generator = random.Random(5)
    tokens = vocabulary(str(number) for number in range(400))
    sentences = [[3, 3 + int(400 * generator.random() ** 2), 3 + int(400 * generator.random())] for _ in range(6000)]
    model = estimate(sentences, tokens, 3)
    ngram.write(model, tmp_path / "model.safetensors")
    again = ngram.read(tmp_path / "model.safetensors")
    for here, there in zip(model.levels, again.levels, strict=True):
        assert torch.equal(here.keys, there.keys)
        assert len(there.log_probabilities.unique()) <= 256
        said = here.log_probabilities > -100
        assert float((here.log_probabilities - there.log_probabilities)[said].abs().mean()) < 0.02
        assert float((here.backoffs - there.backoffs).abs().mean()) < 0.02


@pytest.fixture
def letters(tmp_path: Path) -> Path:
    """A character model of a few sentences in the recogniser's vocabulary."""
    source = tmp_path / "sentences.txt"
    source.write_text("the lazy dog\nthe quick brown fox\nthe dog jumps over the fox\n" * 3)
    train([source], tmp_path / "letters.arpa", order=3, tokenizer=test_greedy.TOKENIZER)
    return tmp_path / "letters.arpa"


def test_letters_are_scored_alike_by_kenlm_and_by_us(letters: Path) -> None:
    pytest.importorskip("kenlm")
    ours, kenlms = language_model.load(letters), language_model.KenlmLanguageModel(letters)
    texts = [test_greedy.TOKENIZER.encode(each) for each in ("the dog", "xyz", "", "over the lazy fox")]
    scores = language_model.score_texts(ours, test_greedy.TOKENIZER, texts)
    assert language_model.score_texts(kenlms, test_greedy.TOKENIZER, texts) == pytest.approx(scores, abs=1e-3)
    assert max(scores[0], scores[3]) > scores[1]


def test_words_are_scored_when_they_end(tmp_path: Path) -> None:
    kenlm = pytest.importorskip("kenlm")
    source = tmp_path / "text.txt"
    source.write_text("The lazy dog.\nthe quick brown fox!\nThe dog jumps over the fox\n" * 3)
    trained = train([source], tmp_path / "words.arpa", order=3)
    assert trained.sentences == 9
    reference = kenlm.Model(str(trained.path))
    for model in (language_model.load(trained.path), language_model.KenlmLanguageModel(trained.path)):
        for sentence in ("the dog jumps", "fox the", "lazy zebra dog"):
            tokens = test_greedy.TOKENIZER.encode(sentence)
            (score,) = language_model.score_texts(model, test_greedy.TOKENIZER, [tokens])
            assert score == pytest.approx(reference.score(sentence) * math.log(10), abs=1e-3)


def test_fused_the_score_is_the_sum(letters: Path) -> None:
    tokenizer: CharacterTokenizer = test_greedy.TOKENIZER
    model = test_greedy.recognizer(0, suppressed=(0, 1, 2))
    encoded, samples = test_greedy.random_encoded(3)
    fused = language_model.load(letters)
    options = DecodingOptions(
        "autoregressive", beam_size=4, n_best=3, language_model=fused, language_model_weight=0.7, length_bonus=0.5
    )
    for row, best in enumerate(decode(model, tokenizer, encoded, samples, options)):
        for each in (best, *best.alternatives):
            if each.finish_reason != "stop":
                continue
            decoder = sum(each.log_probabilities) + stop_score(model, toy.one(encoded, row), each.tokens)
            (language,) = language_model.score_texts(fused, tokenizer, [each.tokens])
            assert each.score == pytest.approx(decoder + 0.7 * language + 0.5 * len(each.tokens), abs=1e-3)


def test_latin_letters_have_a_floor_and_nothing_else_has(tmp_path: Path, letters: Path) -> None:
    source = tmp_path / "text.txt"
    source.write_text("打开空调\n打开电灯\n打开 app\n" * 9, encoding="utf-8")
    tokenizer = CharacterTokenizer.build(["打开空调电灯 apple"])
    train([source], tmp_path / "model.arpa", order=2, tokenizer=tokenizer)
    plain = language_model.load(tmp_path / "model.arpa")
    floored = language_model.FlooredLanguageModel(plain, -1.5)
    for text in ("打开空调", "打开 app", "开apple灯", "lpl"):
        tokens = tokenizer.encode(text)
        expected, contexts = 0.0, [tokens[:place] for place in range(len(tokens) + 1)]
        for before, token in zip(contexts, [*tokens, tokenizer.stop], strict=True):
            scorer = plain.scorer(tokenizer, 1)
            for each in before:
                scorer.advance(torch.tensor([0]), torch.tensor([each]))
            score = float(scorer.score(torch.tensor([[token]])))
            expected += max(score, -1.5) if tokenizer.symbol(token) in tuple("aple") else score
        assert language_model.score_texts(floored, tokenizer, [tokens]) == pytest.approx([expected], abs=1e-4)
    # The search asks the floored model where its options say so, and says it in tables.
    model = test_greedy.recognizer(0, suppressed=(0, 1, 2))
    encoded, samples = test_greedy.random_encoded(2)
    fused = language_model.load(letters)
    options = DecodingOptions("autoregressive", beam_size=4, language_model=fused, language_model_weight=2.0, latin_floor=-0.5)
    by_options = decode(model, test_greedy.TOKENIZER, encoded, samples, options)
    wrapped = DecodingOptions(
        "autoregressive", beam_size=4, language_model=language_model.FlooredLanguageModel(fused, -0.5), language_model_weight=2.0
    )
    assert [each.score for each in by_options] == [
        each.score for each in decode(model, test_greedy.TOKENIZER, encoded, samples, wrapped)
    ]
    without = decode(model, test_greedy.TOKENIZER, encoded, samples, replace(options, latin_floor=None))
    assert [each.score for each in by_options] != [each.score for each in without]
    assert "Latin letters at least -0.5" in options.resolved(model).describe()


@torch.no_grad()
def stop_score(model: object, utterance: object, tokens: tuple[int, ...]) -> float:
    decoder = model.decoder  # type: ignore[attr-defined]
    logits = decoder(torch.tensor([[2, *tokens]]), utterance.values, utterance.lengths)[0, -1]  # type: ignore[attr-defined]
    logits[[0, 1, 2]] = float("-inf")
    return float(logits.log_softmax(dim=-1)[test_greedy.TOKENIZER.stop])


def test_damaged_files_are_one_sentence(tmp_path: Path) -> None:
    for name, content in (
        ("cut.arpa", "\\data\\\nngram 1=3\n\n\\1-grams:\n-1 <s>\n"),
        ("no.arpa", "hello"),
        ("x.safetensors", "hello"),
    ):
        (tmp_path / name).write_text(content)
        with pytest.raises(CheckpointError, match=name):
            language_model.load(tmp_path / name)
    with pytest.raises(CheckpointError, match="does not exist"):
        language_model.load(tmp_path / "nothing.arpa")
