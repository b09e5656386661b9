"""A small model with random weights and Whisper's multilingual vocabulary, of pieces that are not Whisper's."""

from __future__ import annotations

import torch

from asr.model.checkpoint import Checkpoint
from asr.model.configuration import DecoderConfiguration, EncoderConfiguration, ModelConfiguration
from asr.model.recognizer import Recognizer
from asr.model.whisper import vocabulary_tokens
from asr.text.tokenizer import BytePairTokenizer, TokenizerConfiguration

PROMPT = ("<|startoftranscript|>", "<|en|>", "<|transcribe|>", "<|notimestamps|>")
PIECES = [bytes([n]) for n in range(256)] + [b"%d-" % n for n in range(50001)]


def small_multilingual() -> Checkpoint:
    """One layer each of encoder and decoder; English if not asked for another language."""
    torch.manual_seed(0)
    tokenizer = BytePairTokenizer(vocabulary_tokens(PIECES, 51865))
    settings = ModelConfiguration(
        language="multilingual",
        tokenizer=TokenizerConfiguration(kind="byte_pair", case="keep", punctuation=True),
        encoder=EncoderConfiguration(layers=1, width=16, heads=2, feed_forward=16),
        decoder=DecoderConfiguration(layers=1, heads=2, feed_forward=16, prompt=PROMPT),
        ctc=False,
    )
    return Checkpoint(Recognizer(settings, len(tokenizer)).eval(), tokenizer)
