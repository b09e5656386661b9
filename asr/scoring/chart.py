"""Error rate by length of the reference, as a picture that is part of a page (SVG)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from asr.scoring.tables import LengthClass

_WIDTH, _HEIGHT = 1060, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 10, 14, 58
# A rate above this is drawn as a bar of this height, so that one strange class does not flatten all others.
_HIGHEST = 2.0


def rates_by_length(systems: Sequence[Sequence[LengthClass]], units: str) -> str:
    """Bars of each system's rate in each class of length; classes of empty references have no rate and no bar.

    Args:
        systems: classes of each system over the same utterances.
        units: what lengths are counted in, for the axis.

    Returns:
        An ``svg`` element; colours come from the page's ``--first``, ``--second`` and ``--line``.
    """
    classes = [group for group in zip(*systems, strict=True) if group[0].longest is None or group[0].longest > 0]
    if not classes:
        return '<p class="soft">All references are empty.</p>'
    highest = min(_HIGHEST, max(entry.counts.rate for group in classes for entry in group))
    step = _step(highest)
    top = max(step, math.ceil(highest / step - 1e-9) * step)
    plot_width, plot_height = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM
    parts = [f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="Error rate by length of the reference">']
    for tick in range(round(top / step) + 1):
        y = _TOP + plot_height * (1 - tick * step / top)
        parts.append(f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="var(--line)"/>')
        parts.append(f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{100 * tick * step:g}%</text>')
    slot = plot_width / len(classes)
    bar = min(46.0, 0.74 * slot / len(systems))
    for k, group in enumerate(classes):
        middle = _LEFT + slot * (k + 0.5)
        for place, entry in enumerate(group):
            rate = entry.counts.rate
            height = plot_height * min(rate, top) / top
            x = middle + bar * (place - len(group) / 2)
            title = f"{_label(entry)} {units}: {100 * rate:.2f}% of {entry.counts.reference_length:,}"
            parts.append(
                f'<rect x="{x + 1:.1f}" y="{_TOP + plot_height - height:.1f}" width="{bar - 2:.1f}" '
                f'height="{height:.1f}" rx="2" fill="var(--{("first", "second")[place]})">'
                f"<title>{escape(title)}, {entry.utterances:,} utterances</title></rect>"
            )
            if len(systems) == 1:
                parts.append(
                    f'<text x="{middle:.1f}" y="{_TOP + plot_height - height - 4:.1f}" text-anchor="middle">'
                    f"{100 * rate:.1f}</text>"
                )
        base = _TOP + plot_height
        parts.append(f'<text x="{middle:.1f}" y="{base + 17}" text-anchor="middle">{_label(group[0])}</text>')
        parts.append(
            f'<text x="{middle:.1f}" y="{base + 33}" text-anchor="middle" opacity=".75">×{_short(group[0].utterances)}</text>'
        )
    parts.append(
        f'<text x="{_LEFT + plot_width / 2}" y="{_HEIGHT - 6}" text-anchor="middle">'
        f"{escape(units)} in the reference; below, how many utterances</text></svg>"
    )
    return "".join(parts)


def _label(entry: LengthClass) -> str:
    if entry.longest is None:
        return f"≥{entry.shortest}"
    return str(entry.longest) if entry.longest == entry.shortest else f"{entry.shortest}–{entry.longest}"


def _short(number: int) -> str:
    return f"{number:,}" if number < 10_000 else f"{number / 1000:.0f}k"


def _step(highest: float) -> float:
    """A round distance between the lines of the axis, giving about five of them."""
    for step in (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2):
        if highest <= 6 * step:
            return step
    return 0.5
