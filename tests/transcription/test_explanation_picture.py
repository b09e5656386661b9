from __future__ import annotations

import warnings
from pathlib import Path

import pytest

from asr.transcription import explanation_picture


@pytest.mark.parametrize(("text", "drawn"), [("known", True), ("\U000f0000", False)])
def test_characters_without_a_font_are_told_and_other_warnings_stay(tmp_path: Path, text: str, drawn: bool) -> None:
    from matplotlib.figure import Figure

    figure = Figure()
    figure.text(0, 0, text)
    render = figure.savefig

    def savefig(*arguments: object, **options: object) -> None:
        warnings.warn("something else", UserWarning, stacklevel=1)
        render(*arguments, **options)

    figure.savefig = savefig
    with pytest.warns(UserWarning, match="something else") as said:
        assert explanation_picture.save(figure, tmp_path / "picture.png", 50, "--png") is drawn
    assert [str(each.message) for each in said] == ["something else"]
    assert (tmp_path / "picture.png").stat().st_size > 100
