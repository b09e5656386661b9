from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asr.synthesis.sentences import LONGEST, SHORTEST, clean, common_characters, mix, select, spoken
from asr.synthesis.templates import templates

CHINESE = st.text(alphabet="机器学习的了我在有，。！？、：；（）“”《》12３.%ABc -<>★", max_size=80)


def test_common_characters_are_gb2312_level_1() -> None:
    common = common_characters()
    assert len(common) == 3755
    assert set("啊座机器学习") <= common
    assert "亍" not in common  # the first of level 2


def test_clean_cuts_sentences_and_writes_numbers_out() -> None:
    text = "１９９８年，经济增长8%。（图片1张）他说：“我们很高兴！”★这一句不能读"
    assert list(clean(text)) == ["一九九八年，经济增长百分之八。", "他说：我们很高兴！"]


def test_long_sentences_are_cut_at_commas() -> None:
    clauses = ["这是第一个很长的分句", "这是第二个很长的分句", "这是第三个很长的分句"]
    assert list(clean("，".join(clauses) + "。")) == ["，".join(clauses[:2]), f"{clauses[2]}。"]


@given(CHINESE)
def test_what_is_left_can_be_read(text: str) -> None:
    for sentence in clean(text):
        assert SHORTEST <= len(spoken(sentence)) <= LONGEST
        assert all(c.isalpha() or c in "，。！？、；：《》 " for c in sentence)
        assert list(clean(sentence)) == [sentence]


def test_spoken_text_has_no_punctuation_and_spaces_between_latin_words_only() -> None:
    assert spoken("你好，Python！ 我 用《VS Code》。") == "你好Python我用VS Code"


def test_selection_is_the_plain_greedy_one() -> None:
    sentences = ["天天天天", "地玄黄", "天地玄黄宇宙洪荒", "宇宙", "洪荒日月", "天地", "盈昃辰宿列张"]
    common = frozenset("天地玄黄宇宙洪荒日月")
    heard: Counter[str] = Counter()
    left = list(sentences)
    expected = []
    while left:
        worth = [
            sum((1 if c in common else 0.25) / (1 + heard[c]) for c in set(sentence)) / (len(sentence) + 6) for sentence in left
        ]
        best = left.pop(worth.index(max(worth)))
        heard.update(set(best))
        expected.append(best)
    assert list(select(sentences, 100, common)) == expected
    assert list(select(sentences, 3, common)) == expected[:3]


def test_templates_are_read_aloud_as_they_are() -> None:
    pytest.importorskip("jieba")
    drawn = list(templates(400, seed=5))
    assert drawn == list(templates(400, seed=5))
    for sentence in drawn:
        assert not any(c.isdigit() and c.isascii() for c in sentence)
        assert "{" not in sentence
    assert any("幺" in sentence for sentence in drawn)
    assert len(set(drawn)) > 300


def test_other_sentences_are_mixed_in() -> None:
    assert list(mix("abcde", "xxyz")) == ["a", "b", "x", "c", "d", "y", "e"]
    assert list(mix("abcd", "")) == ["a", "b", "c", "d"]
