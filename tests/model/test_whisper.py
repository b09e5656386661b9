"""Our Transformer with Whisper's kind of weights against openai-whisper itself, on a small random model."""

from __future__ import annotations

import base64
import json
import re
import struct
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from asr.exceptions import CheckpointError
from asr.model import checkpoint
from asr.model.whisper import convert

whisper = pytest.importorskip("whisper")

MULTILINGUAL, ENGLISH = 51865, 51864


@pytest.fixture(scope="module")
def origin() -> Any:
    """A random model of openai-whisper whose weights are exact in half precision, as those of ggml files are."""
    torch.manual_seed(0)
    sizes = whisper.model.ModelDimensions(80, 1500, 32, 4, 2, ENGLISH, 448, 32, 4, 2)
    model = whisper.model.Whisper(sizes).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
            parameter.copy_(parameter.half().float())
        model.encoder.positional_embedding.copy_(model.encoder.positional_embedding.half().float())
    return model


def pieces(name: str = "gpt2") -> list[bytes]:
    """Byte pairs in openai-whisper's own file."""
    path = Path(whisper.__file__).parent / "assets" / f"{name}.tiktoken"
    return [base64.b64decode(line.split()[0]) for line in path.read_text().splitlines() if line]


def write_openai(model: Any, path: Path) -> Path:
    torch.save({"dims": asdict(model.dims), "model_state_dict": model.state_dict()}, path)
    return path


def hugging_face_name(name: str) -> str:
    """The name that the transformers library gives a weight."""
    name = re.sub(r"^(encoder|decoder)\.blocks\.", r"\1.layers.", name)
    name = name.replace("cross_attn_ln", "encoder_attn_layer_norm").replace(".attn_ln", ".self_attn_layer_norm")
    name = name.replace(".cross_attn.", ".encoder_attn.").replace(".attn.", ".self_attn.").replace("mlp_ln", "final_layer_norm")
    name = name.replace(".mlp.0.", ".fc1.").replace(".mlp.2.", ".fc2.")
    for theirs, other in (("query", "q_proj"), ("key", "k_proj"), ("value", "v_proj"), ("out", "out_proj")):
        name = name.replace(f"attn.{theirs}.", f"attn.{other}.")
    name = name.replace("encoder.ln_post.", "encoder.layer_norm.").replace("decoder.ln.", "decoder.layer_norm.")
    name = name.replace("positional_embedding", "embed_positions.weight").replace("token_embedding", "embed_tokens")
    return f"model.{name}"


def write_hugging_face(model: Any, folder: Path, **changes: object) -> Path:
    folder.mkdir()
    sizes = model.dims
    settings: dict[str, object] = {
        "model_type": "whisper",
        "num_mel_bins": sizes.n_mels,
        "vocab_size": sizes.n_vocab,
        "max_source_positions": sizes.n_audio_ctx,
        "max_target_positions": sizes.n_text_ctx,
        "d_model": sizes.n_audio_state,
        "encoder_layers": sizes.n_audio_layer,
        "decoder_layers": sizes.n_text_layer,
        "encoder_attention_heads": sizes.n_audio_head,
        "decoder_attention_heads": sizes.n_text_head,
    }
    (folder / "config.json").write_text(json.dumps({**settings, **changes}))
    weights = {hugging_face_name(name): value.clone() for name, value in model.state_dict().items()}
    weights["proj_out.weight"] = weights["model.decoder.embed_tokens.weight"].clone()
    save_file(weights, folder / "model.safetensors")
    # GPT-2 writes bytes as letters: printable ones as they are, the others as U+0100 and what follows, in order.
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = [byte for byte in range(256) if byte not in printable]
    letters = {byte: chr(byte) if byte in printable else chr(256 + others.index(byte)) for byte in range(256)}
    vocabulary = {"".join(letters[byte] for byte in piece): number for number, piece in enumerate(pieces())}
    vocabulary["<|endoftext|>"] = len(vocabulary)
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    return folder


