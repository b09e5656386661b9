"""CTC beam search over the words of a lexicon, through torchaudio's ``ctc_decoder`` (flashlight-text)."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from torch import Tensor

from asr.exceptions import ConfigurationError
from asr.search.hypothesis import Hypothesis
from asr.text.tokenizer import BLANK, SPACE, UNKNOWN, Tokenizer


class Lexicon:
    """Words that alone may be said, and a word n-gram model that ranks them.

    Args:
        words: as the recogniser's characters write them; other spellings of case are found as well.
        language_model: ARPA or KenLM binary file of words, None for none.
        weight: what its log-probability is multiplied by.
        word_score: added for each word.
    """

    def __init__(
        self, words: Iterable[str], language_model: Path | None = None, weight: float = 1.0, word_score: float = 0.0
    ) -> None:
        self.words = tuple(dict.fromkeys(words))
        self.language_model = language_model
        self.weight = weight
        self.word_score = word_score
        self._decoders: dict[tuple[tuple[str, ...], int, int], Any] = {}

    def search(
        self, log_probabilities: Tensor, lengths: Tensor, tokenizer: Tokenizer, size: int, n_best: int
    ) -> list[list[Hypothesis]]:
        """n-best texts of a batch: (batch, positions, vocabulary) of the CTC head and int64 (batch,) positions.

        Raises:
            ConfigurationError: flashlight-text is missing, the tokens are not characters, or no word can be spelled.
        """
        key = (tokenizer.tokens, size, n_best)
        if key not in self._decoders:
            self._decoders[key] = self._decoder(tokenizer, size, n_best)
        found = self._decoders[key](log_probabilities.cpu().float().contiguous(), lengths.cpu())
        return [
            [_hypothesis(each, tokenizer, scores) for each in several]
            for several, scores in zip(found, log_probabilities, strict=True)
        ]

    def _decoder(self, tokenizer: Tokenizer, size: int, n_best: int) -> Any:
        try:
            from torchaudio.models.decoder import ctc_decoder
        except ImportError as error:
            raise ConfigurationError("a lexicon needs flashlight-text; pip install 'asr[language-models]'.") from error
        if SPACE not in tokenizer.tokens:
            raise ConfigurationError("a lexicon needs a CTC head that writes characters with spaces; use another model.")
        unknown = tokenizer.identifier(UNKNOWN)
        lines = []
        for word in self.words:
            spelled = tokenizer.encode(word)
            if spelled and unknown not in spelled:
                lines.append(f"{word}\t{' '.join(tokenizer.tokens[token] for token in spelled)} {SPACE}\n")
        if not lines:
            raise ConfigurationError("no word of the lexicon can be spelled in the model's characters; give another one.")
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "lexicon.txt"
            path.write_text("".join(lines), encoding="utf-8")
            return ctc_decoder(
                lexicon=str(path),
                tokens=list(tokenizer.tokens),
                lm=str(self.language_model) if self.language_model else None,
                nbest=n_best,
                beam_size=size,
                lm_weight=self.weight,
                word_score=self.word_score,
                blank_token=BLANK,
                sil_token=SPACE,
                unk_word=UNKNOWN,
            )


def read(path: Path, language_model: Path | None = None, weight: float = 1.0, word_score: float = 0.0) -> Lexicon:
    """A lexicon of a file: the first word of each line; a pronunciation after it is not needed.

    Raises:
        ConfigurationError: the file cannot be read or holds no word.
    """
    try:
        words = [line.split()[0] for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path}: cannot be read as UTF-8 text ({error}); give a list of words.") from error
    if not words:
        raise ConfigurationError(f"{path}: holds no word; write one a line.")
    return Lexicon(words, language_model, weight, word_score)


def _hypothesis(found: Any, tokenizer: Tokenizer, scores: Tensor) -> Hypothesis:
    # flashlight says where a token is first said, silence at both ends included and one position before the first.
    spoken = [(int(token), int(place)) for token, place in zip(found.tokens, found.timesteps, strict=True)]
    space = tokenizer.identifier(SPACE)
    while spoken and spoken[0][0] == space:
        spoken.pop(0)
    while spoken and spoken[-1][0] == space:
        spoken.pop()
    values = [float(scores[min(max(place - 1, 0), len(scores) - 1), token]) for token, place in spoken]
    return Hypothesis(" ".join(found.words), tuple(token for token, _ in spoken), tuple(values), float(found.score), "stop")
