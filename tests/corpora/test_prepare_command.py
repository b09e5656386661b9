from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from asr.cli import app
from asr.corpora import manifests


@pytest.mark.parametrize("corpus", ["librispeech", "aishell"])
def test_prepare_writes_manifests_and_tells_what_it_found(corpus: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    folder = request.getfixturevalue(corpus)
    result = CliRunner().invoke(app, ["prepare", corpus, str(folder), "--output", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    counts = {path.name.split(".")[0]: len(manifests.load(path)) for path in (tmp_path / "out").iterdir()}
    expected = {"test-clean": 4, "own": 1} if corpus == "librispeech" else {"train": 2, "dev": 2, "test": 2}
    assert counts == expected
    rows = {line.split("│")[1].strip(): line for line in result.stdout.splitlines() if line.startswith("│")}
    assert {name: int(row.split("│")[3]) for name, row in rows.items()} == expected
    assert "test is not complete" in result.stderr or "test-clean is not complete" in result.stderr
    assert "complete:" not in result.stdout


def test_subset_is_for_librispeech(aishell: Path, tmp_path: Path) -> None:
    arguments = ["prepare", "aishell", str(aishell), "--output", str(tmp_path / "out"), "--subset", "dev"]
    assert CliRunner().invoke(app, arguments).exit_code == 2


def test_subset_restricts(librispeech: Path, tmp_path: Path) -> None:
    arguments = ["prepare", "librispeech", str(librispeech), "--output", str(tmp_path / "out"), "--subset", "own"]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["own.jsonl.gz"]
