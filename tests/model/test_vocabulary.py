"""Another vocabulary: the same scores for what is kept, any text can still be written, and the originals' byte pairs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.exceptions import CheckpointError
from asr.model.checkpoint import Checkpoint, load, save
from asr.model.configuration import DecoderConfiguration, EncoderConfiguration, ModelConfiguration
from asr.model.recognizer import Recognizer
from asr.model.vocabulary import for_language, merge_characters, prune, prune_like, read_characters, read_counts, to_characters
from asr.model.whisper import vocabulary_tokens
from asr.search.language import heard_languages
from asr.text.tokenizer import BytePairTokenizer, CharacterTokenizer, TokenizerConfiguration
from tests.model.test_whisper import MULTILINGUAL, pieces

WORDS = {" learning": 5.0, " machine": 4.0, " Machine": 1.0, "学习": 3.0, " the": 90.0}


@pytest.fixture(scope="module")
def whole() -> Checkpoint:
    """A small random model with Whisper's multilingual vocabulary."""
    torch.manual_seed(0)
    tokenizer = BytePairTokenizer(vocabulary_tokens(pieces("multilingual"), MULTILINGUAL))
    configuration = ModelConfiguration(
        language="multilingual",
        tokenizer=TokenizerConfiguration(kind="byte_pair", case="keep", punctuation=True),
        encoder=EncoderConfiguration(layers=1, width=16, heads=2, feed_forward=16),
        decoder=DecoderConfiguration(
            layers=1,
            heads=2,
            feed_forward=16,
            prompt=("<|startoftranscript|>", "<|notimestamps|>"),
            suppressed=(tokenizer.encode(" the")[0], 50363),
        ),
        ctc=False,
    )
    return Checkpoint(Recognizer(configuration, len(tokenizer)).eval(), tokenizer)


