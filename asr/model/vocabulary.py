"""Another vocabulary for a trained model: fewer byte pairs, characters among them, or characters in their place.

A token's embedding is also its output weights, so a vocabulary is changed by choosing rows of one matrix.
"""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor

from asr.exceptions import CheckpointError
from asr.model.checkpoint import Checkpoint
from asr.model.configuration import DecoderConfiguration, ModelConfiguration
from asr.model.recognizer import Recognizer
from asr.text.tokenizer import BLANK, SPACE, START, STOP, UNKNOWN, BytePairTokenizer, CharacterTokenizer


def prune(checkpoint: Checkpoint, counts: Mapping[str, float], size: int) -> Checkpoint:
    """Keep the byte pairs that matter for a language, with what they are merged from.

    Every text can still be written: all single bytes stay. What was one rare token becomes several shorter ones.

    Args:
        checkpoint: a model with byte pairs.
        counts: how often each text occurs, for example words with the space before them.
        size: byte pairs to keep, at most; special tokens that no prompt names are dropped.

    Raises:
        CheckpointError: the model has no byte pairs.
    """
    tokenizer, decoder = _writes_byte_pairs(checkpoint, "pruned")
    used: Counter[int] = Counter()
    for text, count in counts.items():
        for token in tokenizer.encode(text):
            used[token] += count  # type: ignore[assignment]
    parts = _merges(tokenizer)
    kept = {number for number, piece in tokenizer.pieces.items() if len(piece) == 1}
    for token, _ in used.most_common():
        needed = _closure(token, parts) - kept
        if len(kept) + len(needed) <= size:
            kept |= needed
    return _keep(checkpoint, tokenizer, decoder, kept)


def prune_like(checkpoint: Checkpoint, example: Checkpoint) -> Checkpoint:
    """Keep the byte pairs that another model has, such as one that was pruned before.

    Raises:
        CheckpointError: one of the models has no byte pairs, or they are not of one vocabulary.
    """
    tokenizer, decoder = _writes_byte_pairs(checkpoint, "pruned")
    numbers = {piece: number for number, piece in tokenizer.pieces.items()}
    wanted = set(_writes_byte_pairs(example, "an example")[0].pieces.values())
    if not wanted <= numbers.keys():
        raise CheckpointError(f"{example.folder}: has byte pairs that the model to prune has not; give a model pruned from it.")
    return _keep(checkpoint, tokenizer, decoder, {numbers[piece] for piece in wanted})


def _writes_byte_pairs(checkpoint: Checkpoint, use: str) -> tuple[BytePairTokenizer, DecoderConfiguration]:
    """The parts of a model whose decoder writes byte pairs."""
    tokenizer, decoder = checkpoint.tokenizer, checkpoint.model.configuration.decoder
    if not isinstance(tokenizer, BytePairTokenizer) or decoder is None:
        raise CheckpointError(f"only a model whose decoder writes byte pairs can be {use}; import one of Whisper's.")
    return tokenizer, decoder


def _keep(
    checkpoint: Checkpoint, tokenizer: BytePairTokenizer, decoder: DecoderConfiguration, pieces: Iterable[int]
) -> Checkpoint:
    """The model with only these byte pairs and the special tokens that it needs."""
    specials = {tokenizer.stop, *(tokenizer.identifier(token) for token in decoder.prompt)}
    suppressed = set(decoder.suppressed)
    if any(f"<|{code}|>" in decoder.prompt for code in tokenizer.languages):
        # A model that writes one language still hears which one is spoken.
        specials |= set(tokenizer.languages.values())
        suppressed |= set(tokenizer.languages.values())
    rows = sorted(pieces) + sorted(specials)
    place = {number: row for row, number in enumerate(rows)}

    def moved(numbers: Iterable[int]) -> tuple[int, ...]:
        return tuple(sorted(place[number] for number in numbers if number in place))

    changed = decoder.model_copy(
        update={"suppressed": moved(suppressed), "suppressed_at_start": moved(decoder.suppressed_at_start)}
    )
    settings = checkpoint.model.configuration.model_copy(update={"decoder": changed})
    embedding = checkpoint.model.state_dict()["decoder.token_embedding.weight"]
    tokens = BytePairTokenizer([tokenizer.tokens[number] for number in rows])
    return _with_embedding(checkpoint, settings, tokens, embedding[rows])


