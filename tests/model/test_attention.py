"""Attention against torch's own with the same weights, rotation against complex numbers, the cache against a list."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from asr.model import attention
from asr.model.attention import AttentionCache, KeyValueCache, MemoryRows, MultiHeadAttention
from asr.model.layers import rotate

WIDTH, HEADS = 24, 4


@pytest.fixture
def pair() -> tuple[MultiHeadAttention, nn.MultiheadAttention]:
    torch.manual_seed(1)
    ours, theirs = MultiHeadAttention(WIDTH, HEADS).eval(), nn.MultiheadAttention(WIDTH, HEADS, batch_first=True).eval()
    for parameter in ours.parameters():
        nn.init.normal_(parameter, std=0.3)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat((ours.query.weight, ours.key.weight, ours.value.weight)))
        theirs.in_proj_bias.copy_(torch.cat((ours.query.bias, torch.zeros(WIDTH), ours.value.bias)))
        theirs.out_proj.weight.copy_(ours.output.weight)
        theirs.out_proj.bias.copy_(ours.output.bias)
    return ours, theirs


@pytest.mark.parametrize("return_weights", [False, True])
@pytest.mark.parametrize("kind", ["self", "causal", "cross", "masked causal"])
def test_equals_torch(pair: tuple[MultiHeadAttention, nn.MultiheadAttention], kind: str, return_weights: bool) -> None:
    ours, theirs = pair
    inputs = torch.randn(3, 7, WIDTH)
    memory = torch.randn(3, 11, WIDTH) if kind == "cross" else None
    source = inputs if memory is None else memory
    causal = "causal" in kind
    lengths = torch.tensor([source.shape[1], 2, 5])
    valid = torch.arange(source.shape[1]) < lengths[:, None]
    mask = valid[:, None, None] if kind in ("cross", "masked causal") else None
    future = ~torch.ones(7, 7, dtype=torch.bool).tril() if causal else None
    with torch.no_grad():
        output, weights = ours(inputs, memory, mask=mask, causal=causal, return_weights=return_weights)
        expected, expected_weights = theirs(
            inputs,
            source,
            source,
            key_padding_mask=None if mask is None else ~valid,
            attn_mask=future,
            average_attn_weights=False,
        )
    torch.testing.assert_close(output, expected, atol=1e-5, rtol=1e-5)
    if not return_weights:
        assert weights is None
        return
    torch.testing.assert_close(weights, expected_weights, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(weights.sum(dim=-1), torch.ones(3, HEADS, 7), atol=1e-5, rtol=0)
    if causal:
        assert not weights.triu(1).any()
    if mask is not None:
        assert not weights.masked_select(~mask).any()


def test_a_step_sees_nothing_to_its_right(pair: tuple[MultiHeadAttention, nn.MultiheadAttention]) -> None:
    inputs = torch.randn(1, 9, WIDTH, requires_grad=True)
    output, _ = pair[0](inputs, causal=True)
    for step in range(9):
        (seen,) = torch.autograd.grad(output[0, step].sum(), inputs, retain_graph=True)
        reached = seen[0].abs().sum(dim=-1) > 0
        assert reached.tolist() == [n <= step for n in range(9)]


@pytest.mark.parametrize("rotary", [False, True])
@given(sizes=st.lists(st.integers(1, 12), min_size=1, max_size=6))
@settings(max_examples=25)
def test_pieces_through_the_cache_equal_the_whole(rotary: bool, sizes: list[int]) -> None:
    torch.manual_seed(2)
    attention = MultiHeadAttention(WIDTH, HEADS, rotary=rotary).eval()
    inputs = torch.randn(2, sum(sizes), WIDTH)
    cache = AttentionCache()
    with torch.no_grad():
        whole, _ = attention(inputs, causal=True)
        pieces = [attention(piece, causal=True, cache=cache)[0] for piece in inputs.split(sizes, dim=1)]
    assert cache.length == sum(sizes)
    torch.testing.assert_close(torch.cat(pieces, dim=1), whole, atol=1e-5, rtol=0)


@given(st.lists(st.integers(1, 70), min_size=1, max_size=5), st.lists(st.integers(0, 2), min_size=1, max_size=4))
@settings(max_examples=30)
def test_the_cache_holds_what_was_appended(sizes: list[int], rows: list[int]) -> None:
    cache, steps = AttentionCache(), []
    for size in sizes:
        steps.append(torch.randn(3, 2, size, 4))
        keys, values = cache.append(steps[-1], -steps[-1])
        assert torch.equal(keys, torch.cat(steps, dim=2))
        assert torch.equal(values, -keys)
    cache.select(torch.tensor(rows))
    keys, values = cache.append(last := torch.randn(len(rows), 2, 1, 4), last)
    assert torch.equal(keys[:, :, :-1], torch.cat(steps, dim=2)[rows])
    assert torch.equal(keys[:, :, -1:], last)
    assert torch.equal(values[:, :, -1:], last)


def test_cross_attention_reads_its_memory_once(pair: tuple[MultiHeadAttention, nn.MultiheadAttention]) -> None:
    inputs, memory, cache = torch.randn(2, 4, WIDTH), torch.randn(2, 6, WIDTH), KeyValueCache(1)
    with torch.no_grad():
        whole, _ = pair[0](inputs, memory)
        first, _ = pair[0](inputs[:, :1], memory, cache=cache.cross_attention[0])
        others, _ = pair[0](inputs[:, 1:], torch.full_like(memory, float("nan")), cache=cache.cross_attention[0])
    assert cache.cross_attention[0].length == 6
    torch.testing.assert_close(torch.cat((first, others), dim=1), whole, atol=1e-5, rtol=0)


def test_the_memory_of_a_long_utterance_is_read_in_16_bits(
    monkeypatch: pytest.MonkeyPatch, pair: tuple[MultiHeadAttention, nn.MultiheadAttention]
) -> None:
    monkeypatch.setattr(attention, "LONG", 6)
    inputs, memory, cache = torch.randn(3, 1, WIDTH), torch.randn(2, 6, WIDTH), AttentionCache()
    mask = torch.tensor([[True] * 6, [True] * 4 + [False] * 2])[:, None, None]
    with torch.no_grad():
        rows = MemoryRows.of(torch.tensor([0, 0, 1]))
        exact, _ = pair[0](inputs, memory, mask=mask, memory_rows=rows)
        monkeypatch.setattr(pair[0], "long_type", torch.bfloat16)
        filled, _ = pair[0](inputs, memory, cache=cache, memory_rows=rows, memory_lengths=[6, 4])
        read, _ = pair[0](inputs, memory, cache=cache, memory_rows=rows, memory_lengths=[6, 4])
        cache.select(torch.tensor([1, 0]))
        turned, _ = pair[0](inputs[[2, 0]], memory, cache=cache, memory_lengths=[4, 6])
        alone, _ = pair[0](inputs[:1], memory[:1], cache=AttentionCache(), memory_lengths=[6])
    assert torch.equal(filled, read)
    torch.testing.assert_close(filled[2], exact[2], atol=1e-6, rtol=0)  # is not long
    torch.testing.assert_close(filled[:2], exact[:2], atol=0.02, rtol=0)
    assert float((filled[:2] - exact[:2]).abs().max()) > 1e-4
    torch.testing.assert_close(turned, filled[[2, 0]], atol=1e-3, rtol=0)
    torch.testing.assert_close(alone[0], turned[1], atol=1e-5, rtol=0)


def test_a_long_utterance_attends_to_itself_in_16_bits(
    monkeypatch: pytest.MonkeyPatch, pair: tuple[MultiHeadAttention, nn.MultiheadAttention]
) -> None:
    monkeypatch.setattr(attention, "LONG", 6)
    ours, theirs = pair
    inputs = torch.randn(2, 6, WIDTH)
    mask = torch.tensor([[True] * 6, [True] * 4 + [False] * 2])[:, None, None]
    monkeypatch.setattr(ours, "long_type", torch.bfloat16)
    with torch.no_grad():
        exact, weights = theirs(inputs, inputs, inputs)
        found, _ = ours(inputs)
        short, _ = ours(inputs[:, :5])
        masked, _ = ours(inputs, mask=mask)
        explained, seen = ours(inputs, return_weights=True)
        monkeypatch.setattr(ours, "long_type", None)
        torch.testing.assert_close(short, ours(inputs[:, :5])[0], atol=0, rtol=0)
        torch.testing.assert_close(masked, ours(inputs, mask=mask)[0], atol=0, rtol=0)
    torch.testing.assert_close(found, exact, atol=0.02, rtol=0.02)
    assert float((found - exact).abs().max()) > 1e-4
    torch.testing.assert_close(explained, exact, atol=1e-5, rtol=0)
    torch.testing.assert_close(seen.mean(dim=1), weights, atol=1e-5, rtol=0)


@pytest.mark.parametrize("narrow", [None, torch.bfloat16])
@pytest.mark.parametrize("lengths", [[40, 33, 7], [40, 40, 40]])
def test_rows_attend_to_their_own_lengths(
    narrow: torch.dtype | None,
    lengths: list[int],
    monkeypatch: pytest.MonkeyPatch,
    pair: tuple[MultiHeadAttention, nn.MultiheadAttention],
) -> None:
    monkeypatch.setattr(attention, "LONG", 20)
    ours, theirs = pair
    inputs = torch.randn(3, 40, WIDTH)
    padding = torch.arange(40) >= torch.tensor(lengths)[:, None]
    monkeypatch.setattr(ours, "long_type", narrow)
    with torch.no_grad():
        exact, _ = theirs(inputs, inputs, inputs, key_padding_mask=padding)
        found, _ = ours(inputs, memory_lengths=lengths)
        alone, _ = ours(inputs[1:2, : lengths[1]], memory_lengths=lengths[1:2])
    torch.testing.assert_close(found[1, : lengths[1]], alone[0], atol=1e-5 if narrow is None else 0.02, rtol=0)
    if narrow is None:
        torch.testing.assert_close(found, exact, atol=1e-5, rtol=0)
    else:  # a large score may be a tenth off in 16 bits, so that single weights differ by as much
        assert 1e-4 < float((found - exact).norm() / exact.norm()) < 0.01


def complex_pairs(values: Tensor) -> Tensor:
    half = values.shape[-1] // 2
    return torch.complex(values[..., :half].double(), values[..., half:].double())


@given(st.integers(0, 500), st.integers(1, 20))
@settings(max_examples=20)
def test_rotation_multiplies_by_a_unit_complex_number(offset: int, length: int) -> None:
    values = torch.randn(1, 2, length, 8)
    positions = torch.arange(offset, offset + length, dtype=torch.float64)
    angles = positions[:, None] * 10000.0 ** (-torch.arange(4, dtype=torch.float64) / 4)
    expected = complex_pairs(values) * torch.polar(torch.ones_like(angles), angles)
    torch.testing.assert_close(complex_pairs(rotate(values, offset)), expected, atol=2e-4, rtol=0)


def test_rotated_scores_depend_on_distance_only() -> None:
    query, key = torch.randn(1, 1, 1, 16), torch.randn(1, 1, 1, 16)
    scores = [float((rotate(query, n + 5) * rotate(key, n)).sum()) for n in range(0, 100, 7)]
    assert scores == pytest.approx([scores[0]] * len(scores), abs=1e-4)
