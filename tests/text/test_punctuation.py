"""Marks are taken off a text and put back where they were, and stand where print has them."""

from __future__ import annotations

import re
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.text import mandarin
from asr.text.punctuation import MARKS, passages, punctuated, separate

HAN = st.sampled_from("今天气很好我们去公园吧一二三")
MIXED = st.text(st.sampled_from("今天好，、。？！,.:;?! \"'“”‘’（）()《》…—$-+%@/a1bé２．"), max_size=30)
FOREIGN = re.compile(rf"[^\W_{mandarin.HAN}]+")


@given(st.lists(st.tuples(HAN, st.sampled_from(MARKS)), min_size=1, max_size=40))
def test_what_is_taken_off_goes_back(pairs: list[tuple[str, str]]) -> None:
    text = "".join(character + mark for character, mark in pairs)
    characters, marks = separate(text)
    assert characters == "".join(character for character, _ in pairs)
    assert [MARKS[mark] for mark in marks] == [mark for _, mark in pairs]
    assert punctuated(characters, marks) == text
    assert punctuated(text, marks) == text


@given(st.one_of(MIXED, st.text(max_size=40)), st.data())
@settings(max_examples=400)
def test_no_letter_is_lost_or_moved(text: str, data: st.DataObject) -> None:
    characters, marks = separate(text)
    assert len(marks) == len(characters)
    drawn = data.draw(st.lists(st.integers(0, len(MARKS) - 1), min_size=len(marks), max_size=len(marks)))
    written = punctuated(text, drawn)
    assert separate(written)[0] == characters == "".join(c for c in text if c.isalnum())
    # Words and numbers of other scripts neither fall apart nor grow together.
    assert FOREIGN.findall(written) == FOREIGN.findall(text)
    assert punctuated(written, drawn) == written


@pytest.mark.parametrize(
    ("text", "mark", "expected"),
    [
        ("我用Python写3.14", 1, "我，用，Python，写，3.14，"),
        ("你好 world", 1, "你，好，world，"),
        ("他说“你好”", 3, "他。说。“你。好”。"),
        ("你、好。", 0, "你好"),
        ("Let It Go", 3, "Let。It。Go。"),
        ("他说hello，world和it’s", 0, "他说hello，world和it’s"),
        ("付了$100，用.NET写，３．１４", 0, "付了$100用.NET写３．１４"),
        ("付了$100", 1, "付，了，$100，"),
        ("看http://a.cn/b吧, 好", 0, "看http://a.cn/b吧 好"),
        ("我们——他们", 1, "我，们，——他，们，"),
        ("“你好”吧", 1, "“你，好”，吧，"),
        ("", 1, ""),
    ],
)
def test_marks_stand_where_print_has_them(text: str, mark: int, expected: str) -> None:
    assert punctuated(text, [mark] * len(separate(text)[0])) == expected


def test_marks_of_print() -> None:
    text = unicodedata.normalize("NFKC", "他问：“好吗？”；我说U.S.有3.5万，行！")
    characters, marks = separate(text)
    assert characters == "他问好吗我说US有35万行"
    assert punctuated(characters, marks) == "他问，好吗？我说US。有35万，行。"


def test_passages_are_of_whole_clauses() -> None:
    paragraph = "今天（星期三）天气很好，我们去公园吧！你去吗？2015年我们有50%去了。" * 4
    found = list(passages(paragraph, 60, (0, 1)))
    assert found == list(passages(paragraph, 60, (0, 1)))
    assert "".join(found) == "今天天气很好，我们去公园吧。你去吗？二零一五年我们有百分之五十去了。" * 4
    assert all(len(passage) <= 60 and passage[-1] in MARKS[1:] for passage in found)
    # A clause that is too long is left out, and a title has no mark.
    assert list(passages("很" * 70 + "。好。", 60, (0,))) == ["好。"]
    assert list(passages("天气变化早知道", 60, (0,))) == ["天气变化早知道"]
