from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asr import configuration
from asr.exceptions import ConfigurationError
from asr.model.configuration import AlignmentHead, DecoderConfiguration, ModelConfiguration


@given(st.lists(st.integers(0, 40)) | st.sets(st.integers(0, 40)).map(sorted))
def test_suppressed_tokens_written_and_read_are_the_same(tokens: list[int]) -> None:
    settings = DecoderConfiguration(suppressed=tuple(tokens))
    values = settings.model_dump(mode="json")
    assert DecoderConfiguration.model_validate(values) == settings
    assert settings.model_dump()["suppressed"] == tuple(tokens)
    runs = [each for each in values["suppressed"] if isinstance(each, str)]
    assert all(int(last) - int(first) >= 2 for first, last in (run.split("-") for run in runs))


def test_ranges_and_lists_are_read(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("decoder: {suppressed: [1, 7-9, '20-21'], suppressed_at_start: [3, 4, 5]}")
    decoder = configuration.load(tmp_path / "config.yaml", ModelConfiguration).decoder
    assert decoder is not None
    assert decoder.suppressed == (1, 7, 8, 9, 20, 21)
    assert decoder.suppressed_at_start == (3, 4, 5)
    configuration.dump(ModelConfiguration(decoder=decoder), tmp_path / "again.yaml")
    again = (tmp_path / "again.yaml").read_text()
    assert "  suppressed:\n  - 1\n  - 7-9\n  - 20\n  - 21\n" in again
    assert "  suppressed_at_start:\n  - 3-5\n" in again


@pytest.mark.parametrize("tokens", ["[a-b]", "['1-']", "[-3-4]", "5-9", "['1 - 4']"])
def test_what_is_no_range_is_refused(tokens: str, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(f"decoder: {{suppressed: {tokens}}}")
    with pytest.raises(ConfigurationError, match=r"decoder\.suppressed"):
        configuration.load(tmp_path / "config.yaml", ModelConfiguration)


def test_heads_that_align_are_the_named_ones_or_the_last_layers() -> None:
    decoder = DecoderConfiguration(layers=3, heads=2)
    assert [(each.layer, each.head, each.token) for each in decoder.aligning()] == [(2, 0, "written"), (2, 1, "written")]
    named = (AlignmentHead(layer=1, head=1, token="read"), AlignmentHead(layer=2, head=0))
    assert DecoderConfiguration(layers=3, heads=2, alignment_heads=named).aligning() == named


@pytest.mark.parametrize("head", ["{layer: 2, head: 0}", "{layer: 0, head: 4}"])
def test_a_head_that_is_not_there_is_refused(head: str, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(f"decoder: {{layers: 2, heads: 4, alignment_heads: [{head}]}}")
    with pytest.raises(ConfigurationError, match="there are 4 heads in 2 layers; count both from 0"):
        configuration.load(tmp_path / "config.yaml", ModelConfiguration)
