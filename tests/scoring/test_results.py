"""The results table in a README."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from asr.exceptions import ScoringError
from asr.scoring.errors import count
from asr.scoring.results import BEGIN, COLUMNS, END, ResultsRow, write_row

ROW = ResultsRow.from_score(
    count({"a": "one two three four"}, {"a": "one too three"}),
    data_set="dev",
    model="small",
    decoder="ctc",
    interval=(0.25, 0.75),
    real_time_factor=0.0512,
    parameters=1_234_567,
    commit="abc1234",
    command="asr evaluate small dev | tee log",
)


def table(readme: Path) -> list[str]:
    text = readme.read_text(encoding="utf-8")
    return text[text.index(BEGIN) + len(BEGIN) : text.index(END)].strip().splitlines()


def test_a_new_readme_holds_the_row_and_json_beside(tmp_path: Path) -> None:
    readme = tmp_path / "new" / "README.md"
    write_row(readme, ROW)
    assert table(readme)[2] == (
        "| dev | small | ctc | word | WER 50.00% | 25.00–75.00% | 1 | 1 | 0 | 4 | 0.0512 | 1,234,567 | none | abc1234 "
        "| `asr evaluate small dev \\| tee log` |"
    )
    assert table(readme)[0] == "| " + " | ".join(COLUMNS) + " |"
    (entry,) = json.loads((readme.parent / "results.json").read_text(encoding="utf-8"))
    assert entry["rate"] == 0.5
    assert entry["interval"] == [0.25, 0.75]


def test_the_same_measurement_is_replaced_in_its_place_and_the_rest_is_untouched(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(f"# Recipe\n\nBefore.\n\n{BEGIN}\n{END}\n\nAfter.\n", encoding="utf-8")
    write_row(readme, ROW)
    write_row(readme, replace(ROW, decoder="greedy"))
    write_row(readme, replace(ROW, rate=0.125, commit="def"))
    rows = table(readme)[2:]
    assert len(rows) == 2
    assert "WER 12.50%" in rows[0]
    assert "greedy" in rows[1]
    text = readme.read_text(encoding="utf-8")
    assert text.startswith("# Recipe\n\nBefore.\n\n")
    assert text.endswith("\n\nAfter.\n")
    assert [entry["decoder"] for entry in json.loads((tmp_path / "results.json").read_text())] == ["ctc", "greedy"]
    before = text
    write_row(readme, replace(ROW, rate=0.125, commit="def"))
    assert readme.read_text(encoding="utf-8") == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["README.md", "results.json"]


def test_a_readme_without_markers_gets_them_at_its_end(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("# Recipe\n\nText.\n", encoding="utf-8")
    write_row(readme, replace(ROW, interval=None, real_time_factor=None, parameters=None))
    assert readme.read_text(encoding="utf-8").startswith("# Recipe\n\nText.\n\n" + BEGIN)
    assert table(readme)[2].count("–") == 3


@pytest.mark.parametrize("content", [BEGIN, END + BEGIN, BEGIN + BEGIN + END])
def test_broken_markers_and_files_are_refused(tmp_path: Path, content: str) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(content, encoding="utf-8")
    with pytest.raises(ScoringError, match="correct the markers"):
        write_row(readme, ROW)
    assert readme.read_text(encoding="utf-8") == content


@pytest.mark.parametrize("content", ["{}", "[{}]", "[1", "[3]"])
def test_a_foreign_results_file_is_not_overwritten(tmp_path: Path, content: str) -> None:
    (tmp_path / "results.json").write_text(content)
    with pytest.raises(ScoringError, match=r"results\.json"):
        write_row(tmp_path / "README.md", ROW)
    assert (tmp_path / "results.json").read_text() == content
    assert not (tmp_path / "README.md").exists()
