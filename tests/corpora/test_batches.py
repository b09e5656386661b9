from __future__ import annotations

import json
import threading
from collections import Counter
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lhotse import CutSet, Recording, SupervisionSegment
from lhotse.audio import AudioSource
from lhotse.cut import MonoCut

from asr.audio.augmentation import AugmentationConfiguration, WaveformAugmentation
from asr.configuration import validate
from asr.corpora import batches, manifests
from asr.corpora.batches import Batch, BatchLoader, select
from asr.exceptions import AudioError, CorpusError
from tests.corpora.conftest import Write, listed


def silent(durations: list[float]) -> CutSet:
    """Cuts of recordings that do not exist."""
    cuts = []
    for number, duration in enumerate(durations):
        name = f"u{number}"
        cuts.append(
            MonoCut(
                name,
                start=0.0,
                duration=duration,
                channel=0,
                recording=Recording(name, [AudioSource("file", [0], f"/{name}.wav")], 16000, 1, duration),
                supervisions=[SupervisionSegment(name, name, 0.0, duration, text=f"T{number}", speaker="s")],
            )
        )
    return CutSet.from_cuts(cuts)


@pytest.fixture
def cuts(tmp_path: Path, write_audio: Write) -> CutSet:
    """40 utterances of 0.05 to 0.3 s."""
    generator = np.random.default_rng(5)
    with (tmp_path / "table.jsonl").open("w") as table:
        for number in range(40):
            name = f"{number:02d}.wav"
            write_audio(tmp_path / name, generator.uniform(0.05, 0.3), seed=number)
            table.write(json.dumps({"audio": name, "text": f"T {number}", "speaker": f"s{number % 3}"}) + "\n")
    return manifests.load(tmp_path / "table.jsonl")


def same(left: list[Batch], right: list[Batch]) -> bool:
    return len(left) == len(right) and all(
        (a.ids, a.texts, a.speakers) == (b.ids, b.texts, b.speakers)
        and torch.equal(a.waveforms, b.waveforms)
        and torch.equal(a.lengths, b.lengths)
        for a, b in zip(left, right, strict=True)
    )


def by_utterance(epoch: list[Batch]) -> dict[str, torch.Tensor]:
    return {identifier: batch.waveforms[row, : batch.lengths[row]] for batch in epoch for row, identifier in enumerate(batch.ids)}