def merge_characters(checkpoint: Checkpoint, characters: Iterable[str]) -> Checkpoint:
    """Write each of these characters in one step, where it was spelt by several byte pairs.

    Byte-pair encoding goes on where it stopped (R. Sennrich et al. 2016, section 3.2): the merges that lead to the characters
    are added after all others, so that any other text has the tokens that it had. A new token's embedding starts as the mean
    of what it is merged from and has to be trained.

    Args:
        checkpoint: a model with byte pairs.
        characters: what is to be one token; what is one already stays as it is.

    Raises:
        CheckpointError: the model has no byte pairs.
    """
    tokenizer, _ = _writes_byte_pairs(checkpoint, "taught characters")
    embedding: Tensor = checkpoint.model.state_dict()["decoder.token_embedding.weight"]
    merged: dict[bytes, Tensor] = {}
    for character in sorted(set(characters)):
        spelt = tokenizer.encode(character)
        for count in range(2, len(spelt) + 1):
            piece = b"".join(tokenizer.pieces[token] for token in spelt[:count])
            merged[piece] = embedding[spelt[:count]].mean(dim=0)
    # What is merged first has the lower number.
    order = sorted(merged.keys() - set(tokenizer.pieces.values()), key=lambda piece: (len(piece), piece))
    tokens = BytePairTokenizer([*tokenizer.tokens, *(base64.b64encode(piece).decode() for piece in order)])
    rows = torch.stack([*embedding, *(merged[piece] for piece in order)])
    return _with_embedding(checkpoint, checkpoint.model.configuration, tokens, rows)


def for_language(checkpoint: Checkpoint, language: str) -> Checkpoint:
    """Fix the language of a multilingual Whisper model: its decoder is prompted with it ever after.

    Raises:
        CheckpointError: the model has no such language.
    """
    tokenizer, decoder = checkpoint.tokenizer, checkpoint.model.configuration.decoder
    if not isinstance(tokenizer, BytePairTokenizer) or decoder is None or language not in tokenizer.languages:
        raise CheckpointError(f"the model has no language '{language}'; import one of Whisper's multilingual models.")
    prompt = ("<|startoftranscript|>", f"<|{language}|>", "<|transcribe|>", "<|notimestamps|>")
    settings = checkpoint.model.configuration.model_copy(
        update={"language": language, "decoder": decoder.model_copy(update={"prompt": prompt})}
    )
    embedding = checkpoint.model.state_dict()["decoder.token_embedding.weight"]
    return _with_embedding(checkpoint, settings, tokenizer, embedding)


def to_characters(checkpoint: Checkpoint, characters: Iterable[str], ctc: bool = True) -> Checkpoint:
    """Teach a decoder of byte pairs to write characters.

    A character that is one byte pair keeps that pair's embedding; any other starts as the mean of its pieces. So do the
    special tokens of the prompt: ``<|zh|>`` becomes ``<zh>``.

    Args:
        checkpoint: a model with byte pairs.
        characters: the new vocabulary, without special tokens.
        ctc: put a CTC head over the same characters on the encoder.

    Raises:
        CheckpointError: the model has no byte pairs.
    """
    tokenizer, decoder = _writes_byte_pairs(checkpoint, "taught characters")
    embedding: Tensor = checkpoint.model.state_dict()["decoder.token_embedding.weight"]
    prompt = decoder.prompt[1:]
    letters = sorted(set(characters) - {" "})
    tokens = [BLANK, UNKNOWN, START, STOP, *(f"<{token.strip('<|>')}>" for token in prompt), SPACE, *letters]

    def piece(text: str) -> Tensor:
        return embedding[tokenizer.encode(text)].mean(dim=0)

    start = embedding[tokenizer.identifier(decoder.prompt[0])]
    stop = embedding[tokenizer.stop]
    rows = [
        torch.zeros_like(stop),
        torch.zeros_like(stop),
        start,
        stop,
        *(embedding[tokenizer.identifier(token)] for token in prompt),
        piece(" "),
        *(piece(letter) for letter in letters),
    ]
    changed = decoder.model_copy(
        update={
            "prompt": (START, *(tokens[4 : 4 + len(prompt)])),
            "suppressed": (0, 1, 2, *range(4, 4 + len(prompt))),
            "suppressed_at_start": (),
        }
    )
    settings = checkpoint.model.configuration.model_copy(
        update={
            "decoder": changed,
            "ctc": ctc,
            "ctc_characters": None,
            "tokenizer": checkpoint.model.configuration.tokenizer.model_copy(
                update={"kind": "character", "case": "lower", "punctuation": False}
            ),
        }
    )
    return _with_embedding(checkpoint, settings, CharacterTokenizer(tokens, settings.tokenizer), torch.stack(rows))


