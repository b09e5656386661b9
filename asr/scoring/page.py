"""The report as one HTML file that opens without a network."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TextIO

from asr.scoring.report import Report


def write_page(file: TextIO, report: Report, audio: Mapping[str, Path]) -> None:
    """Write."""
