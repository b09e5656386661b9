"""Options of the benchmarks that measure a model: ``pytest tests/benchmarks/test_peers.py -s -o addopts= --model FOLDER``."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--model", default="en", help="embedded model or checkpoint folder that is measured")
    parser.addoption("--parent", default=None, help="checkpoint folder that it is compared with, as Whisper's tiny.en")
    parser.addoption("--utterances", type=int, default=24, help="utterances of each measurement")
    parser.addoption(
        "--beam-size", type=int, default=None, help="texts that the measured model follows; its own choice if left out"
    )
    parser.addoption("--report", default=None, help="file that gets the table")
    parser.addoption("--openai-whisper", default=None, help="OpenAI .pt file for openai-whisper")
    parser.addoption("--faster-whisper", default=None, help="CTranslate2 folder for faster-whisper")
    parser.addoption("--texts", default=None, help="plain texts with commas between their names, for punctuation")
