"""Small corpora in the published layouts, made of noise, for what must be broken on purpose."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import soundfile

Write = Callable[..., Path]


@pytest.fixture
def write_audio() -> Write:
    """Writes noise: path, seconds, seed -> path."""

    def write(path: Path, seconds: float = 0.1, seed: int = 0, rate: int = 16_000) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(seed).integers(-8000, 8000, round(seconds * rate)).astype(np.int16)
        soundfile.write(path, noise, rate)
        return path

    return write


@pytest.fixture
def librispeech(tmp_path: Path, write_audio: Write) -> Path:
    """Two subsets: test-clean of two speakers with two utterances each, and own with one utterance."""
    root = tmp_path / "LibriSpeech"
    for subset, speaker, texts in (
        ("test-clean", "61", ("HE WAS", "GONE")),
        ("test-clean", "121", ("ALSO A POPULAR CONTRIVANCE", "TIRESOME")),
        ("own", "7", ("IT'S",)),
    ):
        chapter = root / subset / speaker / "900"
        lines = []
        for number, text in enumerate(texts):
            name = f"{speaker}-900-{number:04d}"
            write_audio(chapter / f"{name}.flac", 0.1 * (number + 1))
            lines.append(f"{name} {text}\n")
        (chapter / f"{speaker}-900.trans.txt").write_text("".join(lines))
    return root


@pytest.fixture
def aishell(tmp_path: Path, write_audio: Write) -> Path:
    """train, dev and test of one speaker with two utterances each."""
    root = tmp_path / "data_aishell"
    lines = []
    for subset, speaker in (("train", "S0002"), ("dev", "S0724"), ("test", "S0764")):
        for number, text in enumerate(("设定 二十九 度", "想听 Let It Go 苹果 pay")):
            name = f"BAC009{speaker}W{number:04d}"
            write_audio(root / "wav" / subset / speaker / f"{name}.wav")
            lines.append(f"{name} {text}\n")
    transcript = root / "transcript" / "aishell_transcript_v0.8.txt"
    transcript.parent.mkdir()
    transcript.write_text("".join(lines), encoding="utf-8")
    return root


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def mirror(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A server like OpenSLR's: its address, and the folder that it serves."""
    folder = tmp_path / "mirror"
    (folder / "12").mkdir(parents=True)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", folder
    server.shutdown()
    thread.join()
    server.server_close()


def listed(corpora: Path, folder: str) -> dict[str, tuple[float, str, str]]:
    """Duration, speaker and transcript by utterance id, from the list that comes with the real speech."""
    rows = (line.split("\t") for line in (corpora / "manifest.tsv").read_text(encoding="utf-8").splitlines()[1:])
    return {Path(path).stem: (float(d), speaker, text) for path, d, speaker, text in rows if path.startswith(folder)}