def write_ggml(model: Any, path: Path, kind: int = 1, half: bool = True) -> Path:
    """whisper.cpp's container: magic, sizes, mel filters, vocabulary, then each tensor with its shape reversed."""
    s = model.dims
    with path.open("wb") as file:
        file.write(struct.pack("<i", 0x67676D6C))
        file.write(struct.pack("<4i", s.n_vocab, s.n_audio_ctx, s.n_audio_state, s.n_audio_head))
        file.write(struct.pack("<4i", s.n_audio_layer, s.n_text_ctx, s.n_text_state, s.n_text_head))
        file.write(struct.pack("<3i", s.n_text_layer, s.n_mels, kind))
        file.write(struct.pack("<2i", s.n_mels, 201) + bytes(4 * s.n_mels * 201))
        file.write(struct.pack("<i", len(pieces())))
        for piece in pieces():
            file.write(struct.pack("<i", len(piece)) + piece)
        for name, value in model.state_dict().items():
            array: np.ndarray = value.numpy()
            if name in ("encoder.conv1.bias", "encoder.conv2.bias"):
                array = array[:, None]
            small = half and array.ndim > 1 and array.shape[1] > 1 and name != "encoder.positional_embedding"
            file.write(struct.pack("<3i", array.ndim, len(name), int(small)))
            file.write(struct.pack(f"<{array.ndim}i", *reversed(array.shape)) + name.encode())
            file.write(array.astype("<f2" if small else "<f4").tobytes())
    return path


@pytest.fixture(params=["openai", "hugging_face", "ggml half", "ggml float"])
def source(request: pytest.FixtureRequest, origin: Any, tmp_path: Path) -> Path:
    if request.param == "openai":
        return write_openai(origin, tmp_path / "random.pt")
    if request.param == "hugging_face":
        return write_hugging_face(origin, tmp_path / "folder")
    half = request.param == "ggml half"
    return write_ggml(origin, tmp_path / "ggml-random.bin", int(half), half)


