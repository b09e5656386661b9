from __future__ import annotations

import shutil
import tarfile
from pathlib import Path

import pytest
import soundfile
from lhotse.recipes.librispeech import prepare_librispeech

from asr.corpora import librispeech as room
from asr.corpora import manifests
from asr.exceptions import CorpusError
from tests.corpora.conftest import Write, listed


def test_real_flac_gives_what_lhotse_gives(corpora: Path, tmp_path: Path) -> None:
    root = corpora / "LibriSpeech-flac-sample" / "LibriSpeech"
    theirs = prepare_librispeech(root, dataset_parts=("train-clean-5", "dev-clean-2"))
    preparation = room.prepare(root.parent, tmp_path)
    assert [subset.name for subset in preparation.subsets] == sorted(theirs)
    for subset in preparation.subsets:
        ours = manifests.load(subset.manifest)
        supervisions = {s.id: (s.text, s.speaker) for s in theirs[subset.name]["supervisions"]}
        assert {c.supervisions[0].id: (c.supervisions[0].text, c.supervisions[0].speaker) for c in ours} == supervisions
        recordings = {r.id: (r.num_samples, r.sampling_rate) for r in theirs[subset.name]["recordings"]}
        assert {c.recording.id: (c.recording.num_samples, c.recording.sampling_rate) for c in ours} == recordings
        assert subset.hours == pytest.approx(sum(r.duration for r in theirs[subset.name]["recordings"]) / 3600)


def test_real_opus_has_the_listed_speech(corpora: Path, tmp_path: Path) -> None:
    preparation = room.prepare(corpora, tmp_path)
    found = {subset.name: subset for subset in preparation.subsets}
    expected = {"train-clean-5": (1519, 5.311, 28), "train-extra": (329, 1.033, 3), "dev-extra": (496, 1.675, 4)}
    assert {n: (s.utterances, round(s.hours, 3), s.speakers) for n, s in found.items()} == expected
    assert [found[name].complete for name in expected] == [True, None, None]
    cuts = manifests.load(found["dev-extra"].manifest)
    rows = listed(corpora, "LibriSpeech/dev-extra/")
    assert {c.id: (c.supervisions[0].speaker, c.supervisions[0].text) for c in cuts} == {
        identifier: (speaker, text) for identifier, (_, speaker, text) in rows.items()
    }
    assert all(abs(cut.duration - rows[cut.id][0]) < 6e-4 for cut in cuts)
    for cut in list(cuts)[::100]:
        samples, rate = soundfile.read(cut.recording.sources[0].source)
        assert (cut.recording.num_samples, cut.recording.sampling_rate) == (len(samples), rate) == (len(samples), 16000)


@pytest.mark.parametrize("parent", [True, False])
def test_the_folder_or_the_one_that_contains_it(librispeech: Path, tmp_path: Path, parent: bool) -> None:
    preparation = room.prepare(librispeech.parent if parent else librispeech, tmp_path / "out")
    assert preparation.corpus == librispeech
    own, clean = preparation.subsets
    assert (own.name, own.utterances, own.speakers, own.words, own.characters) == ("own", 1, 1, 1, 4)
    assert (clean.name, clean.utterances, clean.speakers, clean.words, clean.characters) == ("test-clean", 4, 2, 8, 40)
    assert clean.hours == pytest.approx(2 * (0.1 + 0.2) / 3600)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["own.jsonl.gz", "test-clean.jsonl.gz"]
    cuts = manifests.load(clean.manifest)
    assert [cut.id for cut in cuts] == ["121-900-0000", "121-900-0001", "61-900-0000", "61-900-0001"]
    assert all(Path(cut.recording.sources[0].source).is_absolute() for cut in cuts)


def test_a_short_official_subset_is_said_to_be_incomplete(librispeech: Path, tmp_path: Path) -> None:
    own, clean = room.prepare(librispeech, tmp_path / "out").subsets
    assert (own.complete, own.warnings) == (None, ())
    assert clean.complete is False
    assert clean.warnings == (
        "test-clean is not complete: 4 utterances where 2,620 were published, 8 words where 52,576 were published; "
        "figures on it are not figures on test-clean.",
    )


