"""Tokenizers against what went in, and the byte pairs against openai-whisper's own tokenizer."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.exceptions import CheckpointError
from asr.model.whisper import vocabulary_tokens
from asr.text.tokenizer import (
    BytePairTokenizer,
    CharacterTokenizer,
    TokenizerConfiguration,
    clean,
    read_tokens,
    write_tokens,
)

CHARACTERS = st.characters(exclude_categories=("Cs",))
TEXTS = st.text(CHARACTERS, max_size=40)
SETTINGS = st.builds(TokenizerConfiguration, case=st.sampled_from(["keep", "lower", "upper"]), punctuation=st.booleans())


@given(st.lists(TEXTS, min_size=1, max_size=4), SETTINGS)
@settings(max_examples=100)
def test_characters_come_back(texts: list[str], configuration: TokenizerConfiguration) -> None:
    tokenizer = CharacterTokenizer.build(texts, configuration)
    for text in texts:
        tokens = tokenizer.encode(text)
        assert tokenizer.unknown not in tokens
        assert all(4 <= token < len(tokenizer) for token in tokens)
        decoded = tokenizer.decode([tokenizer.start, *tokens, tokenizer.stop, tokenizer.blank])
        assert decoded == clean(text, configuration)
        assert tokenizer.encode(decoded) == tokens
        assert decoded == "".join(map(tokenizer.symbol, tokens))
        assert decoded == " ".join(decoded.split())


@given(st.lists(TEXTS, min_size=1, max_size=4), SETTINGS)
@settings(max_examples=50)
def test_the_vocabulary_survives_its_file(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], configuration: TokenizerConfiguration
) -> None:
    tokenizer = CharacterTokenizer.build(texts, configuration)
    path = tmp_path_factory.mktemp("vocabulary") / "tokens.txt"
    write_tokens(tokenizer.tokens, path)
    assert path.read_bytes().decode().count("\n") == len(tokenizer)
    again = read_tokens(path, configuration)
    assert again.tokens == tokenizer.tokens
    assert all(again.encode(text) == tokenizer.encode(text) for text in texts)


def test_what_the_default_keeps_is_known() -> None:
    tokenizer = CharacterTokenizer.build(["Don’t  STOP, naïve 学习!"])
    text = "Don’t  STOP, naïve 学习!"
    assert tokenizer.decode(tokenizer.encode(text)) == "don't stop naïve 学习"
    assert tokenizer.encode("zq") == [tokenizer.unknown] * 2
    assert tokenizer.tokens[:5] == ("<blank>", "<unk>", "<sos>", "<eos>", "<space>")
    assert tokenizer.identifier("<sos>") == tokenizer.start
    assert tokenizer.tokens[tokenizer.identifier("<space>")] == "<space>"


@pytest.mark.parametrize("tokens", [[], ["a", "b", "c", "d"], ["<blank>", "<unk>", "<sos>", "<eos>", "a", "a"]])
def test_a_wrong_character_vocabulary_is_refused(tmp_path: Path, tokens: list[str]) -> None:
    write_tokens(tokens, tmp_path / "tokens.txt")
    with pytest.raises(CheckpointError, match="vocabulary"):
        read_tokens(tmp_path / "tokens.txt", TokenizerConfiguration())


@pytest.mark.parametrize("tokens", [["YQ=="], ["not base64 at all", "<|endoftext|>"], ["é", "<|endoftext|>"]])
def test_a_wrong_byte_pair_vocabulary_is_refused(tmp_path: Path, tokens: list[str]) -> None:
    write_tokens(tokens, tmp_path / "tokens.txt")
    with pytest.raises(CheckpointError, match="vocabulary"):
        read_tokens(tmp_path / "tokens.txt", TokenizerConfiguration(kind="byte_pair"))


def test_an_unreadable_vocabulary_is_named(tmp_path: Path) -> None:
    (tmp_path / "tokens.txt").write_bytes(b"\xff\xfe\x80")
    with pytest.raises(CheckpointError, match=r"tokens\.txt"):
        read_tokens(tmp_path / "tokens.txt", TokenizerConfiguration())
    with pytest.raises(CheckpointError, match=r"absent\.txt"):
        read_tokens(tmp_path / "absent.txt", TokenizerConfiguration())


whisper_tokenizer = pytest.importorskip("whisper.tokenizer")


def pieces(name: str) -> list[bytes]:
    """Byte pairs in openai-whisper's own file."""
    path = Path(whisper_tokenizer.__file__).parent / "assets" / f"{name}.tiktoken"
    return [base64.b64decode(line.split()[0]) for line in path.read_text().splitlines() if line]


@pytest.fixture(scope="module")
def english(tmp_path_factory: pytest.TempPathFactory) -> BytePairTokenizer:
    path = tmp_path_factory.mktemp("byte_pair") / "tokens.txt"
    write_tokens(vocabulary_tokens(pieces("gpt2"), 51864), path)
    tokenizer = read_tokens(path, TokenizerConfiguration(kind="byte_pair"))
    assert isinstance(tokenizer, BytePairTokenizer)
    return tokenizer


@given(st.one_of(TEXTS, st.text(" \n\t'abesTt0129.,<|>-–é学", max_size=60)))
@settings(max_examples=200)
def test_byte_pairs_equal_the_original(english: BytePairTokenizer, text: str) -> None:
    original = whisper_tokenizer.get_tokenizer(False).encoding
    tokens = english.encode(text)
    assert tokens == original.encode_ordinary(text)
    assert english.decode(tokens) == text
    # Special tokens leave no trace, wherever they stand.
    assert english.decode([english.identifier("<|startoftranscript|>"), *tokens, english.stop]) == text


@given(st.lists(st.integers(0, 50255), max_size=12))
@settings(max_examples=100)
def test_any_tokens_decode_as_the_original_does(english: BytePairTokenizer, tokens: list[int]) -> None:
    original = whisper_tokenizer.get_tokenizer(False).encoding
    assert english.decode(tokens) == original.decode(tokens)


@pytest.mark.parametrize(
    ("name", "size", "languages"), [("gpt2", 51864, 99), ("multilingual", 51865, 99), ("multilingual", 51866, 100)]
)
def test_special_tokens_have_the_originals_numbers(name: str, size: int, languages: int) -> None:
    original = whisper_tokenizer.get_tokenizer(size > 51864, num_languages=languages)
    tokenizer = BytePairTokenizer(vocabulary_tokens(pieces(name), size))
    assert len(tokenizer) == original.encoding.n_vocab == size
    ours = {token: number for number, token in enumerate(tokenizer.tokens) if token.startswith("<|")}
    theirs = dict(original.special_tokens)
    assert ours == theirs
    assert tokenizer.stop == original.eot
    assert sorted(tokenizer.languages.values()) == sorted(original.all_language_tokens)
    text = "Ça va? 학교 naïvely 2,000 <|endoftext|>"
    assert tokenizer.encode(text) == original.encoding.encode_ordinary(text)


@pytest.mark.parametrize("size", [1000, 52000])
def test_another_size_is_not_whispers(size: int) -> None:
    with pytest.raises(CheckpointError, match=str(size)):
        vocabulary_tokens(pieces("gpt2"), size)