def scores(checkpoint: Checkpoint, tokens: list[int]) -> torch.Tensor:
    assert checkpoint.model.decoder is not None
    encoded = torch.randn(1, 5, 16, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return checkpoint.model.decoder(torch.tensor([tokens]), encoded, torch.tensor([5]))[0]


@pytest.fixture(scope="module")
def pruned(whole: Checkpoint) -> Checkpoint:
    return prune(whole, WORDS, 300)


def test_pruning_keeps_words_bytes_and_prompt(whole: Checkpoint, pruned: Checkpoint) -> None:
    old, new = whole.tokenizer, pruned.tokenizer
    assert isinstance(new, BytePairTokenizer)
    assert isinstance(old, BytePairTokenizer)
    assert len(new) <= 300 + 3
    assert {bytes([n]) for n in range(256)} <= set(new.pieces.values())
    for word in WORDS:
        assert [new.pieces[n] for n in new.encode(word)] == [old.pieces[n] for n in old.encode(word)]
    assert new.tokens[new.stop] == "<|endoftext|>"
    assert {token for token in new.tokens if token.startswith("<|")} == {
        "<|endoftext|>",
        "<|startoftranscript|>",
        "<|notimestamps|>",
    }


def test_kept_tokens_have_the_same_scores(whole: Checkpoint, pruned: Checkpoint) -> None:
    text = " machine learning"
    old, new = whole.tokenizer.encode(text), pruned.tokenizer.encode(text)
    place = [whole.tokenizer.tokens.index(token) for token in pruned.tokenizer.tokens]
    torch.testing.assert_close(scores(pruned, new), scores(whole, old)[:, place])
    assert pruned.model.configuration.decoder is not None
    # The only suppressed token that is left keeps its meaning.
    suppressed = pruned.model.configuration.decoder.suppressed
    assert [pruned.tokenizer.symbol(n) for n in suppressed] == [" the", ""]


@settings(max_examples=50)
@given(st.text(st.characters(exclude_categories=("Cs",)), max_size=30))
def test_any_text_can_be_written(pruned: Checkpoint, text: str) -> None:
    assert pruned.tokenizer.decode(pruned.tokenizer.encode(text)) == text


def test_pruning_like_another(whole: Checkpoint, pruned: Checkpoint) -> None:
    again = prune_like(whole, pruned)
    assert again.tokenizer.tokens == pruned.tokenizer.tokens
    assert again.model.configuration == pruned.model.configuration
    with pytest.raises(CheckpointError, match="has byte pairs that the model to prune has not"):
        prune_like(pruned, whole)


def test_characters_start_from_their_byte_pairs(whole: Checkpoint, tmp_path: Path) -> None:
    model = to_characters(for_language(whole, "zh"), "机器学习py")
    save(model, tmp_path, "# card\n")
    model = load(tmp_path)
    tokenizer = model.tokenizer
    assert isinstance(tokenizer, CharacterTokenizer)
    assert tokenizer.decode(tokenizer.encode("机器学习 py!")) == "机器学习 py"
    assert tokenizer.decode(range(len(tokenizer))) == "py习器学机"
    rows = model.model.state_dict()["decoder.token_embedding.weight"]
    original = whole.model.state_dict()["decoder.token_embedding.weight"]
    assert isinstance(whole.tokenizer, BytePairTokenizer)
    for character in "机器学习":
        expected = original[whole.tokenizer.encode(character)].mean(dim=0)
        torch.testing.assert_close(rows[tokenizer.encode(character)[0]], expected)
    torch.testing.assert_close(rows[tokenizer.stop], original[whole.tokenizer.stop])
    decoder = model.model.configuration.decoder
    assert decoder is not None
    assert decoder.prompt == ("<sos>", "<zh>", "<transcribe>", "<notimestamps>")
    torch.testing.assert_close(rows[tokenizer.identifier("<zh>")], original[whole.tokenizer.identifier("<|zh|>")])
    assert model.model.ctc is not None
    assert model.ctc_tokenizer is tokenizer
    # The new head says blank, and the encoder gets no gradient from it yet.
    encoded = model.model.encode(torch.randn(1, 16000), torch.tensor([16000]))
    encoded.values.retain_grad()
    log_probabilities = model.model.ctc_log_probabilities(encoded)
    assert bool((log_probabilities.argmax(dim=-1) == tokenizer.blank).all())
    log_probabilities[..., 5].sum().backward()
    assert encoded.values.grad is not None
    assert not encoded.values.grad.any()


def test_merged_characters_are_one_token_and_start_as_the_mean_of_what_they_were(pruned: Checkpoint, tmp_path: Path) -> None:
    merged = merge_characters(pruned, "学习器的")
    old, new = pruned.tokenizer, merged.tokenizer
    assert isinstance(old, BytePairTokenizer)
    assert isinstance(new, BytePairTokenizer)
    assert len(old.added) == 0
    # 的 may be spelt by three single bytes, and then the first two of them are merged on the way.
    assert {new.decode([token]) for token in new.added} >= {"习", "器", "的"}
    assert new.tokens[: len(old.tokens)] == old.tokens
    for character in "习器的":
        (token,) = new.encode(character)
        assert token in new.added
        rows, before = (each.model.state_dict()["decoder.token_embedding.weight"] for each in (merged, pruned))
        torch.testing.assert_close(rows[token], before[old.encode(character)].mean(dim=0))
    # What is heard so far scores as before: an output more takes nothing from the others' logits.
    tokens = old.encode("学 learning")
    torch.testing.assert_close(scores(merged, tokens)[:, : len(old)], scores(pruned, tokens))
    save(merged, tmp_path, "# card\n")
    assert load(tmp_path).tokenizer.encode("机器学习") == new.encode("机器学习")
    # A second time there is nothing to merge.
    assert merge_characters(merged, "学习器的").tokenizer.tokens == new.tokens
    with pytest.raises(CheckpointError, match="byte pairs"):
        merge_characters(to_characters(pruned, "学"), "学")


@pytest.fixture(scope="module")
def merged(pruned: Checkpoint) -> Checkpoint:
    return merge_characters(pruned, "学习器的é𠀀")


@given(st.text(st.sampled_from("学习器的机 learning,éß𠀀") | st.characters(exclude_categories=("Cs",)), max_size=20))
def test_merging_changes_no_text_and_no_token_of_other_text(pruned: Checkpoint, merged: Checkpoint, text: str) -> None:
    old, new = pruned.tokenizer, merged.tokenizer
    assert isinstance(old, BytePairTokenizer)
    assert new.decode(new.encode(text)) == text
    # Spelt out again, the tokens are those of before.
    numbers = {piece: number for number, piece in old.pieces.items()}
    spelt: list[int] = []
    for token in new.encode(text):
        piece = new.piece(token)
        whole = piece.decode(errors="ignore").encode() == piece
        spelt += (
            [token] if token < len(old) else old.encode(piece.decode()) if whole else [numbers[bytes([one])] for one in piece]
        )
    assert spelt == old.encode(text)


def test_a_multilingual_model_may_have_one_language(whole: Checkpoint) -> None:
    chinese = prune(for_language(whole, "zh"), WORDS, 300)
    assert chinese.model.configuration.language == "zh"
    assert chinese.model.configuration.decoder is not None
    assert chinese.model.configuration.decoder.prompt == ("<|startoftranscript|>", "<|zh|>", "<|transcribe|>", "<|notimestamps|>")
    assert {"<|zh|>", "<|transcribe|>"} <= set(chinese.tokenizer.tokens)
    # It still hears the others, and writes none of their tokens.
    heard = heard_languages(chinese.model.configuration, chinese.tokenizer)
    assert len(heard) == 99
    assert set(heard.values()) <= set(chinese.model.configuration.decoder.suppressed)
    english = chinese.tokenizer.identifier("<|en|>")
    rows, whole_rows = (model.model.state_dict()["decoder.token_embedding.weight"] for model in (chinese, whole))
    torch.testing.assert_close(rows[english], whole_rows[whole.tokenizer.identifier("<|en|>")])
    with pytest.raises(CheckpointError, match="no language 'xx'"):
        for_language(whole, "xx")


def test_characters_have_no_byte_pairs_to_prune(whole: Checkpoint) -> None:
    model = to_characters(whole, "机器学习")
    with pytest.raises(CheckpointError, match="byte pairs"):
        prune(model, WORDS, 300)
    with pytest.raises(CheckpointError, match="byte pairs"):
        to_characters(model, "机器学习")


def test_a_ctc_head_of_other_characters_starts_anew(whole: Checkpoint) -> None:
    settings = whole.model.configuration.model_copy(update={"ctc": True, "ctc_characters": " ab"})
    torch.manual_seed(0)
    letters = to_characters(Checkpoint(Recognizer(settings, len(whole.tokenizer)), whole.tokenizer), "abc")
    assert letters.model.configuration.ctc_characters is None
    assert letters.model.ctc is not None
    assert letters.model.ctc.out_features == len(letters.tokenizer)
    assert not letters.model.ctc.weight.any()


def test_files_of_words_and_characters(tmp_path: Path) -> None:
    (tmp_path / "words").write_text("tea\t30\nmilk\n\n", encoding="utf-8")
    counts = read_counts(tmp_path / "words")
    assert counts[" tea"] == 30
    assert counts[" Tea"] == 3
    assert counts["Milk"] == 0.05
    (tmp_path / "words").write_text("学习\t2\n", encoding="utf-8")
    assert read_counts(tmp_path / "words") == {"学习": 2}
    (tmp_path / "bad").write_text("tea\tmany\n", encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"bad, line 1: 'many' is not a count; write word<tab>count\."):
        read_counts(tmp_path / "bad")
    (tmp_path / "text").write_text("机器 Py\n", encoding="utf-8")
    assert read_characters(tmp_path / "text") == set("机器py")
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_characters(tmp_path / "none")


def test_another_vocabulary_has_not_the_files_of_the_first(whole: Checkpoint) -> None:
    named = whole.model.configuration.model_copy(update={"punctuation": "marks"})
    parent = Checkpoint(Recognizer(named, len(whole.tokenizer)), whole.tokenizer)
    assert parent.model.configuration.files() == ("marks",)
    assert prune(parent, WORDS, 300).model.configuration.files() == ()
