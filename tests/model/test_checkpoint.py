"""A checkpoint comes back from disk as it was, or within the rounding of its storage; anything else is refused."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from asr.audio.features import FilterbankConfiguration
from asr.exceptions import CheckpointError, ConfigurationError
from asr.model.checkpoint import Checkpoint, load, save
from asr.model.configuration import DecoderConfiguration, EncoderConfiguration, ModelConfiguration
from asr.model.recognizer import Recognizer
from asr.model.storage import Storage, eight_bits, pack, quantize_rows, unpack
from asr.text.tokenizer import CharacterTokenizer

STORAGES: list[Storage] = ["float32", "float16", "int8", "int6"]


@pytest.fixture(scope="module", params=["before", "after", "batch"])
def original(request: pytest.FixtureRequest) -> Checkpoint:
    torch.manual_seed(4)
    tokenizer = CharacterTokenizer.build(["the quick brown fox jumps over the lazy dog's 犬"])
    learned = request.param == "after"
    configuration = ModelConfiguration(
        front_end=FilterbankConfiguration(mels=40),
        encoder=EncoderConfiguration(
            block="conformer" if learned else "transformer", layers=1, width=64, feed_forward=128, norm=request.param
        ),
        decoder=DecoderConfiguration(
            layers=1, feed_forward=128, norm=request.param, positions="learned" if learned else "sinusoidal"
        ),
    )
    model = Recognizer(configuration, len(tokenizer))
    # A step in training gives batch normalisation statistics that are worth keeping.
    model.encode(torch.randn(2, 8000), torch.tensor([8000, 4000]))
    return Checkpoint(model.eval(), tokenizer)


def scores(checkpoint: Checkpoint) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    waveforms = torch.randn(2, 8000, generator=generator) * 0.1
    tokens = torch.randint(4, 20, (2, 6), generator=generator)
    assert checkpoint.model.decoder is not None
    with torch.no_grad():
        encoded = checkpoint.model.encode(waveforms, torch.tensor([8000, 5000]))
        logits = checkpoint.model.decoder(tokens, encoded.values, encoded.lengths)
        return checkpoint.model.ctc_log_probabilities(encoded), logits


@pytest.mark.parametrize("storage", STORAGES)
def test_a_checkpoint_comes_back(original: Checkpoint, storage: Storage, tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"
    save(original, folder, "# A card\n", storage)
    again = load(folder)
    assert again.folder == folder
    assert again.model.configuration == original.model.configuration
    assert again.tokenizer.tokens == original.tokenizer.tokens
    assert not again.model.training
    assert (folder / "README.md").read_text() == "# A card\n"
    before, after = original.model.state_dict(), again.model.state_dict()
    assert list(before) == list(after)
    for name, value in before.items():
        assert after[name].dtype == torch.float32
        assert after[name].device.type == "cpu"
        if storage == "float32":
            assert torch.equal(after[name], value)
        elif storage == "int6" and value.dim() >= 2 and value[0].numel() % 64 == 0:
            groups = value.flatten(1).unflatten(1, (-1, 64))
            # The cut of a group's largest weight is at most 30 %, the rest is within half a step of the whole range.
            error = (after[name].view_as(groups) - groups).abs()
            assert bool((error <= 0.301 * groups.abs().amax(dim=2, keepdim=True) + 1e-6).all())
            assert float(error.square().mean().sqrt()) < 0.03 * float(groups.square().mean().sqrt()) + 1e-6
        elif storage == "float16" or value.dim() != 2:
            assert torch.equal(after[name], value.half().float())
        else:
            step = value.abs().amax(dim=1, keepdim=True) / 127
            assert bool(((after[name] - value).abs() <= step * 0.501 + 1e-7).all())
    # Computation, not only parameters: front end and positions are not in the file.
    tolerance = {"float32": 0.0, "float16": 2e-2, "int8": 0.5, "int6": 1.0}[storage]
    for ours, theirs in zip(scores(again), scores(original), strict=True):
        torch.testing.assert_close(ours, theirs, atol=tolerance, rtol=0)


def test_storage_decides_the_size(original: Checkpoint, tmp_path: Path) -> None:
    sizes: dict[Storage, int] = {}
    for storage in STORAGES:
        save(original, tmp_path / storage, "card", storage)
        listing = {path.name: path.stat().st_size for path in (tmp_path / storage).iterdir()}
        assert set(listing) == {"model.safetensors", "config.yaml", "tokens.txt", "README.md"}
        assert listing["README.md"] == 4
        stored = load_file(tmp_path / storage / "model.safetensors")
        data = sum(value.numel() * value.element_size() for value in stored.values())
        assert data < listing["model.safetensors"] < data + 200 * len(stored)
        sizes[storage] = data
    state = original.model.state_dict()
    values = sum(value.numel() for value in state.values())
    matrices = sum(value.numel() for value in state.values() if value.dim() == 2)
    rows = sum(len(value) for value in state.values() if value.dim() == 2)
    six = sum(value.numel() for value in state.values() if value.dim() >= 2 and value[0].numel() % 64 == 0)
    eight = sum(value.numel() + 4 * len(value) for value in state.values() if value.dim() == 2 and value.shape[1] % 64)
    rest = values - six - sum(value.numel() for value in state.values() if value.dim() == 2 and value.shape[1] % 64)
    assert sizes == {
        "float32": 4 * values,
        "float16": 2 * values,
        "int8": 2 * values - matrices + 4 * rows,
        "int6": six * 6 // 8 + six // 64 * 2 + eight + 2 * rest,
    }


@given(st.lists(st.lists(st.floats(-1e4, 1e4, width=32), min_size=3, max_size=3), min_size=1, max_size=5))
@settings(max_examples=50)
def test_eight_bits_are_within_half_a_step(rows: list[list[float]]) -> None:
    matrix = torch.tensor(rows)
    packed = pack({"matrix": matrix}, "int8")
    assert packed["matrix"].dtype == torch.int8
    again = unpack(packed)
    assert list(again) == ["matrix"]
    step = matrix.abs().amax(dim=1, keepdim=True) / 127
    assert bool(((again["matrix"] - matrix).abs() <= 0.501 * step + 1e-12).all())
    # What is stored once is stored again without loss: no drift by copying a checkpoint.
    torch.testing.assert_close(unpack(pack(again, "int8"))["matrix"], again["matrix"], rtol=1e-5, atol=1e-12)


@given(st.lists(st.integers(-31, 31), min_size=128, max_size=128), st.sampled_from([0.25, 1.0, 8.0]))
@settings(max_examples=50)
def test_six_bits_of_whole_steps_are_exact(numbers: list[int], step: float) -> None:
    matrix = torch.tensor(numbers).view(2, 64).float() * step
    # With a full range in each group the step is known, and so nothing is rounded.
    matrix[:, 0] = 31 * step
    packed = pack({"matrix": matrix}, "int6")
    assert packed["matrix"].shape == (2, 48)
    # Four weights in three bytes, the first in the lowest bits, read here by Python's own integers.
    word = int.from_bytes(bytes(packed["matrix"][1, :3].tolist()), "little")
    assert [(word >> 6 * place & 63) - 32 for place in range(4)] == [round(float(v) / step) for v in matrix[1, :4]]
    assert torch.equal(unpack(packed)["matrix"], matrix)


@pytest.mark.parametrize("kept", ["float16", "int8", "int6"])
def test_eight_bits_are_the_same_some_rows_at_a_time(kept: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    matrix = torch.randn(21, 128, generator=torch.Generator().manual_seed(0))
    packed = pack({"matrix": matrix}, kept)
    expected = quantize_rows(unpack(packed)["matrix"])
    for count in (128, 5 * 128 + 3, 1 << 18):
        monkeypatch.setattr("asr.model.storage._AT_ONCE", count)
        rows, scale = eight_bits(packed["matrix"], packed.get("matrix.scale"))
        assert torch.equal(rows, expected[0])
        torch.testing.assert_close(scale, expected[1], rtol=1e-6 if kept == "int8" else 0, atol=0)


def test_a_ctc_head_may_have_characters_of_its_own(original: Checkpoint, tmp_path: Path) -> None:
    configuration = original.model.configuration.model_copy(update={"ctc_characters": "ab '"})
    model = Recognizer(configuration, len(original.tokenizer)).eval()
    save(Checkpoint(model, original.tokenizer), tmp_path, "card")
    again = load(tmp_path)
    assert again.ctc_tokenizer.encode("Ab, b'c") == [4, 5, 6, 5, 7, 1]
    assert again.model.ctc is not None
    assert again.model.ctc.out_features == 8
    encoded = again.model.encode(torch.randn(1, 8000), torch.tensor([8000]))
    assert again.model.ctc_log_probabilities(encoded).shape[2] == 8
    assert original.ctc_tokenizer is original.tokenizer


@pytest.fixture
def folder(original: Checkpoint, tmp_path: Path) -> Path:
    save(original, tmp_path / "model", "card", "float16")
    return tmp_path / "model"


@pytest.mark.parametrize("name", ["model.safetensors", "config.yaml", "tokens.txt"])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(CheckpointError, match=name.replace(".", r"\.")):
        load(folder)


def test_the_card_is_not_needed(folder: Path) -> None:
    (folder / "README.md").unlink()
    assert not load(folder).model.training


def test_an_absent_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="absent"):
        load(tmp_path / "absent")


@pytest.mark.parametrize("length", [0, 4, 100, -10])
def test_truncated_weights_are_refused(folder: Path, length: int) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        load(folder)


def test_files_of_two_checkpoints_do_not_fit(folder: Path) -> None:
    text = (folder / "config.yaml").read_text()
    with (folder / "tokens.txt").open("a") as file:
        file.write("extra\n")
    with pytest.raises(CheckpointError, match=r"other shape decoder\.token_embedding\.weight"):
        load(folder)
    shutil.copy(folder / "tokens.txt", folder / "backup")
    (folder / "tokens.txt").write_text("".join((folder / "backup").read_text().splitlines(keepends=True)[:-1]))
    (folder / "config.yaml").write_text(text.replace("layers: 1", "layers: 2"))
    with pytest.raises(CheckpointError, match="without encoder"):
        load(folder)
    (folder / "config.yaml").write_text(text.replace("ctc: true", "ctc: false"))
    with pytest.raises(CheckpointError, match=r"unknown ctc\."):
        load(folder)
    (folder / "config.yaml").write_text(text.replace("width: 64", "width: sixty"))
    with pytest.raises(ConfigurationError, match=r"encoder\.width"):
        load(folder)
    (folder / "config.yaml").write_text(text)
    load(folder)


def test_counts_of_parameters_cover_the_model(original: Checkpoint) -> None:
    counts = original.model.parameter_counts()
    assert set(counts) == {"encoder", "decoder", "ctc"}
    assert sum(counts.values()) == sum(parameter.numel() for parameter in original.model.parameters())


@pytest.mark.parametrize("mask", [0o022, 0o027])
def test_weights_can_be_read_by_whom_the_other_files_can(original: Checkpoint, mask: int, tmp_path: Path) -> None:
    before = os.umask(mask)
    try:
        save(original, tmp_path / "model", "# A card\n")
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "model").iterdir()} == {0o666 & ~mask}
