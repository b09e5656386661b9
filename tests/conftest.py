"""Where the tests find real speech: corpora where they are at hand, the project's own samples always; settings of hypothesis."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

import asr

if TYPE_CHECKING:
    from asr.transcription.transcriber import Transcriber

# Workers have the cores among them: more threads than cores would wait for each other. Torch reads it when it is imported,
# which is later and not at all in the process that only hands out tests; processes that tests start inherit it.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# A shell without job control starts what runs in the background with Ctrl-C ignored, and processes that tests start would
# inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# A busy machine is slow and not wrong.
settings.register_profile("asr", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("asr")

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def corpora() -> Path:
    """Folder of real corpora: ``ASR_CORPORA``, or ``shared/corpora`` beside the checkout."""
    folder = Path(os.environ.get("ASR_CORPORA", ROOT.parent / "shared" / "corpora"))
    if not (folder / "LibriSpeech").is_dir():
        pytest.skip(f"needs real speech: {folder} does not hold LibriSpeech (set ASR_CORPORA)")
    return folder


@pytest.fixture(scope="session")
def english() -> Transcriber:
    """The embedded English model; a test that changes its settings loads its own."""
    return asr.load("en")


@pytest.fixture(scope="session")
def data() -> Path:
    """Folder of sample speech made for this project."""
    return ROOT / "data"
