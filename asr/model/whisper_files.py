"""The containers that Whisper's weights are published in: OpenAI's ``.pt``, ggml ``.bin``, Hugging Face folders.

Each is read into a ``WhisperSource`` under this project's names of the weights.
"""

from __future__ import annotations

import base64
import importlib.util
import json
import re
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from asr.exceptions import CheckpointError

_OURS = (
    (r"^encoder\.conv1\.", "encoder.stem.first."),
    (r"^encoder\.conv2\.", "encoder.stem.second."),
    (r"^encoder\.ln_post\.", "encoder.norm."),
    (r"^decoder\.ln\.", "decoder.norm."),
    (r"^decoder\.positional_embedding$", "decoder.position_embedding"),
    (r"\.blocks\.", ".layers."),
    (r"\.cross_attn_ln\.", ".cross_attention_residual.norm."),
    (r"\.attn_ln\.", ".self_attention_residual.norm."),
    (r"\.mlp_ln\.", ".feed_forward_residual.norm."),
    (r"\.cross_attn\.", ".cross_attention."),
    (r"\.attn\.", ".self_attention."),
    (r"\.out\.", ".output."),
    (r"\.mlp\.0\.", ".feed_forward.expand."),
    (r"\.mlp\.2\.", ".feed_forward.contract."),
)

_FROM_HUGGING_FACE = (
    (r"^model\.", ""),
    (r"^encoder\.layer_norm\.", "encoder.norm."),
    (r"^decoder\.layer_norm\.", "decoder.norm."),
    (r"^encoder\.conv1\.", "encoder.stem.first."),
    (r"^encoder\.conv2\.", "encoder.stem.second."),
    (r"^decoder\.embed_tokens\.", "decoder.token_embedding."),
    (r"^decoder\.embed_positions\.weight$", "decoder.position_embedding"),
    (r"\.encoder_attn_layer_norm\.", ".cross_attention_residual.norm."),
    (r"\.self_attn_layer_norm\.", ".self_attention_residual.norm."),
    (r"\.final_layer_norm\.", ".feed_forward_residual.norm."),
    (r"\.encoder_attn\.", ".cross_attention."),
    (r"\.self_attn\.", ".self_attention."),
    (r"\.q_proj\.", ".query."),
    (r"\.k_proj\.", ".key."),
    (r"\.v_proj\.", ".value."),
    (r"\.out_proj\.", ".output."),
    (r"\.fc1\.", ".feed_forward.expand."),
    (r"\.fc2\.", ".feed_forward.contract."),
)


@dataclass(frozen=True)
class WhisperSource:
    """What a container holds: sizes, weights under this project's names, and the byte pairs if it has them."""

    mels: int
    vocabulary: int
    positions: int
    width: int
    encoder_layers: int
    decoder_layers: int
    heads: int
    text_positions: int
    weights: dict[str, Tensor]
    pieces: tuple[bytes, ...] | None


def _rename(name: str, rules: tuple[tuple[str, str], ...]) -> str:
    for pattern, ours in rules:
        name = re.sub(pattern, ours, name)
    return name


def read_openai(path: Path) -> WhisperSource:
    """Read an OpenAI ``.pt``, which has no vocabulary of its own.

    Raises:
        CheckpointError: the file is damaged or something else.
    """
    try:
        # weights_only: the file is a pickle, and nothing of it but tensors may run.
        content = torch.load(path, map_location="cpu", weights_only=True)
        sizes, weights = content["dims"], content["model_state_dict"]
        return WhisperSource(
            mels=sizes["n_mels"],
            vocabulary=sizes["n_vocab"],
            positions=sizes["n_audio_ctx"],
            width=sizes["n_audio_state"],
            encoder_layers=sizes["n_audio_layer"],
            decoder_layers=sizes["n_text_layer"],
            heads=sizes["n_audio_head"],
            text_positions=sizes["n_text_ctx"],
            weights={_rename(name, _OURS): value for name, value in weights.items()},
            pieces=None,
        )
    except Exception as error:  # torch raises many kinds for a damaged or foreign file
        raise CheckpointError(f"{path}: is neither an OpenAI .pt nor a ggml file; give an official one.") from error


