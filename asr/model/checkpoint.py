"""A model on disk: a folder with ``model.safetensors``, ``config.yaml``, ``tokens.txt`` and a model card.

Matrices may be stored in eight bits, one scale a row: such a tensor ``name`` is int8 and ``name.scale`` float32.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.overrides import TorchFunctionMode

from asr import configuration
from asr.exceptions import CheckpointError
from asr.model.configuration import ModelConfiguration
from asr.model.recognizer import Recognizer
from asr.text.tokenizer import BytePairTokenizer, CharacterTokenizer, read_tokens, write_tokens

Storage = Literal["float32", "float16", "int8"]
WEIGHTS, CONFIGURATION, TOKENS, CARD = "model.safetensors", "config.yaml", "tokens.txt", "README.md"


@dataclass(frozen=True)
class Checkpoint:
    """A model and its tokenizer, as a folder holds them."""

    model: Recognizer
    tokenizer: CharacterTokenizer | BytePairTokenizer
    folder: Path | None = None


def save(
    checkpoint: Checkpoint,
    folder: Path,
    card: str,
    storage: Storage = "float32",
) -> None:
    """Write a checkpoint folder.

    Args:
        checkpoint: what to write.
        folder: made if needed.
        card: text of the model card: data, figures, licence.
        storage: type of the weights on disk; ``int8`` quantises matrices by row and keeps the rest in float16.
    """
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: value.detach().cpu() for name, value in checkpoint.model.state_dict().items()}
    save_file(pack(weights, storage), folder / WEIGHTS, metadata={"format": "pt"})
    configuration.dump(checkpoint.model.configuration, folder / CONFIGURATION)
    write_tokens(checkpoint.tokenizer.tokens, folder / TOKENS)
    (folder / CARD).write_text(card, encoding="utf-8")


def load(folder: Path, device: torch.device | str = "cpu") -> Checkpoint:
    """Read a checkpoint folder; the model is in evaluation mode and float32.

    Raises:
        CheckpointError: a file is missing or does not fit the configuration.
        ConfigurationError: the configuration is not valid.
    """
    folder = Path(folder)
    for name in (CONFIGURATION, WEIGHTS, TOKENS):
        if not (folder / name).is_file():
            raise CheckpointError(f"{folder}: is not a checkpoint, {name} is missing; give a folder with all of its files.")
    settings = configuration.load(folder / CONFIGURATION, ModelConfiguration)
    tokenizer = read_tokens(folder / TOKENS, settings.tokenizer)
    # Parameters are made without memory and without random numbers, then take the file's tensors as they are.
    with torch.device("meta"), _NoInitialization():
        model = Recognizer(settings, len(tokenizer))
    try:
        weights = unpack(load_file(folder / WEIGHTS))
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{folder / WEIGHTS}: cannot be read ({error}); copy or download it again.") from error
    mistakes = _mismatch(model.state_dict(), weights)
    if mistakes:
        raise CheckpointError(f"{folder / WEIGHTS}: does not fit {CONFIGURATION} ({mistakes}); use files of one checkpoint.")
    model.load_state_dict(weights, assign=True)
    return Checkpoint(model.eval().to(device), tokenizer, folder)


def pack(weights: dict[str, Tensor], storage: Storage) -> dict[str, Tensor]:
    """Weights as they are stored."""
    packed: dict[str, Tensor] = {}
    for name, value in weights.items():
        if storage == "int8" and value.dim() == 2 and value.is_floating_point():
            # The largest weight of a row becomes 127.
            scale = value.float().abs().amax(dim=1).clamp(min=1e-12) / 127
            packed[name] = (value.float() / scale[:, None]).round().to(torch.int8)
            packed[f"{name}.scale"] = scale
        elif value.is_floating_point():
            packed[name] = value.to(torch.float32 if storage == "float32" else torch.float16).contiguous()
        else:
            packed[name] = value.contiguous()
    return packed


def unpack(packed: dict[str, Tensor]) -> dict[str, Tensor]:
    """Stored weights in float32."""
    weights: dict[str, Tensor] = {}
    for name, value in packed.items():
        if name.endswith(".scale"):
            continue
        scale = packed.get(f"{name}.scale")
        weights[name] = value.float() * scale[:, None].float() if scale is not None else value.float()
    return weights


class _NoInitialization(TorchFunctionMode):
    """Leaves new parameters as they are: on the meta device random numbers, which nobody reads, import torch's compiler."""

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        if getattr(func, "__module__", None) == "torch.nn.init":
            return args[0] if args else kwargs["tensor"]
        return func(*args, **(kwargs or {}))


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
