"""A model on disk: a folder with ``model.safetensors``, ``config.yaml``, ``tokens.txt`` and a model card.

Matrices may be stored in eight bits with a scale for each row, or in six bits with a scale for each 64 weights of a row.
Such a tensor ``name`` is int8 or, four weights in three bytes, uint8; ``name.scale`` goes with it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from asr import configuration
from asr.configuration import StrictModel
from asr.exceptions import CheckpointError
from asr.model.configuration import ModelConfiguration
from asr.model.precision import Precision, quantize, quantize_rows, to_bfloat16
from asr.model.recognizer import Recognizer
from asr.text.tokenizer import BytePairTokenizer, CharacterTokenizer, read_tokens, write_tokens

Storage = Literal["float32", "float16", "int8", "int6"]
_GROUP = 64
WEIGHTS, CONFIGURATION, TOKENS, CARD = "model.safetensors", "config.yaml", "tokens.txt", "README.md"


@dataclass(frozen=True)
class Checkpoint:
    """A model and its tokenizer, as a folder holds them."""

    model: Recognizer
    tokenizer: CharacterTokenizer | BytePairTokenizer
    folder: Path | None = None
    precision: Precision = "float32"

    @property
    def ctc_tokenizer(self) -> CharacterTokenizer | BytePairTokenizer:
        """Tokenizer of the CTC head: the decoder's, unless the head has characters of its own."""
        characters = self.model.configuration.ctc_characters
        return self.tokenizer if characters is None else CharacterTokenizer.of(characters)


class Configured(Protocol):
    """A model that knows what it was made from."""

    @property
    def configuration(self) -> StrictModel:
        """What ``config.yaml`` holds."""

    def state_dict(self) -> dict[str, Any]:
        """Weights by name."""


class Storable(Protocol):
    """A recogniser's checkpoint, or a language model's."""

    @property
    def model(self) -> Configured:
        """The model."""

    @property
    def tokenizer(self) -> CharacterTokenizer | BytePairTokenizer:
        """What its tokens are."""


Model = TypeVar("Model", bound=nn.Module)


def save(
    checkpoint: Storable,
    folder: Path,
    card: str,
    storage: Storage = "float32",
) -> None:
    """Write a checkpoint folder.

    Args:
        checkpoint: what to write.
        folder: made if needed.
        card: text of the model card: data, figures, licence.
        storage: type of the weights on disk; ``int8`` and ``int6`` quantise matrices and keep the rest in float16.
    """
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: value.detach().cpu() for name, value in checkpoint.model.state_dict().items()}
    save_file(pack(weights, storage), folder / WEIGHTS, metadata={"format": "pt"})
    configuration.dump(checkpoint.model.configuration, folder / CONFIGURATION)
    write_tokens(checkpoint.tokenizer.tokens, folder / TOKENS)
    (folder / CARD).write_text(card, encoding="utf-8")


def load(folder: Path, device: torch.device | str = "cpu", precision: Precision = "float32") -> Checkpoint:
    """Read a checkpoint folder; the model is in evaluation mode.

    Args:
        folder: with the files that ``save`` writes.
        device: where to compute.
        precision: of the computation, whatever the storage; only a float32 model can be trained or saved again.

    Raises:
        CheckpointError: a file is missing or does not fit the configuration.
        ConfigurationError: the configuration is not valid.
    """
    folder = Path(folder)
    settings, tokenizer = describe(folder)
    model = filled(folder, lambda: Recognizer(settings, len(tokenizer)), precision)
    return Checkpoint(model.eval().to(device), tokenizer, folder, precision)


def describe(folder: Path) -> tuple[ModelConfiguration, CharacterTokenizer | BytePairTokenizer]:
    """Configuration and tokenizer of a recogniser's checkpoint folder, without its weights.

    Raises:
        CheckpointError: a file is missing, or it is a language model's.
        ConfigurationError: the configuration is not valid.
    """
    check_files(folder)
    if is_language_model(folder):
        raise CheckpointError(f"{folder}: is a language model and no recogniser; give it as --language-model.")
    settings = configuration.load(folder / CONFIGURATION, ModelConfiguration)
    return settings, read_tokens(folder / TOKENS, settings.tokenizer)


def check_files(folder: Path) -> None:
    """Refuse what is not a checkpoint folder.

    Raises:
        CheckpointError: a file is missing.
    """
    for name in (CONFIGURATION, WEIGHTS, TOKENS):
        if not (folder / name).is_file():
            raise CheckpointError(f"{folder}: is not a checkpoint, {name} is missing; give a folder with all of its files.")


def is_language_model(folder: Path) -> bool:
    """Whether a checkpoint folder is a language model's."""
    text = (folder / CONFIGURATION).read_text(encoding="utf-8", errors="replace")
    return re.search(r"^kind: language_model\s*$", text, re.MULTILINE) is not None