def read_counts(path: Path) -> Counter[str]:
    """Words and their counts, a line ``word<tab>count``; a line without count is text that occurs once.

    A word is counted as it stands inside a sentence, with a space before it, and with a capital a tenth as often.

    Raises:
        CheckpointError: the file cannot be read, or a count is not a number.
    """
    counts: Counter[str] = Counter()
    for number, line in enumerate(_lines(path), start=1):
        text, _, count = line.partition("\t")
        try:
            times = float(count) if count else 1.0
        except ValueError as error:
            raise CheckpointError(f"{path}, line {number}: '{count}' is not a count; write word<tab>count.") from error
        if not text[:1].isascii():  # as in Chinese, which writes no spaces
            counts[text] += times  # type: ignore[assignment]
            continue
        counts[f" {text}"] += times  # type: ignore[assignment]
        counts[f" {text[:1].upper()}{text[1:]}"] += times / 10  # type: ignore[assignment]
        counts[f"{text[:1].upper()}{text[1:]}"] += times / 20  # type: ignore[assignment]
    return counts


def read_characters(path: Path) -> set[str]:
    """All characters of a text file, in lower case.

    Raises:
        CheckpointError: the file cannot be read.
    """
    return {character for line in _lines(path) for character in line.lower() if not character.isspace()}


def _lines(path: Path) -> list[str]:
    try:
        return [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path}: cannot be read ({error}); give a UTF-8 text file.") from error


def _with_embedding(
    checkpoint: Checkpoint, settings: ModelConfiguration, tokenizer: BytePairTokenizer | CharacterTokenizer, embedding: Tensor
) -> Checkpoint:
    """The same model with other rows of its embedding; a CTC head of other tokens, or of none before, is new and says blank."""
    model = Recognizer(ModelConfiguration.model_validate(settings.without_files().model_dump()), len(tokenizer))
    weights = dict(checkpoint.model.state_dict())
    if settings.ctc_characters != checkpoint.model.configuration.ctc_characters:
        weights = {name: value for name, value in weights.items() if not name.startswith("ctc.")}
    weights["decoder.token_embedding.weight"] = embedding
    own = model.state_dict()
    model.load_state_dict({**own, **{name: value for name, value in weights.items() if name in own}})
    if model.ctc is not None and "ctc.weight" not in weights:
        model.silence_ctc(tokenizer.blank)
    return Checkpoint(model.eval(), tokenizer)


def _merges(tokenizer: BytePairTokenizer) -> dict[int, tuple[int, ...]]:
    """For each byte pair the two that it is merged from; none for a single byte.

    The vocabulary is in order of merging, so a piece was made by merging with all earlier pairs and none later.
    """
    numbers = {piece: number for number, piece in tokenizer.pieces.items()}
    merges: dict[int, tuple[int, ...]] = {}
    for number, piece in tokenizer.pieces.items():
        parts = [piece[i : i + 1] for i in range(len(piece))]
        while len(parts) > 2:
            ranks = [numbers.get(first + second, number) for first, second in pairwise(parts)]
            lowest = min(ranks)
            if lowest >= number:
                break
            at = ranks.index(lowest)
            parts[at : at + 2] = [parts[at] + parts[at + 1]]
        merges[number] = tuple(numbers[part] for part in parts) if len(piece) > 1 else ()
    return merges


def _closure(token: int, merges: Mapping[int, tuple[int, ...]]) -> set[int]:
    """A token and all that it is merged from."""
    found: set[int] = set()
    waiting = [token]
    while waiting:
        number = waiting.pop()
        if number not in found:
            found.add(number)
            waiting += merges.get(number, ())
    return found