def test_a_relative_corpus_gives_absolute_paths(librispeech: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    subset = room.prepare(Path("LibriSpeech"), Path("out")).subsets[0]
    source = manifests.load(subset.manifest)[0].recording.sources[0].source
    assert source == str(librispeech / "own" / "7" / "900" / "7-900-0000.flac")


def test_transcripts_without_audio_are_listed(librispeech: Path, tmp_path: Path) -> None:
    for path in librispeech.glob("test-clean/61/900/*.flac"):
        path.unlink()
    with pytest.raises(CorpusError, match=r"2 transcripts have no audio \(61-900-0000, 61-900-0001\)"):
        room.prepare(librispeech, tmp_path / "out")


def test_audio_without_transcript_is_listed(librispeech: Path, tmp_path: Path, write_audio: Write) -> None:
    for number in range(7):
        write_audio(librispeech / "own" / "8" / "1" / f"8-1-{number:04d}.wav")
    with pytest.raises(CorpusError, match=r"7 audio files have no transcript \(8-1-0000, .*8-1-0004 and 2 more\)"):
        room.prepare(librispeech, tmp_path / "out")


def test_hidden_companions_are_not_audio(librispeech: Path, tmp_path: Path) -> None:
    (librispeech / "own" / "7" / "900" / "._7-900-0000.flac").write_bytes(b"companion")
    assert room.prepare(librispeech, tmp_path / "out").subsets[0].utterances == 1


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda c: (c / "7-900-0000.flac").write_bytes(b""), r"1 audio files cannot be used.*7-900-0000.flac"),
        (lambda c: shutil.copy(c / "7-900-0000.flac", c / "7-900-0000.wav"), r"there twice \(7-900-0000\)"),
        (lambda c: (c / "7-900.trans.txt").write_text("7-900-0000\n"), r"7-900.trans.txt, line 1: is not"),
        (lambda c: (c / "7-900.trans.txt").write_text("7-900-0000 A\n7-900-0000 B\n"), r"two transcripts"),
        (lambda c: (c / "7-900.trans.txt").write_bytes(b"7-900-0000 \xff\xfe\n"), r"7-900.trans.txt: cannot be read"),
    ],
)
def test_a_broken_subset_is_one_sentence(librispeech: Path, tmp_path: Path, break_it, message: str) -> None:
    break_it(librispeech / "own" / "7" / "900")
    with pytest.raises(CorpusError, match=message):
        room.prepare(librispeech, tmp_path / "out")


def test_a_folder_without_a_subset(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="holds no LibriSpeech subset"):
        room.prepare(tmp_path / "nowhere", tmp_path / "out")


def test_download_unpacks_the_archive_once(
    librispeech: Path, mirror: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, folder = mirror
    with tarfile.open(folder / "12" / "test-clean.tar.gz", "w:gz") as archive:
        archive.add(librispeech / "test-clean", "LibriSpeech/test-clean")
    target = tmp_path / "target"
    room.fetch(target, ["test-clean"], url)
    preparation = room.prepare(target, tmp_path / "out")
    assert [(subset.name, subset.utterances) for subset in preparation.subsets] == [("test-clean", 4)]
    (folder / "12" / "test-clean.tar.gz").unlink()
    room.fetch(target / "LibriSpeech", ["test-clean"], url)


def test_download_leaves_an_own_copy_alone(librispeech: Path, mirror: tuple[str, Path]) -> None:
    before = sorted(librispeech.rglob("*"))
    room.fetch(librispeech.parent, ["test-clean"], mirror[0])
    assert sorted(librispeech.rglob("*")) == before


@pytest.mark.parametrize("content", [None, b"not an archive"])
def test_a_failed_download_is_one_sentence(mirror: tuple[str, Path], tmp_path: Path, content: bytes | None) -> None:
    url, folder = mirror
    if content is not None:
        (folder / "12" / "dev-clean.tar.gz").write_bytes(content)
    with pytest.raises(CorpusError, match="download failed"):
        room.fetch(tmp_path / "target", ["dev-clean"], url)


def test_prepare_downloads_all_official_subsets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {}

    def pretend(target: Path, dataset_parts: list[str], base_url: str) -> None:
        asked.update(target=target, parts=dataset_parts, url=base_url)

    monkeypatch.setattr(room, "download_librispeech", pretend)
    (tmp_path / "LibriSpeech" / "dev-other").mkdir(parents=True)
    with pytest.raises(CorpusError, match="holds no LibriSpeech subset"):
        room.prepare(tmp_path, tmp_path / "out", download=True)
    assert asked["target"] == tmp_path
    assert asked["url"] == "http://www.openslr.org/resources"
    # All seven of OpenSLR 12 but the one that is there.
    assert sorted(asked["parts"]) == [
        *("dev-clean", "test-clean", "test-other", "train-clean-100", "train-clean-360", "train-other-500")
    ]


def test_download_of_an_unknown_subset(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="no subset train-clean-99"):
        room.fetch(tmp_path, ["train-clean-99"])


def test_named_subsets_only(librispeech: Path, tmp_path: Path) -> None:
    preparation = room.prepare(librispeech, tmp_path / "out", subsets=["own"])
    assert [subset.name for subset in preparation.subsets] == ["own"]
    with pytest.raises(CorpusError, match="has no subset dev-clean;"):
        room.prepare(librispeech, tmp_path / "out", subsets=["own", "dev-clean"])
