"""Weights in a file: whole, or matrices in eight bits with a scale for each row, or in six with one for each 64 weights of it.

Such a tensor ``name`` is int8 or, four weights in three bytes, uint8; ``name.scale`` goes with it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import save_file
from torch import Tensor

Storage = Literal["float32", "float16", "int8", "int6"]
_GROUP = 64
_AT_ONCE = 1 << 18  # weights


def write_tensors(tensors: dict[str, Tensor], path: Path, metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file that whoever may read the files beside it may read.

    safetensors gives the file to its owner alone: a colleague, or the account of a service, could not load the model.
    """
    save_file(tensors, path, metadata=metadata)
    mask = os.umask(0o077)
    os.umask(mask)
    path.chmod(0o666 & ~mask)


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


def unpack(packed: dict[str, Tensor]) -> dict[str, Tensor]:
    """Stored weights in float32; a matrix of six bits has its rows flat, as wide as the packing says."""
    weights: dict[str, Tensor] = {}
    for name, value in packed.items():
        if name.endswith(".scale"):
            continue
        scale = packed.get(f"{name}.scale")
        weights[name] = value.float() if scale is None else _rows(value, scale)
    return weights


def fits(packed: dict[str, Tensor], name: str, shape: torch.Size) -> bool:
    """Whether the stored tensor of that name holds one of this shape."""
    value = packed[name]
    if value.dtype == torch.uint8 and value.dim() == 2 and f"{name}.scale" in packed:
        return [len(value), value.shape[1] // 3 * 4 * len(value)] == [*shape[:1], shape.numel()]
    return value.shape == shape


def quantize_rows(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Eight bits for each weight and one scale for each row; the largest weight of a row becomes 127.

    Args:
        matrix: (rows, columns).

    Returns:
        int8 (rows, columns) and float32 (rows,); their product is the matrix, rounded.
    """
    matrix = matrix.float()
    scale = torch.maximum(matrix.amax(dim=1), -matrix.amin(dim=1)).clamp(min=1e-12) / 127
    return (matrix / scale[:, None]).round_().to(torch.int8), scale


def eight_bits(value: Tensor, scale: Tensor | None) -> tuple[Tensor, Tensor]:
    """A stored matrix as ``quantize_rows`` gives it: its own eight bits, or rounded to eight.

    Args:
        value: (rows, columns), or six bits of them.
        scale: stored with it, if any.
    """
    if value.dtype == torch.int8 and scale is not None:
        return value, scale.float()
    # Some rows at a time, which stay in the processor's cache on their way.
    count = max(_AT_ONCE // max(value.shape[1], 1), 1)
    parts = [
        quantize_rows(value[at : at + count] if scale is None else _rows(value[at : at + count], scale[at : at + count]))
        for at in range(0, len(value), count)
    ]
    return torch.cat([rows for rows, _ in parts]), torch.cat([scales for _, scales in parts])


def _rows(value: Tensor, scale: Tensor) -> Tensor:
    """Rows of eight or six bits in float32."""
    return _unpack_six(value, scale) if value.dtype == torch.uint8 else value.float() * scale[:, None].float()


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
    # In octets, not in words of 24 bits, and the first, second and third ones apart: a model is unpacked whenever it is loaded.
    a, b, c = (each.contiguous() for each in octets.view(len(octets), -1, 3).unbind(dim=2))
    numbers = torch.empty(*a.shape, 4)
    for place, each in enumerate((a & 63, a >> 6 | (b & 15) << 2, b >> 4 | (c & 3) << 4, c >> 2)):
        numbers[:, :, place] = each
    groups = numbers.view(len(octets), -1, _GROUP).sub_(32)
    return groups.mul_(scale[:, :, None].float()).flatten(1)
