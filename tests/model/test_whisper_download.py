"""Downloads from a server on this machine."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from asr.exceptions import CheckpointError
from asr.model import whisper_download
from asr.model.whisper_download import MODELS, VOCABULARIES, fetch, fetch_model

CONTENT = bytes(range(256)) * 9000
CHECKSUM = hashlib.sha256(CONTENT).hexdigest()


class Silent(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / "weights.pt").write_bytes(CONTENT)
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Silent, directory=str(tmp_path / "served"))) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{http.server_port}"
        http.shutdown()


def test_a_file_is_fetched_once(server: str, tmp_path: Path) -> None:
    target = tmp_path / "new" / "weights.pt"
    assert fetch(f"{server}/weights.pt", CHECKSUM, target).read_bytes() == CONTENT
    (tmp_path / "served" / "weights.pt").unlink()
    assert fetch(f"{server}/weights.pt", CHECKSUM, target) == target
    assert [path.name for path in target.parent.iterdir()] == ["weights.pt"]


def test_a_damaged_copy_is_fetched_again(server: str, tmp_path: Path) -> None:
    target = tmp_path / "weights.pt"
    target.write_bytes(CONTENT[:-1])
    assert fetch(f"{server}/weights.pt", CHECKSUM, target).read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("path", "checksum", "message"), [("weights.pt", "0" * 64, "SHA-256"), ("other.pt", CHECKSUM, "File not found")]
)
def test_another_file_is_refused_in_a_sentence(server: str, tmp_path: Path, path: str, checksum: str, message: str) -> None:
    target = tmp_path / "new" / "weights.pt"
    with pytest.raises(CheckpointError, match=message):
        fetch(f"{server}/{path}", checksum, target)
    assert list(target.parent.iterdir()) == []


def test_a_name_is_a_model_and_its_vocabulary(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    served = tmp_path / "served"
    monkeypatch.setattr(whisper_download, "_MODEL_ADDRESS", f"{server}/{{checksum}}/{{name}}.pt")
    monkeypatch.setattr(whisper_download, "_VOCABULARY_ADDRESS", f"{server}/{{name}}")
    monkeypatch.setitem(MODELS, "tiny", CHECKSUM)
    monkeypatch.setitem(VOCABULARIES, "multilingual.tiktoken", CHECKSUM)
    (served / CHECKSUM).mkdir()
    (served / CHECKSUM / "tiny.pt").write_bytes(CONTENT)
    (served / "multilingual.tiktoken").write_bytes(CONTENT)
    weights, vocabulary = fetch_model("tiny", tmp_path / "cache")
    assert (weights.name, vocabulary.name) == ("tiny.pt", "multilingual.tiktoken")
    with pytest.raises(CheckpointError, match=r"'tinny'.*tiny\.en"):
        fetch_model("tinny", tmp_path / "cache")


def test_names_and_checksums_are_the_originals() -> None:
    original = pytest.importorskip("whisper")
    for name, checksum in MODELS.items():
        assert original._MODELS[name].split("/")[-2:] == [checksum, f"{name}.pt"]
    for name, checksum in VOCABULARIES.items():
        asset = Path(original.__file__).parent / "assets" / name
        assert hashlib.sha256(asset.read_bytes()).hexdigest() == checksum