def filled(folder: Path, make: Callable[[], Model], precision: Precision = "float32") -> Model:
    """A model with the weights of a folder.

    Args:
        folder: with ``model.safetensors``.
        make: makes the model.
        precision: other than float32 of a recogniser only.

    Raises:
        CheckpointError: the weights cannot be read or are of another model.
    """
    # Parameters are made without memory and without random numbers, then take the file's tensors as they are.
    with torch.device("meta"), _NoInitialization():
        model = make()
    try:
        weights = unpack(load_file(folder / WEIGHTS), keep_rows=precision == "int8")
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{folder / WEIGHTS}: cannot be read ({error}); copy or download it again.") from error
    shapes = {name: value.shape for name, value in model.state_dict().items()}
    weights = {n: v.view(shapes[n]) if n in shapes and v.numel() == shapes[n].numel() else v for n, v in weights.items()}
    mistakes = _mismatch(model.state_dict(), {name: value for name, value in weights.items() if not name.endswith(".scale")})
    if mistakes:
        raise CheckpointError(f"{folder / WEIGHTS}: does not fit {CONFIGURATION} ({mistakes}); use files of one checkpoint.")
    if precision == "int8":
        assert isinstance(model, Recognizer)
        quantize(model, weights)
    model.load_state_dict(unpack(weights), assign=True)
    if precision == "bfloat16":
        assert isinstance(model, Recognizer)
        to_bfloat16(model)
    return model


def pack(weights: dict[str, Tensor], storage: Storage) -> dict[str, Tensor]:
    """Weights as they are stored."""
    packed: dict[str, Tensor] = {}
    for name, value in weights.items():
        if storage in ("int8", "int6") and value.dim() >= 2 and value.is_floating_point():
            rows = value.float().flatten(1)
            if storage == "int6" and rows.shape[1] % _GROUP == 0:
                packed[name], packed[f"{name}.scale"] = _pack_six(rows)
                continue
            if value.dim() == 2:
                packed[name], packed[f"{name}.scale"] = quantize_rows(rows)
                continue
        if value.is_floating_point():
            packed[name] = value.to(torch.float32 if storage == "float32" else torch.float16).contiguous()
        else:
            packed[name] = value.contiguous()
    return packed


def unpack(packed: dict[str, Tensor], keep_rows: bool = False) -> dict[str, Tensor]:
    """Stored weights in float32; a matrix of six bits has its rows flat, as wide as the packing says.

    With ``keep_rows`` matrices of eight bits stay as they are stored, their scales beside them.
    """
    weights: dict[str, Tensor] = {}
    for name, value in packed.items():
        if name.endswith(".scale"):
            continue
        scale = packed.get(f"{name}.scale")
        if scale is None:
            weights[name] = value.float()
        elif value.dtype == torch.uint8:
            weights[name] = _unpack_six(value, scale)
        elif keep_rows:
            weights[name], weights[f"{name}.scale"] = value, scale
        else:
            weights[name] = value.float() * scale[:, None].float()
    return weights


class _NoInitialization(TorchFunctionMode):
    """Leaves new parameters as they are: on the meta device random numbers, which nobody reads, import torch's compiler."""

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        if getattr(func, "__module__", None) == "torch.nn.init":
            return args[0] if args else kwargs["tensor"]
        return func(*args, **(kwargs or {}))


def _pack_six(rows: Tensor) -> tuple[Tensor, Tensor]:
    """(rows, columns) -> uint8 (rows, 3/4 columns) and scales float16 (rows, columns / 64).

    Cutting off the largest weights of a group leaves finer steps for all the others: the cut with the smallest squared
    error is taken.
    """
    groups = rows.view(len(rows), -1, _GROUP)
    largest = groups.abs().amax(dim=2, keepdim=True).clamp(min=1e-6)
    best_error = torch.full_like(largest, float("inf"))
    best_scale = largest
    for share in (1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7):
        scale = (share * largest / 31).half().float()
        error = ((groups / scale).round().clamp(-31, 31) * scale - groups).square().sum(dim=2, keepdim=True)
        best_scale = torch.where(error < best_error, scale, best_scale)
        best_error = torch.minimum(error, best_error)
    numbers = ((groups / best_scale).round().clamp(-31, 31) + 32).to(torch.int32).view(len(rows), -1, 4)
    a, b, c, d = numbers.unbind(dim=2)
    word = a | b << 6 | c << 12 | d << 18
    octets = torch.stack((word & 255, word >> 8 & 255, word >> 16), dim=2).flatten(1)
    return octets.to(torch.uint8), best_scale[:, :, 0].half()


def _unpack_six(octets: Tensor, scale: Tensor) -> Tensor:
    """The inverse of ``_pack_six``, float32 (rows, columns)."""
    # In octets, not in words of 24 bits: a model is unpacked each time that it is loaded.
    a, b, c = octets.view(len(octets), -1, 3).unbind(dim=2)
    numbers = torch.stack((a & 63, a >> 6 | (b & 15) << 2, b >> 4 | (c & 3) << 4, c >> 2), dim=2)
    groups = numbers.view(len(octets), -1, _GROUP).float().sub_(32)
    return groups.mul_(scale[:, :, None].float()).flatten(1)


def _mismatch(expected: dict[str, Tensor], given: dict[str, Tensor]) -> str:
    missing = [name for name in expected if name not in given]
    extra = [name for name in given if name not in expected]
    shapes = [n for n, v in expected.items() if n in given and v.shape != given[n].shape]
    parts = [
        f"{word} {', '.join(names[:3])}{' ...' if len(names) > 3 else ''}"
        for word, names in (("without", missing), ("unknown", extra), ("other shape", shapes))
        if names
    ]
    return "; ".join(parts)