def test_a_converted_model_equals_its_origin(origin: Any, source: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    checkpoint.save(convert(source), tmp_path / "ours", "a card")
    ours = checkpoint.load(tmp_path / "ours")
    audio = torch.randn(40000) * 0.1
    tokens = torch.randint(0, 50000, (1, 20))
    with torch.no_grad():
        mel = whisper.log_mel_spectrogram(whisper.pad_or_trim(audio))[None]
        encoded = ours.model.encode(audio[None], torch.tensor([40000]))
        torch.testing.assert_close(encoded.values, origin.encoder(mel), atol=1e-3, rtol=0)
        logits = ours.model.decoder(tokens, encoded.values, encoded.lengths)
        torch.testing.assert_close(logits, origin.decoder(tokens, encoded.values), atol=1e-3, rtol=1e-4)
    tokenizer = whisper.tokenizer.get_tokenizer(False)
    text = "It's 10,000 leagues, they'd say — naïvely."
    assert ours.tokenizer.encode(text) == tokenizer.encode(text)
    suppressed = {*tokenizer.non_speech_tokens, *range(50257, 51864)}
    assert set(ours.model.configuration.decoder.suppressed) == suppressed
    assert set(ours.model.configuration.decoder.suppressed_at_start) == {*tokenizer.encode(" "), tokenizer.eot}
    prompt = [ours.tokenizer.identifier(token) for token in ours.model.configuration.decoder.prompt]
    assert tuple(prompt) == tokenizer.sot_sequence_including_notimestamps


def test_a_multilingual_model_has_its_own_prompt(tmp_path: Path) -> None:
    sizes = whisper.model.ModelDimensions(80, 1500, 16, 2, 1, MULTILINGUAL, 448, 16, 2, 1)
    ours = convert(write_openai(whisper.model.Whisper(sizes), tmp_path / "random.pt"))
    tokenizer = whisper.tokenizer.get_tokenizer(True, num_languages=99, language="en", task="transcribe")
    prompt = [ours.tokenizer.identifier(token) for token in ours.model.configuration.decoder.prompt]
    assert tuple(prompt) == tokenizer.sot_sequence_including_notimestamps
    suppressed = set(ours.model.configuration.decoder.suppressed)
    assert suppressed == {*tokenizer.non_speech_tokens, *range(tokenizer.eot + 1, MULTILINGUAL)}


@pytest.mark.parametrize("content", [b"", b"lmgg", b"not a model at all"])
def test_a_foreign_file_is_one_sentence(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.bin").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"model\.bin"):
        convert(tmp_path / "model.bin")


def test_a_missing_file_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"absent\.pt: does not exist"):
        convert(tmp_path / "absent.pt")


@pytest.mark.parametrize("kind", [2, 7, 8, 1007])
def test_a_quantised_file_is_refused(origin: Any, tmp_path: Path, kind: int) -> None:
    with pytest.raises(CheckpointError, match="quantised"):
        convert(write_ggml(origin, tmp_path / "model.bin", kind))


def test_a_truncated_ggml_file_is_refused(origin: Any, tmp_path: Path) -> None:
    content = write_ggml(origin, tmp_path / "whole.bin").read_bytes()
    vocabulary = 4 + 44 + 8 + 4 * 80 * 201
    tensors = vocabulary + 4 + sum(4 + len(piece) for piece in pieces())
    for length in (3, 30, 50, vocabulary + 2, vocabulary + 100, tensors, tensors + 7, tensors + 40, len(content) - 1):
        path = tmp_path / f"{length}.bin"
        path.write_bytes(content[:length])
        with pytest.raises(CheckpointError, match=rf"{length}\.bin"):
            convert(path)


def test_a_damaged_openai_file_is_refused(origin: Any, tmp_path: Path) -> None:
    path = write_openai(origin, tmp_path / "random.pt")
    weights: dict[str, Tensor] = origin.state_dict()
    sizes = asdict(origin.dims)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(CheckpointError, match=r"random\.pt"):
        convert(path)
    lacking = {name: value for name, value in weights.items() if name != "decoder.ln.bias"}
    other_shape = {**weights, "decoder.ln.bias": torch.zeros(5)}
    for content in ({"dims": {}, "model_state_dict": weights}, weights, {"dims": sizes, "model_state_dict": []}):
        torch.save(content, path)
        with pytest.raises(CheckpointError, match=r"random\.pt"):
            convert(path)
    for state in (lacking, other_shape):
        torch.save({"dims": sizes, "model_state_dict": state}, path)
        with pytest.raises(CheckpointError, match=r"decoder\.norm\.bias"):
            convert(path)


class Harmful:
    """A pickle that would create a file when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str, str]]:
        return open, (str(self.path), "w")


def test_code_in_a_file_does_not_run(tmp_path: Path) -> None:
    torch.save({"dims": Harmful(tmp_path / "harm"), "model_state_dict": {}}, tmp_path / "random.pt")
    with pytest.raises(CheckpointError, match=r"random\.pt"):
        convert(tmp_path / "random.pt")
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize("damage", ["config.json", "model.safetensors", "vocab.json", "not json", "truncated", "other model"])
def test_a_damaged_hugging_face_folder_is_refused(origin: Any, tmp_path: Path, damage: str) -> None:
    folder = write_hugging_face(origin, tmp_path / "folder", **({"model_type": "bert"} if damage == "other model" else {}))
    if damage == "not json":
        (folder / "config.json").write_bytes(b"\xff{")
    elif damage == "truncated":
        (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:5000])
    elif damage == "vocab.json":
        (folder / damage).write_text('{"a": 0, "学": 1}')
    elif damage != "other model":
        (folder / damage).unlink()
    with pytest.raises(CheckpointError, match="folder"):
        convert(folder)


def test_a_vocabulary_can_be_named(origin: Any, tmp_path: Path) -> None:
    path = write_openai(origin, tmp_path / "random.pt")
    named = Path(whisper.__file__).parent / "assets" / "gpt2.tiktoken"
    assert convert(path, named).tokenizer.tokens == convert(path).tokenizer.tokens
    (tmp_path / "short.tiktoken").write_text("YQ== 0\n")
    for name in ("absent.tiktoken", "short.tiktoken"):
        with pytest.raises(CheckpointError, match="vocabulary"):
            convert(path, tmp_path / name)
