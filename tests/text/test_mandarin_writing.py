"""Mandarin written as a reader wants it."""

from __future__ import annotations

import pytest
from cn2an import an2cn
from hypothesis import given
from hypothesis import strategies as st

from asr.text.mandarin import normalize
from asr.text.mandarin_writing import value, write_numbers, write_script


@pytest.mark.parametrize(
    ("spoken", "digits"),
    [
        ("二零一五年十月三日", "2015年10月3日"),
        ("设定二十九度", "设定29度"),
        ("同比增长百分之十二点五", "同比增长12.5%"),
        ("百分之八", "8%"),
        ("圆周率是三点一四", "圆周率是3.14"),
        ("三分之一的人", "1/3的人"),
        ("净利润三十五亿元", "净利润35亿元"),
        ("五万套", "5万套"),
        ("三千五百二十一人", "3521人"),
        ("一百零八个", "108个"),
        ("两百三十万", "230万"),
        ("电话幺三八零零幺三八零零零", "电话13800138000"),
        ("六九二幺八六八八", "69218688"),
        ("下午三点二十分", "下午3点20分"),
        ("十点", "10点"),
        # What stays.
        ("我们一起去", "我们一起去"),
        ("三个人", "三个人"),
        ("十分高兴", "十分高兴"),
        ("七八十人", "七八十人"),
        ("一两个", "一两个"),
        ("千方百计", "千方百计"),
        ("万一下雨", "万一下雨"),
        ("机器学习", "机器学习"),
        ("", ""),
    ],
)
def test_digits(spoken: str, digits: str) -> None:
    assert write_numbers(spoken, "digits") == digits


@pytest.mark.parametrize(("digits", "spoken"), [("2015年", "二零一五年"), ("25度", "二十五度"), ("机器学习", "机器学习")])
def test_chinese(digits: str, spoken: str) -> None:
    assert write_numbers(digits, "chinese") == spoken


@given(st.integers(min_value=10, max_value=10**12 - 1))
def test_every_number_has_its_value(number: int) -> None:
    numeral = str(an2cn(number, "low"))
    assert value(numeral) == number
    written = write_numbers(f"共{numeral}人", "digits")
    # The reader and the scorer see the same number.
    assert normalize(written) == normalize(f"共{numeral}人")


@given(st.text(alphabet="零一二三四五六七八九十百千万亿两幺点分之年月人", max_size=14))
def test_any_text_is_written_and_written_digits_stay(text: str) -> None:
    once = write_numbers(text, "digits")
    assert [c for c in once if c in "年月人"] == [c for c in text if c in "年月人"]


@given(st.text(alphabet="你好机器学习的人在天下abc ，。"))
def test_text_without_numbers_stays(text: str) -> None:
    assert write_numbers(text, "digits") == text == write_numbers(text, "chinese")


def test_numerals_that_are_no_number_have_no_value() -> None:
    assert value("七八十") is None
    assert value("三千五") is None
    assert value("万") is None or value("万") == 10_000


def test_script() -> None:
    assert write_script("机器学习", "traditional") == "機器學習"
    assert write_script("機器學習", "simplified") == "机器学习"
    # By phrase: 后 is 後 (behind) or 后 (queen), 发 is 發 (send out) or 髮 (hair).
    assert write_script("皇后在后面理发", "traditional") == "皇后在後面理髮"
    assert write_script("你好 Python", "traditional") == "你好 Python"
