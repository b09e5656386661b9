"""Whisper's published weights as a checkpoint of this project (Radford et al. 2022).

The network is this project's: the same encoder, decoder and attention. What differs is configuration: convolutions
over time in the stem, learned decoder positions, byte-pair vocabulary, a prompt of special tokens, 30 s windows.
``asr.model.whisper_files`` reads the containers that the weights are published in.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable
from pathlib import Path

from asr.audio.features import FilterbankConfiguration
from asr.exceptions import CheckpointError
from asr.model.checkpoint import Checkpoint
from asr.model.configuration import DecoderConfiguration, EncoderConfiguration, ModelConfiguration
from asr.model.recognizer import Recognizer
from asr.model.whisper_files import (
    WhisperSource,
    find_vocabulary,
    read_ggml,
    read_hugging_face,
    read_openai,
    read_pieces,
)
from asr.text.tokenizer import BytePairTokenizer, TokenizerConfiguration

# Codes in the order of their tokens. Before large-v3 the last one (yue) did not exist.
LANGUAGES = [
    "en",
    "zh",
    "de",
    "es",
    "ru",
    "ko",
    "fr",
    "ja",
    "pt",
    "tr",
    "pl",
    "ca",
    "nl",
    "ar",
    "sv",
    "it",
    "id",
    "hi",
    "fi",
    "vi",
    "he",
    "uk",
    "el",
    "ms",
    "cs",
    "ro",
    "da",
    "hu",
    "ta",
    "no",
    "th",
    "ur",
    "hr",
    "bg",
    "lt",
    "la",
    "mi",
    "ml",
    "cy",
    "sk",
    "te",
    "fa",
    "lv",
    "bn",
    "sr",
    "az",
    "sl",
    "kn",
    "et",
    "mk",
    "br",
    "eu",
    "is",
    "hy",
    "ne",
    "mn",
    "bs",
    "kk",
    "sq",
    "sw",
    "gl",
    "mr",
    "pa",
    "si",
    "km",
    "sn",
    "yo",
    "so",
    "af",
    "oc",
    "ka",
    "be",
    "tg",
    "sd",
    "gu",
    "am",
    "yi",
    "lo",
    "uz",
    "fo",
    "ht",
    "ps",
    "tk",
    "nn",
    "mt",
    "sa",
    "lb",
    "my",
    "bo",
    "tl",
    "mg",
    "as",
    "tt",
    "haw",
    "ln",
    "ha",
    "ba",
    "jw",
    "su",
    "yue",
]

# Marks that a speaker does not say: annotations, brackets, music. The paper's decoding never emits them.
_UNSPOKEN = (
    *'"#()*+/:;<=>@[\\]^_`{|}~「」『』',
    *[
        "<<",
        ">>",
        "<<<",
        ">>>",
        "--",
        "---",
        "-(",
        "-[",
        "('",
        '("',
        "((",
        "))",
        "(((",
        ")))",
        "[[",
        "]]",
        "{{",
        "}}",
        "♪♪",
        "♪♪♪",
    ],
)
_NOTES = "♩♪♫♬♭♮♯"


def convert(source: str | Path, vocabulary: str | Path | None = None) -> Checkpoint:
    """Read a Whisper model of any supported container.

    Args:
        source: ``.pt`` file, Hugging Face folder or ggml ``.bin``.
        vocabulary: ``.tiktoken`` or ``vocab.json`` file, needed by a ``.pt`` when none can be found: it has no
            vocabulary of its own.

    Raises:
        CheckpointError: not such a file, or a quantised one, or no vocabulary for it.
    """
    source = Path(source)
    if not source.exists():
        raise CheckpointError(f"{source}: does not exist; give a Whisper .pt, ggml .bin or Hugging Face folder.")
    if source.is_dir():
        whisper = read_hugging_face(source)
    else:
        with source.open("rb") as file:
            magic = file.read(4)
        whisper = read_ggml(source) if magic == b"lmgg" else read_openai(source)
    pieces = whisper.pieces
    if vocabulary is not None or pieces is None:
        pieces = read_pieces(find_vocabulary(source, whisper.vocabulary, vocabulary))
    tokenizer = BytePairTokenizer(vocabulary_tokens(pieces, whisper.vocabulary))
    settings = _configuration(whisper, tokenizer)
    model = Recognizer(settings, whisper.vocabulary)
    state = {n: v.float() for n, v in whisper.weights.items() if n != "encoder.positional_embedding"}
    state = {n: v for n, v in state.items() if not n.startswith("encoder.embed_positions")}
    expected = model.state_dict()
    missing = sorted(set(expected) - set(state)) + sorted(set(state) - set(expected))
    wrong = [name for name in expected if name in state and expected[name].shape != state[name].shape]
    if missing or wrong:
        raise CheckpointError(
            f"{source}: is not a complete Whisper model ({', '.join((missing + wrong)[:3])}); download it again."
        )
    model.load_state_dict(state)
    return Checkpoint(model.eval(), tokenizer)


def vocabulary_tokens(pieces: Iterable[bytes], size: int) -> list[str]:
    """All tokens of a Whisper vocabulary in order, as ``tokens.txt`` writes them."""
    multilingual = size >= 51865
    languages = LANGUAGES[: size - 51765 - 1] if multilingual else LANGUAGES[: size - 51765]
    ordinary = [base64.b64encode(piece).decode() for piece in pieces]
    ordinary = ordinary[: 50257 if multilingual else 50256]
    specials = ["endoftext", "startoftranscript", *languages, "translate", "transcribe", "startoflm", "startofprev"]
    specials += ["nospeech", "notimestamps", *(f"{step * 0.02:.2f}" for step in range(1501))]
    tokens = ordinary + [f"<|{special}|>" for special in specials]
    if len(tokens) != size:
        raise CheckpointError(f"a vocabulary of {size} tokens is not one of Whisper's; {len(tokens)} were expected.")
    return tokens


def _configuration(whisper: WhisperSource, tokenizer: BytePairTokenizer) -> ModelConfiguration:
    multilingual = whisper.vocabulary >= 51865
    prompt = ["<|startoftranscript|>", "<|notimestamps|>"]
    if multilingual:
        prompt[1:1] = ["<|en|>", "<|transcribe|>"]
    first_special = tokenizer.stop + 1
    space = tokenizer.encode(" ")
    return ModelConfiguration(
        language="multilingual" if multilingual else "en",
        front_end=FilterbankConfiguration(convention="whisper", mels=whisper.mels),
        tokenizer=TokenizerConfiguration(kind="byte_pair", case="keep", punctuation=True),
        encoder=EncoderConfiguration(
            stem="conv1d",
            layers=whisper.encoder_layers,
            width=whisper.width,
            heads=whisper.heads,
            feed_forward=4 * whisper.width,
            activation="gelu",
            dropout=0.0,
            scale_embedding=False,
            minimum_seconds=whisper.positions / 50,
        ),
        decoder=DecoderConfiguration(
            layers=whisper.decoder_layers,
            heads=whisper.heads,
            feed_forward=4 * whisper.width,
            activation="gelu",
            dropout=0.0,
            positions="learned",
            maximum_length=whisper.text_positions,
            scale_embedding=False,
            prompt=tuple(prompt),
            suppressed=tuple(sorted({*_unspoken(tokenizer), *range(first_special, whisper.vocabulary)})),
            suppressed_at_start=(*space, tokenizer.stop),
            tokens_per_second=15.0,
        ),
        ctc=False,
    )


def _unspoken(tokenizer: BytePairTokenizer) -> set[int]:
    """Tokens of annotations and music, plus a dash or quote that opens a word."""
    numbers = {tokenizer.encode(" -")[0], tokenizer.encode(" '")[0]}
    for mark in (*_UNSPOKEN, *_NOTES):
        for text in (mark, f" {mark}"):
            encoded = tokenizer.encode(text)
            # A note is several bytes that share their first: one token of it is enough.
            if len(encoded) == 1 or mark in _NOTES:
                numbers.add(encoded[0])
    return numbers
