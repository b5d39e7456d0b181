"""Values and entities find their places in a text, tags leave it, and what is left open is said."""

from __future__ import annotations

import pytest

from wenmai.text.places import NotThereError, named_values, pair_places, places, tagged_pair, value_places


def test_every_place() -> None:
    assert places("蝎子王蝎子王", "蝎子王") == [(0, 3), (3, 6)]
    assert places("aaa", "aa") == [(0, 2), (1, 3)]
    assert places("abc", "d") == places("abc", "") == []


@pytest.mark.parametrize(
    ("text", "pair", "expected", "guesses"),
    [
        ("幽兰在山谷", ("幽兰", "山谷"), ((0, 2), (3, 5)), 0),
        # the first of each overlap, a later one does not
        ("水手江涛把手一扬", ("水手江涛", "手"), ((0, 4), (5, 6)), 1),
        # all overlap: one inside the other
        ("去摸它的尾巴", ("它的尾巴", "它"), ((2, 6), (2, 3)), 0),
        ("他和他", ("他", "他"), ((0, 1), (2, 3)), 2),
        ("他来了", ("他", "他"), ((0, 1), (0, 1)), 0),
        # a place that is given stays, and the other keeps away from it
        ("他和他", ((2, 3), "他"), ((2, 3), (0, 1)), 1),
    ],
)
def test_pairs(text: str, pair: tuple, expected: tuple, guesses: int) -> None:
    *found, said = pair_places(text, *pair)
    assert tuple(found) == expected
    assert len(said) == guesses


def test_what_is_left_open_is_named() -> None:
    *_, said = pair_places("他和她看他", "他", "她")
    assert said == ["'他' stands 2 times in the text; the one at 0:1 is taken"]
    with pytest.raises(NotThereError, match="'谁' does not stand in the text"):
        pair_places("他和她", "他", "谁")


def test_values_take_places_that_are_free() -> None:
    found, said = value_places("从北京到北京大学", [("出发", "北京"), ("到达", "北京大学")])
    assert found == [(1, 3, "出发"), (4, 8, "到达")]
    assert said == ["'北京' stands 2 times in the text; the one at 1:3 is taken"]
    found, said = value_places("从北京到北京", [("出发", "北京"), ("到达", "北京")])
    assert (found, said) == ([(1, 3, "出发"), (4, 6, "到达")], [])
    # nested values: the inner one has no free place
    found, _ = value_places("佛山大良汽车站", [("city", "佛山"), ("poi", "佛山大良汽车站")])
    assert found == [(0, 2, "city"), (0, 7, "poi")]
    with pytest.raises(NotThereError, match=r"slots\.city: '上海' does not stand"):
        value_places("去北京", [("city", "上海")])


def test_values_of_names() -> None:
    assert named_values({"a": "x", "b": ["y", "z"]}) == [("a", "x"), ("b", "y"), ("b", "z")]
    with pytest.raises(NotThereError, match=r"slots\.a: a text or a list of texts is expected, not 3"):
        named_values({"a": 3})


def test_tags_leave_the_text() -> None:
    text, first, second = tagged_pair("An <e1> apple </e1> is <e2>red</e2>.") or ("", (0, 0), (0, 0))
    assert text == "An apple is red."
    assert (text[slice(*first)], text[slice(*second)]) == ("apple", "red")
    text, first, second = tagged_pair("<e2>它</e2>摸<e1>它的<e1x>尾巴</e1>") or ("", (0, 0), (0, 0))
    assert (text, first, second) == ("它摸它的<e1x>尾巴", (2, 11), (0, 1))
    nested = tagged_pair("摸<e1><e2>它</e2>的尾巴</e1>")
    assert nested == ("摸它的尾巴", (1, 5), (1, 2))
    assert tagged_pair("no tags <e3>here</e3>") is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("<e1>a</e1> b", "the text has no <e2>, </e2>"),
        ("<e1>a</e1><e1>b</e1>", "the tag <e1> stands twice"),
        ("</e1>a<e1><e2>b</e2>", "</e1> must stand behind <e1>"),
        ("<e1> </e1><e2>b</e2>", "with the entity between them"),
    ],
)
def test_wrong_tags(text: str, said: str) -> None:
    with pytest.raises(NotThereError, match=said):
        tagged_pair(text)
