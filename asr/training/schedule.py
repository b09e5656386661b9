"""The learning rate over the steps of a run."""

from __future__ import annotations

import math


def inverse_square_root(step: int, warmup: int) -> float:
    """Linear warm-up, then 1 / sqrt(step); 1 at the peak (Vaswani et al. 2017, equation 3)."""
    warmup = max(warmup, 1)
    return min(step / warmup, math.sqrt(warmup / max(step, 1)))


def cosine(step: int, warmup: int, total: int) -> float:
    """Linear warm-up, then half a cosine down to 0 at ``total`` steps (Loshchilov and Hutter 2017)."""
    if step < warmup:
        return step / max(warmup, 1)
    progress = min((step - warmup) / max(total - warmup, 1), 1.0)
    return 0.5 * (1 + math.cos(math.pi * progress))
