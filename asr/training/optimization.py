"""The optimiser of a run and its learning rate, of a recogniser and of a language model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from asr.exceptions import TrainingError
from asr.training.configuration import OptimizationConfiguration
from asr.training.schedule import cosine, inverse_square_root


def make_optimizer(
    model: nn.Module, settings: OptimizationConfiguration, factors: Mapping[str, float] | None = None
) -> torch.optim.Optimizer:
    """The optimiser that a recipe asks for; ``factors`` of the learning rate by prefix as of ``parameter_groups``."""
    groups = parameter_groups(model, settings.learning_rate, factors or {}, settings.weight_decay)
    kind = torch.optim.AdamW if settings.optimizer == "adamw" else torch.optim.Adam
    return kind(groups, lr=settings.learning_rate, betas=settings.betas, eps=1e-9)


def set_learning_rate(
    optimizer: torch.optim.Optimizer, settings: OptimizationConfiguration, step: int, steps_in_all: int
) -> float:
    """Give the optimiser the rate of a step, counted from 1; returns its share of the peak."""
    factor = (
        cosine(step, settings.warmup_steps, steps_in_all)
        if settings.schedule == "cosine"
        else inverse_square_root(step, settings.warmup_steps)
    )
    for parameters in optimizer.param_groups:
        parameters["lr"] = parameters["peak"] * factor
    return factor


def hasten_rows(optimizer: torch.optim.Optimizer, parameter: torch.nn.Parameter, rows: slice, factor: float) -> None:
    """Let some rows of a parameter go ``factor`` times as far in each step as its learning rate says.

    What Adam does to a parameter without decay is proportional to the rate, so that this is a rate of their own.
    """
    before = parameter.detach()[rows].clone()

    def remember(*_: object) -> None:
        before.copy_(parameter.detach()[rows])

    def go_on(*_: object) -> None:
        with torch.no_grad():
            parameter[rows] = before.lerp(parameter[rows], factor)

    optimizer.register_step_pre_hook(remember)
    optimizer.register_step_post_hook(go_on)


def parameter_groups(
    model: nn.Module, learning_rate: float, factors: Mapping[str, float], weight_decay: float
) -> list[dict[str, Any]]:
    """Parameters with their peak rate; biases, norms and embeddings are not decayed, a factor of 0 freezes.

    Raises:
        TrainingError: a prefix names no parameter.
    """
    groups: dict[tuple[float, float], list[torch.nn.Parameter]] = {}
    used: set[str] = set()
    for name, parameter in model.named_parameters():
        prefixes = [prefix for prefix in factors if name == prefix or name.startswith(f"{prefix}.")]
        used.update(prefixes)
        factor = factors[max(prefixes, key=len)] if prefixes else 1.0
        parameter.requires_grad_(factor > 0)
        if factor > 0:
            decay = weight_decay if parameter.dim() > 1 and "embedding" not in name else 0.0
            groups.setdefault((learning_rate * factor, decay), []).append(parameter)
    if unknown := set(factors) - used:
        raise TrainingError(f"training.learning_rates: no parameter begins with {', '.join(sorted(unknown))}.")
    return [
        {"params": parameters, "lr": rate, "peak": rate, "weight_decay": decay} for (rate, decay), parameters in groups.items()
    ]