def read_ggml(path: Path) -> WhisperSource:
    """Read a whisper.cpp ggml file in fp16 or fp32.

    Raises:
        CheckpointError: the file is damaged, cut off or quantised.
    """
    with path.open("rb") as file:
        file.seek(4)
        try:
            sizes = struct.unpack("<11i", file.read(44))
            vocabulary, positions, width, heads, layers = sizes[:5]
            text_positions, _, _, text_layers, mels, kind = sizes[5:]
            if kind not in (0, 1):
                raise CheckpointError(f"{path}: is a quantised ggml model; give the fp16 or fp32 one.")
            rows, columns = struct.unpack("<2i", file.read(8))
            file.seek(4 * rows * columns, 1)  # mel filters, which librosa computes as well
            (count,) = struct.unpack("<i", file.read(4))
            pieces = tuple(file.read(struct.unpack("<i", file.read(4))[0]) for _ in range(count))
            weights = dict(_ggml_tensors(file))
        except (struct.error, ValueError, UnicodeDecodeError) as error:
            raise CheckpointError(f"{path}: is a truncated or damaged ggml file; download it again.") from error
    weights = {_rename(name, _OURS): value for name, value in weights.items()}
    for name in ("encoder.stem.first.bias", "encoder.stem.second.bias"):
        if name in weights:  # a truncated file ends before; the caller names what is missing
            weights[name] = weights[name].flatten()
    return WhisperSource(mels, vocabulary, positions, width, layers, text_layers, heads, text_positions, weights, pieces)


def _ggml_tensors(file: BinaryIO) -> Iterable[tuple[str, Tensor]]:
    while header := file.read(12):
        dimensions, name_length, kind = struct.unpack("<3i", header)
        shape = struct.unpack(f"<{dimensions}i", file.read(4 * dimensions))[::-1]
        name = file.read(name_length).decode()
        dtype = np.dtype("<f2" if kind == 1 else "<f4")
        size = int(np.prod(shape)) * dtype.itemsize
        values = np.frombuffer(file.read(size), dtype=dtype).reshape(shape)
        yield name, torch.from_numpy(values.astype(np.float32))


def read_hugging_face(folder: Path) -> WhisperSource:
    """Read a Hugging Face folder with ``config.json`` and safetensors.

    Raises:
        CheckpointError: the folder is not complete or holds another model.
    """
    try:
        sizes = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        files = sorted(folder.glob("model*.safetensors"))
        weights = {name: value for file in files for name, value in load_file(file).items()}
        if not weights:
            raise CheckpointError(f"{folder}: has no model.safetensors; download the folder with its weights.")
        if sizes.get("model_type") != "whisper":
            raise CheckpointError(f"{folder}: holds a '{sizes.get('model_type')}' model; give a Whisper one.")
        pieces = read_pieces(folder / "vocab.json") if (folder / "vocab.json").is_file() else None
        return WhisperSource(
            mels=sizes["num_mel_bins"],
            vocabulary=sizes["vocab_size"],
            positions=sizes["max_source_positions"],
            width=sizes["d_model"],
            encoder_layers=sizes["encoder_layers"],
            decoder_layers=sizes["decoder_layers"],
            heads=sizes["encoder_attention_heads"],
            text_positions=sizes["max_target_positions"],
            weights={_rename(n, _FROM_HUGGING_FACE): v for n, v in weights.items() if not n.startswith("proj_out.")},
            pieces=pieces,
        )
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise CheckpointError(f"{folder}: is not a Hugging Face Whisper folder ({error}); download it again.") from error


def read_pieces(path: Path) -> tuple[bytes, ...]:
    """Byte pairs in order, of a ``.tiktoken`` file or GPT-2's ``vocab.json``."""
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".json":
            numbers = {n: token for token, n in json.loads(text).items() if not token.startswith("<|")}
            letters = {letter: byte for byte, letter in _byte_letters().items()}
            return tuple(bytes(letters[letter] for letter in numbers[n]) for n in sorted(numbers))
        lines = [line.split() for line in text.splitlines() if line.strip()]
        ranked = sorted((int(rank), base64.b64decode(piece)) for piece, rank in lines)
        return tuple(piece for _, piece in ranked)
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"{path}: is not a byte-pair vocabulary ({error}); give a .tiktoken or vocab.json.") from error


def _byte_letters() -> dict[int, str]:
    """The printable letter by which GPT-2's vocab.json writes each byte."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in plain]
    return {**{byte: chr(byte) for byte in plain}, **{byte: chr(256 + n) for n, byte in enumerate(others)}}


def find_vocabulary(source: Path, size: int, given: str | Path | None) -> Path:
    """The vocabulary of a ``.pt``: the one given, one beside the file, or that of an installed openai-whisper.

    Raises:
        CheckpointError: there is none.
    """
    if given is not None:
        return Path(given)
    name = "multilingual.tiktoken" if size >= 51865 else "gpt2.tiktoken"
    beside = [source.parent / name, source.parent / "assets" / name]
    package = importlib.util.find_spec("whisper")
    if package is not None and package.origin:
        beside.append(Path(package.origin).parent / "assets" / name)
    for path in beside:
        if path.is_file():
            return path
    raise CheckpointError(
        f"{source}: has no vocabulary of its own; put {name} beside it or name it with --vocabulary "
        "(github.com/openai/whisper has it in whisper/assets)."
    )
