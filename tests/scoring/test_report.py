"""The report, its text and its page, by the figures that are known of the input."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest

from asr.exceptions import ScoringError
from asr.scoring import page as page_module
from asr.scoring import tables as tables_module
from asr.scoring.alignment import align
from asr.scoring.command import score_files
from asr.scoring.report import build_report, to_dict
from asr.scoring.summary import aligned_lines, summary, width
from asr.scoring.tables import ErrorTables, WorstUtterances, by_length

REFERENCES = {"s1-a": "the cat sat", "s1-b": "the dog", "s2-a": "a bird sang here", "s2-b": ""}
FIRST = {"s1-a": "the hat sat", "s1-b": "dog", "s2-a": "a bird sang here", "s2-b": "uh"}
SECOND = {"s1-a": "the cat sat", "s1-b": "the dog", "s2-a": "a bird sat here", "s2-b": ""}
SPEAKERS = {name: name[:2] for name in REFERENCES}


def test_tables_and_speakers_hold_the_known_errors() -> None:
    report = build_report(REFERENCES, {"x": FIRST}, speakers=SPEAKERS, shown=10)
    (system,) = report.systems
    assert system.confusions == [(("cat", "hat"), 1)]
    assert system.deletions == [("the", 1)]
    assert system.insertions == [("uh", 1)]
    assert [(s.name, s.utterances, s.wrong_sentences, s.counts.rate) for s in system.speakers] == [
        ("s1", 2, 2, 2 / 5),
        ("s2", 2, 1, 1 / 4),
    ]
    assert [(c.shortest, c.longest, c.utterances, c.counts.errors) for c in system.lengths] == [
        (0, 0, 1, 1),
        (2, 2, 1, 1),
        (3, 3, 1, 1),
        (4, 5, 1, 0),
    ]
    assert system.speaker_interval is not None
    assert [name for name, _ in report.worst] == ["s1-a", "s1-b", "s2-b", "s2-a"]


def test_comparison_says_which_utterances_changed() -> None:
    report = build_report(REFERENCES, {"one": FIRST, "two": SECOND}, speakers=SPEAKERS)
    comparison = report.comparison
    assert comparison is not None
    assert (comparison.better, comparison.worse) == (3, 1)
    assert sorted(comparison.most_better) == [("s1-a", -1), ("s1-b", -1), ("s2-b", -1)]
    assert comparison.most_worse == [("s2-a", 1)]
    assert comparison.bootstrap.difference == pytest.approx(-2 / 9)
    assert comparison.matched_pairs.segments == 4
    text = summary(report)
    assert "difference -22.22%" in text
    assert "matched pairs (MAPSSWE): p = " in text


def test_length_classes_cover_every_length() -> None:
    references = {str(n): " ".join("w" * n) for n in range(1200)}
    (system,) = build_report(references, {"x": references}).systems
    classes = by_length(system.score)
    assert sum(c.utterances for c in classes) == 1200
    assert all(a.longest is not None and a.longest + 1 == b.shortest for a, b in pairwise(classes))
    assert (classes[0].shortest, classes[-1].longest) == (0, None)
    for c in classes:
        last = 1199 if c.longest is None else c.longest
        assert c.utterances == last - c.shortest + 1
        assert c.counts.reference_length == sum(range(c.shortest, last + 1))


def test_memory_of_tables_and_worst_utterances_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables_module, "MAXIMUM_ENTRIES", 100)
    table, worst = ErrorTables(), WorstUtterances(5)
    for k in range(1000):
        alignments = (align(["frequent", f"r{k}"], [f"h{k}"] if k % 2 else ["often", f"h{k}"]),)
        table(str(k), alignments)
        worst(str(k), alignments)
    assert table.pruned
    assert len(table.confusions) <= 100
    assert table.confusions.most_common(1) == [(("frequent", "often"), 500)]
    assert [name for name, _ in worst.utterances] == ["0", "1", "2", "3", "4"]


def test_columns_are_aligned_for_wide_characters() -> None:
    # A Han character takes two columns, so that the letter below one is padded.
    assert list(aligned_lines(align(list("今天好"), list("今a好")))) == ["REF: 今 天 好", "HYP: 今 a  好", "        S"]
    assert width("今a\u0301") == 3
    assert list(aligned_lines(align(["a", "b"], ["a", "xyz", "b"]))) == ["REF: a *** b", "HYP: a xyz b", "       I"]


class Page(HTMLParser):
    """Collects the data and checks that what is opened is closed."""

    VOID = frozenset({"meta", "link", "input", "br", "line"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.data = ""
        self.sources: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.sources += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script" and data.startswith("{"):
            self.data += data


def page_of(folder: Path, references: dict[str, str], *systems: dict[str, str], **options: object) -> tuple[str, dict]:
    paths = []
    for place, texts in enumerate((references, *systems)):
        paths.append(folder / f"{place}.jsonl")
        paths[-1].write_text("".join(json.dumps({"id": k, "text": v}) + "\n" for k, v in texts.items()))
    score_files(paths[0], paths[1:], page=folder / "report.html", **options)  # type: ignore[arg-type]
    text = (folder / "report.html").read_text(encoding="utf-8")
    parser = Page()
    parser.feed(text)
    assert not parser.open
    assert not parser.sources
    return text, json.loads(parser.data)


def test_the_page_is_one_file_with_all_that_is_asked(tmp_path: Path) -> None:
    text, data = page_of(tmp_path, REFERENCES, FIRST, SECOND)
    assert "33.33%" in text
    assert "11.11%" in text
    assert "<svg" in text
    assert "https://" not in text
    assert "http://" not in text
    assert len(data["rows"]) == 4
    row = next(row for row in data["rows"] if row["name"] == "s1-a")
    assert row["counts"] == [[2, 1, 0, 0], [3, 0, 0, 0]]
    assert row["aligned"] == [["the", ["S", "cat", "hat"], "sat"], ["the", "cat", "sat"]]
    assert "@@" not in text


def test_the_page_escapes_what_it_shows(tmp_path: Path) -> None:
    evil = "</script><script>alert(1)</script>&<b>"
    text, data = page_of(tmp_path, {f"u{evil.replace(' ', '')}": f"{evil} x"}, {f"u{evil}": f"{evil}y x"})
    assert "<script>alert" not in text
    assert "<b>x" not in text
    assert data["rows"][0]["name"] == f"u{evil}"
    assert data["rows"][0]["aligned"][0][0] == ["S", evil, f"{evil}y"]


def test_a_page_that_would_be_too_large_says_what_it_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    references = {f"u-{k}": "a b c" for k in range(50)}
    hypotheses = {f"u-{k}": "a b c" if k < 40 else "a" for k in range(50)}
    text, data = page_of(tmp_path, references, hypotheses, page_utterances=10)
    assert "The 10 utterances with the most errors, of 50." in text
    assert {row["name"] for row in data["rows"]} == {f"u-{k}" for k in range(40, 50)}
    monkeypatch.setattr(page_module, "MAXIMUM_UNITS", 20)
    _, data = page_of(tmp_path, references, hypotheses)
    assert len(data["rows"]) == 5


def test_sound_is_put_into_the_page_until_it_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    audio = tmp_path / "audio" / "deep"
    audio.mkdir(parents=True)
    for name in ("u-0", "u-1"):
        (audio / f"{name}.wav").write_bytes(b"RIFF" + bytes(100))
    texts = {"u-0": "a", "u-1": "b", "u-2": "c"}
    monkeypatch.setattr(page_module, "MAXIMUM_AUDIO", 150)
    text, data = page_of(tmp_path, texts, texts, audio=tmp_path / "audio")
    sources = [row.get("audio", "none") for row in data["rows"]]
    assert sources[0].startswith("data:audio/wav;base64,UklGR")
    assert sources[1] == (audio / "u-1.wav").as_uri()
    assert sources[2] == "none"
    assert "The audio of 1 is linked" in text
    with pytest.raises(ScoringError, match="is not a folder"):
        page_of(tmp_path, texts, texts, audio=tmp_path / "nothing")


def test_all_empty_and_one_utterance(tmp_path: Path) -> None:
    text, _ = page_of(tmp_path, {"a": ""}, {"a": ""})
    assert "All references are empty" in text
    report = build_report({"a": ""}, {"x": {"a": "b"}})
    assert "the rate is the number of insertions" in summary(report)
    with pytest.raises(ScoringError, match="holds no utterances"):
        build_report({}, {"x": {}})


def test_json_holds_every_figure() -> None:
    values = json.loads(json.dumps(to_dict(build_report(REFERENCES, {"x": FIRST}, speakers=SPEAKERS))))
    (system,) = values["systems"]
    assert system["per_utterance"]["s1-b"] == [1, 0, 1, 0]
    assert system["rate"] == pytest.approx(3 / 9)
    assert system["interval"]["low"] <= system["rate"] <= system["interval"]["high"]
    assert system["normalizer_version"]
    assert values["comparison"] is None


def test_summary_names_rate_interval_and_normaliser() -> None:
    text = summary(build_report(REFERENCES, {"x": FIRST}, normalizer="english", allow_missing=True))
    assert re.search(r"WER 22\.22%  \[\d+\.\d\d, \d+\.\d\d\]% \(95%, bootstrap over 4 utterances\)", text)
    assert "normaliser: english, version whisper-normalizer" in text
