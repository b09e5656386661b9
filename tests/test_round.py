"""A whole round as a user goes it, on real speech: prepare, train, evaluate, average, transcribe."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from lhotse import CutSet
from typer.testing import CliRunner

from asr.cli import app
from asr.corpora import manifests
from asr.exceptions import AsrError
from asr.training import checkpoints
from tests.conftest import ROOT
from tests.training.conftest import log


def run(*arguments: str | Path) -> str:
    result = CliRunner().invoke(app, [str(each) for each in arguments])
    assert result.exit_code == 0, (result.output, result.exception)
    return result.stdout


@pytest.fixture(params=["data", "corpora"])
def eight(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Manifest of eight utterances: those of this project, and the shortest of LibriSpeech's own FLAC files."""
    folder: Path = request.getfixturevalue(request.param)
    corpus = folder / ("LibriSpeech" if request.param == "data" else "LibriSpeech-flac-sample/LibriSpeech")
    run("prepare", "librispeech", corpus, "--output", tmp_path / "manifests")
    cuts = [cut for path in sorted((tmp_path / "manifests").iterdir()) for cut in manifests.load(path)]
    chosen = sorted(cuts, key=lambda cut: float(cut.duration))[:8]
    path = tmp_path / "eight.jsonl.gz"
    CutSet.from_cuts(chosen).to_file(path)
    return path


@pytest.mark.timeout(1500)  # seconds on an idle machine; nothing is asserted about time
def test_eight_utterances_are_learned_by_heart_and_read_back(eight: Path, tmp_path: Path) -> None:
    trained = tmp_path / "run"
    data = [f"data.train=[{eight}]", f"data.validation=[{eight}]"]
    run("train", ROOT / "recipes/sentences/sentences.yaml", f"output={trained}", *data)
    learned = log(trained, "validation")[-1]
    # A search that did not find the stop token by itself would say more than the reference.
    assert learned["error_rate"] == learned["ctc_error_rate"] == 0
    assert learned["length_ratio"] == 1

    folder = checkpoints.last(trained)
    assert folder is not None
    for decoder in ("autoregressive", "ctc"):
        line = run("evaluate", folder, eight, "--output", tmp_path / decoder, "--decoder", decoder, "--normalizer", "basic")
        assert "WER 0.00 %" in line
        assert "8 utterances" in line
        assert "0 ended by a bound" in line
    table = (tmp_path / "ctc" / "README.md").read_text()
    assert f"| eight | {folder.name} | ctc, greedy, batch 16, " in table
    assert " | word | WER 0.00% |" in table

    run("average", *checkpoints.best(trained, 2), "--output", tmp_path / "mean")
    cuts = list(manifests.load(eight))
    wanted = {cut.id: str(cut.supervisions[0].text).lower() for cut in cuts}
    (tmp_path / "audio").mkdir()
    for cut in cuts:
        source = Path(cut.recording.sources[0].source)
        (tmp_path / "audio" / f"{cut.id}{source.suffix}").write_bytes(source.read_bytes())
    for model in (folder, tmp_path / "mean"):
        texts = tmp_path / f"texts of {model.name}"
        # Learned by heart is the whole recording, and voice activity detection would take its quiet ends.
        options = ("--format", "json", "--batch-size", 3, "--no-vad")
        run("transcribe", tmp_path / "audio", "--model", model, "--output-dir", texts, *options)
        found = {path.stem: json.loads(path.read_text()) for path in texts.iterdir()}
        assert found.keys() == wanted.keys()
        if model == folder:
            assert {name: each["text"] for name, each in found.items()} == wanted
            assert all(segment["finish_reason"] == "stop" for each in found.values() for segment in each["segments"])


def test_a_result_that_has_no_place_is_refused_before_anything_is_decoded(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("prepare", "librispeech", data / "LibriSpeech", "--output", tmp_path)
    (tmp_path / "file").touch()
    monkeypatch.setattr("asr.transcription.transcriber.Transcriber.decode", lambda *arguments: pytest.fail("decoded"))
    result = CliRunner().invoke(app, ["evaluate", "en", str(tmp_path / "sentences.jsonl.gz"), "--output", str(tmp_path / "file")])
    assert isinstance(result.exception, AsrError)
    assert "file: cannot be made" in str(result.exception)
