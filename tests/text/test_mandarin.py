"""The Mandarin normaliser: both ways of writing one utterance become the same text."""

from __future__ import annotations

from pathlib import Path

import pytest
from cn2an import cn2an
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.text.mandarin import digits_to_numerals, normalize, simplify, version


@pytest.mark.parametrize(
    ("written", "spoken"),
    [
        ("2023年10月1日", "二零二三年十月一日"),
        ("二〇二三年", "2023年"),
        ("2023-10-1", "二零二三年十月一日"),
        ("120个", "一百二十个"),
        ("10", "十"),
        ("15岁", "十五岁"),
        ("50%", "百分之五十"),
        ("12.5％", "百分之十二点五"),
        ("3.14", "三点一四"),
        ("200", "两百"),
        ("2个", "两个"),
        ("007", "零零七"),
        ("13800138000", "幺三八零零幺三八零零零"),
        ("1000000", "一百万"),
        ("100万", "一百万"),
        ("3千5百", "三千五百"),
        ("1.5亿", "一点五亿"),
        ("1/2", "二分之一"),
        ("½", "二分之一"),
        ("3:50", "三点五十"),
        ("8:05", "八点零五"),
        ("比分3:2", "比分三比二"),
        ("1,000元", "一千元"),
        ("１２", "十二"),
        ("壹佰贰拾元", "一百二十元"),
        ("-5度", "负五度"),
        ("25℃", "二十五摄氏度"),
        ("90后", "九零后"),
        ("GPT-4", "gpt四"),
    ],
)
def test_digits_and_numerals_become_one(written: str, spoken: str) -> None:
    assert normalize(written) == normalize(spoken)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("「你好」，[笑]世界（咳嗽）！<noise>【旁白】", "你好世界"),
        ("臺灣的電腦軟體與網路", "台湾的电脑软体与网路"),
        ("乾隆皇后在後面", "乾隆皇后在后面"),
        ("ＡＢＣ　ｄｅｆ", "abc def"),
        ("我 爱 You Tube 吗", "我爱you tube吗"),
        ("今天 天气 不错", "今天天气不错"),
        ("don't wi-fi ok。好", "dont wi fi ok好"),
        ("大陆的伍先生", "大陆的伍先生"),
        ("千万不要万一", "千万不要万一"),
        ("二三十个人", "二三十个人"),
        ("", ""),
        ("。，！", ""),
    ],
)
def test_written_form(text: str, expected: str) -> None:
    assert normalize(text) == expected


@settings(max_examples=200)
@given(st.integers(0, 999_999))
def test_quantities_read_back_to_their_value(number: int) -> None:
    # The reading is parsed by the library's opposite direction, which shares no code with the one used here.
    assert cn2an(digits_to_numerals(str(number)), "strict") == number


@settings(max_examples=300)
@given(
    st.text(
        alphabet="零〇一二两幺十百千万亿廿壹贰拾佰仟点负0123456789.,%/:- abAB'()[]，。年月日後這個ß½①Ⅲ℃́　\ufeff",
        max_size=20,
    )
)
def test_twice_is_once(text: str) -> None:
    assert normalize(normalize(text)) == normalize(text)


@settings(max_examples=200)
@given(st.text(max_size=30))
def test_any_text_is_normalised(text: str) -> None:
    once = normalize(text)
    assert once == once.strip()
    assert "  " not in once


def test_a_corpus_without_digits_keeps_its_number_of_characters(corpora: Path) -> None:
    lines = (corpora / "data_aishell" / "transcript" / "aishell_transcript_v0.8.txt").read_text(encoding="utf-8")
    texts = [line.split(maxsplit=1)[1] for line in lines.splitlines() if len(line.split(maxsplit=1)) == 2]
    checked = [text for text in texts if text.isascii() is False and not any(c.isascii() and c.isalnum() for c in text)]
    assert len(checked) > 700
    for text in checked:
        assert len(normalize(text)) == len("".join(c for c in text if c.isalnum()))


def test_simplified_text_is_left_alone_and_the_version_is_named() -> None:
    assert simplify("我们在这里看着皇后") == "我们在这里看着皇后"
    assert "opencc" in version()
    assert "cn2an" in version()