def add_noise(waveform: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    longer = np.pad(waveform, (0, generator.integers(0, 400)))
    return (longer + generator.normal(0, 0.1, len(longer))).astype(np.float32)


def test_a_batch_holds_the_samples_of_its_files(cuts: CutSet, tmp_path: Path) -> None:
    seen = 0
    for batch in BatchLoader(cuts, maximum_seconds=1.0, shuffle=True, seed=0).epoch(0):
        assert batch.waveforms.dtype == torch.float32
        assert batch.lengths.dtype == torch.int64
        assert batch.waveforms.shape == (len(batch.ids), int(batch.lengths.max()))
        for row, identifier in enumerate(batch.ids):
            samples, _ = soundfile.read(tmp_path / f"{identifier}.wav", dtype="float32")
            assert int(batch.lengths[row]) == len(samples)
            assert np.array_equal(batch.waveforms[row, : len(samples)].numpy(), samples)
            assert not batch.waveforms[row, len(samples) :].any()
            assert batch.texts[row] == f"T {int(identifier)}"
            assert batch.speakers[row] == f"s{int(identifier) % 3}"
            seen += 1
    assert seen == 40


@settings(max_examples=50)
@given(
    durations=st.lists(st.floats(0.1, 20.0), min_size=1, max_size=60),
    maximum_seconds=st.floats(5.0, 60.0),
    maximum_utterances=st.none() | st.integers(1, 5),
    buckets=st.integers(1, 12),
    shuffle=st.booleans(),
    seed=st.integers(0, 3),
)
def test_ranks_get_as_many_batches_and_together_all_utterances(
    durations: list[float],
    maximum_seconds: float,
    maximum_utterances: int | None,
    buckets: int,
    shuffle: bool,
    seed: int,
) -> None:
    length = {f"u{number}": duration for number, duration in enumerate(durations)}
    with patch.object(batches.files, "read", lambda *_: np.zeros(1, np.float32)):
        for world_size in range(1, 5):
            loaders = [
                BatchLoader(
                    silent(durations),
                    maximum_seconds=maximum_seconds,
                    shuffle=shuffle,
                    seed=seed,
                    rank=rank,
                    world_size=world_size,
                    buckets=buckets,
                    maximum_utterances=maximum_utterances,
                )
                for rank in range(world_size)
            ]
            ranks = [list(loader.epoch(1)) for loader in loaders]
            assert {len(epoch) for epoch in ranks} == {loader.count(1) for loader in loaders}
            assert len({len(epoch) for epoch in ranks}) == 1
            # All ranks say the same of what all of them read.
            assert len({loader.order(1) for loader in loaders}) == 1
            times = Counter(identifier for epoch in ranks for batch in epoch for identifier in batch.ids)
            assert times.keys() == length.keys()
            # Given again only where fewer utterances are left than ranks.
            assert sum(times.values()) - len(length) < world_size
            for batch in (batch for epoch in ranks for batch in epoch):
                longest = max(length[identifier] for identifier in batch.ids)
                assert len(batch.ids) == 1 or len(batch.ids) * longest <= maximum_seconds
                assert len(batch.ids) <= (maximum_utterances or len(durations))


def test_ranks_wait_for_none_in_a_step() -> None:
    durations = np.random.default_rng(1).uniform(1.0, 17.0, 2000).tolist()
    longest = []
    with patch.object(batches.files, "read", lambda *_: np.zeros(1, np.float32)):
        for rank in range(4):
            loader = BatchLoader(silent(durations), maximum_seconds=100.0, shuffle=True, seed=0, rank=rank, world_size=4)
            longest.append([max(durations[int(i[1:])] for i in batch.ids) for batch in loader.epoch(0)])
    assert max(max(step) - min(step) for step in zip(*longest, strict=True)) < 3.0


def test_utterances_of_a_batch_are_of_similar_length() -> None:
    durations = np.random.default_rng(0).uniform(1.0, 17.0, 3000).tolist()
    with patch.object(batches.files, "read", lambda *_: np.zeros(1, np.float32)):
        epoch = list(BatchLoader(silent(durations), maximum_seconds=200.0, shuffle=True, seed=0).epoch(0))
    padded = sum(len(b.ids) * max(durations[int(i[1:])] for i in b.ids) for b in epoch)
    at_random = len(durations) * 17.0
    # Without buckets nearly half of what is computed would be padding.
    assert sum(durations) < padded < 1.15 * sum(durations) < 0.7 * at_random


@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.parametrize("skip", [0, 1, 5, 1000])
def test_skipping_gives_the_rest_of_the_epoch(cuts: CutSet, workers: int, skip: int) -> None:
    def loader(workers: int) -> BatchLoader:
        return BatchLoader(cuts, maximum_seconds=1.0, shuffle=True, seed=3, workers=workers, buckets=4, augmentation=add_noise)

    whole = list(loader(0).epoch(2))
    assert len(whole) > 6
    assert same(list(loader(workers).epoch(2, skip)), whole[skip:])


@pytest.mark.parametrize("workers", [0, 2])
def test_skipped_audio_is_not_read(cuts: CutSet, tmp_path: Path, workers: int) -> None:
    loader = BatchLoader(cuts, maximum_seconds=1.0, shuffle=True, seed=3, workers=workers)
    first, *rest = loader.epoch(0)
    (tmp_path / f"{first.ids[0]}.wav").unlink()
    assert same(list(loader.epoch(0, 1)), rest)
    with pytest.raises(AudioError, match=f"{first.ids[0]}.wav"):
        next(loader.epoch(0))


def test_the_digest_of_an_epoch_is_that_of_its_batches(cuts: CutSet) -> None:
    def order(number: int = 0, some: CutSet = cuts, seed: int = 0, seconds: float = 4.0, ranks: int = 1) -> str:
        return BatchLoader(some, maximum_seconds=seconds, shuffle=True, seed=seed, world_size=ranks).order(number)

    assert order() == order()
    fewer = CutSet.from_cuts(list(cuts)[1:])
    assert len({order(), order(1), order(seed=1), order(seconds=1.0), order(some=fewer), order(ranks=2)}) == 6


def test_order_follows_from_seed_and_epoch(cuts: CutSet) -> None:
    def order(seed: int, number: int, shuffle: bool = True) -> list[tuple[str, ...]]:
        loader = BatchLoader(cuts, maximum_seconds=1.0, shuffle=shuffle, seed=seed)
        return [batch.ids for batch in loader.epoch(number)]

    orders = [order(seed, number) for seed in range(3) for number in range(3)]
    assert all(left != right for i, left in enumerate(orders) for right in orders[:i])
    assert orders == [order(seed, number) for seed in range(3) for number in range(3)]
    assert order(0, 0, shuffle=False) == order(0, 7, shuffle=False)


def test_augmentation_follows_from_seed_epoch_and_utterance(cuts: CutSet) -> None:
    def heard(seed: int, number: int, world_size: int = 1, seconds: float = 1.0) -> dict[str, torch.Tensor]:
        loaders = (
            BatchLoader(
                cuts,
                maximum_seconds=seconds,
                shuffle=True,
                seed=seed,
                rank=rank,
                world_size=world_size,
                workers=rank,
                augmentation=add_noise,
            )
            for rank in range(world_size)
        )
        return by_utterance([batch for loader in loaders for batch in loader.epoch(number)])

    reference = heard(0, 0)
    other = heard(0, 0, world_size=3, seconds=0.5)
    assert len(reference) == 40
    assert all(torch.equal(reference[identifier], other[identifier]) for identifier in reference)
    for changed in (heard(1, 0), heard(0, 1)):
        assert not any(torch.equal(reference[identifier], changed[identifier]) for identifier in reference)
    first, second = reference["00"][:800], reference["01"][:800]
    assert abs(float(torch.corrcoef(torch.stack([first, second]))[0, 1])) < 0.5


@pytest.mark.parametrize("workers", [0, 2])
def test_stopping_in_mid_epoch_leaves_no_thread(cuts: CutSet, workers: int) -> None:
    epoch = BatchLoader(cuts, maximum_seconds=0.5, shuffle=True, seed=0, workers=workers).epoch(0)
    next(epoch)
    reading = [thread for thread in threading.enumerate() if thread.name.startswith("read-audio")]
    assert bool(reading) == bool(workers)
    epoch.close()
    assert not any(thread.is_alive() for thread in reading)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_teacher_hears_the_same_speech_without_what_disturbs_it(cuts: CutSet, workers: int) -> None:
    """At the speed that was drawn, sample for sample, but without noise."""

    def heard(seed: int = 3, **noise: object) -> list[Batch]:
        settings = {"speed": {"factors": [0.9, 1.1]}, "noise": noise}
        augmentation = WaveformAugmentation(validate(settings, AugmentationConfiguration, "test"))
        undisturbed = augmentation.at_speed if noise else None
        loader = BatchLoader(
            cuts,
            maximum_seconds=1.0,
            shuffle=True,
            seed=seed,
            workers=workers,
            augmentation=augmentation,
            undisturbed=undisturbed,
        )
        return list(loader.epoch(2))

    for disturbed, alone in zip(heard(probability=1.0), heard(), strict=True):
        assert alone.undisturbed is None
        assert disturbed.undisturbed is not None
        assert disturbed.ids == alone.ids
        assert torch.equal(disturbed.undisturbed, alone.waveforms)
        assert torch.equal(disturbed.lengths, alone.lengths)
        assert not torch.equal(disturbed.waveforms, alone.waveforms)


def test_part_of_a_recording(cuts: CutSet, tmp_path: Path) -> None:
    part = CutSet.from_cuts([cuts[0].truncate(offset=0.01, duration=0.02)])
    (batch,) = BatchLoader(part, maximum_seconds=1.0, shuffle=False, seed=0).epoch(0)
    samples, _ = soundfile.read(tmp_path / "00.wav", dtype="float32")
    assert np.array_equal(batch.waveforms[0].numpy(), samples[160:480])


def test_select_counts_by_reason() -> None:
    kept, dropped = select(
        silent([0.1, 0.5, 1.0, 2.0, 5.0, 5.1, 9.0]),
        minimum_seconds=0.5,
        maximum_seconds=5.0,
        fits=lambda duration, text: (duration, text) != (1.0, "T2"),
    )
    assert [cut.id for cut in kept] == ["u1", "u3", "u4"]
    assert (dropped.too_short, dropped.too_long, dropped.text_too_long, dropped.total) == (1, 2, 1, 4)
    assert select(kept, minimum_seconds=0.0, maximum_seconds=9.0, fits=None)[1].total == 0


def test_nothing_left_is_an_error() -> None:
    kept, _ = select(silent([1.0]), minimum_seconds=2.0, maximum_seconds=5.0, fits=None)
    with pytest.raises(CorpusError, match="no utterance is left"):
        BatchLoader(kept, maximum_seconds=1.0, shuffle=True, seed=0)


def test_real_speech(corpora: Path, tmp_path: Path) -> None:
    from asr.corpora.librispeech import prepare

    subsets = {subset.name: subset for subset in prepare(corpora, tmp_path).subsets}
    rows = listed(corpora, "LibriSpeech/dev-extra/")
    cuts, dropped = select(manifests.load(subsets["dev-extra"].manifest), minimum_seconds=1.0, maximum_seconds=10.0, fits=None)
    assert dropped.too_long == sum(duration > 10.0 for duration, *_ in rows.values())
    loader = BatchLoader(cuts, maximum_seconds=60.0, shuffle=True, seed=0, workers=2)
    epoch = loader.epoch(0)
    for batch in (next(epoch), next(epoch)):
        for row, identifier in enumerate(batch.ids):
            duration, speaker, text = rows[identifier]
            assert (batch.speakers[row], batch.texts[row]) == (speaker, text)
            assert abs(int(batch.lengths[row]) / 16000 - duration) < 6e-4
            assert 0.01 < float(batch.waveforms[row].abs().max()) <= 1.0
    epoch.close()
