"""Folded names: what a user writes expands as in ClusterShell, and folding is its inverse."""

from __future__ import annotations

import string
import time
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fanout import names
from fanout.errors import UsageError
from fanout.names import expand, fold


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("  ", []),
        ("node1", ["node1"]),
        ("node[1-3]", ["node1", "node2", "node3"]),
        ("node[3,1]", ["node3", "node1"]),
        ("n[08-11]", ["n08", "n09", "n10", "n11"]),
        ("n[098-101]", ["n098", "n099", "n100", "n101"]),
        ("n[98-101]", ["n98", "n99", "n100", "n101"]),
        ("n[09-100/91]", ["n09", "n100"]),
        ("n[0-10/5]", ["n0", "n5", "n10"]),
        ("n[0-9/5]x", ["n0x", "n5x"]),
        ("a[1-2]b[01,03]", ["a1b01", "a1b03", "a2b01", "a2b03"]),
        ("10.0.0.[1-2]", ["10.0.0.1", "10.0.0.2"]),
        ("[1-2]", ["1", "2"]),
        ("a,b", ["a", "b"]),
        (" a , b\n c ", ["a", "b", "c"]),
        ("b,a,b", ["b", "a"]),
        ("n[ 1-2, 4 ]", ["n1", "n2", "n4"]),
        ("a[1-4]!a2", ["a1", "a3", "a4"]),
        ("a[1-4]&a[3-9]", ["a3", "a4"]),
        ("a[1-4]!a[1-2],a1", ["a3", "a4", "a1"]),
        ("a,b&b,c", ["b", "c"]),
        ("a ! a", []),
        ("root@n[1-2]:22", ["root@n1:22", "root@n2:22"]),
    ],
)
def test_expands(text: str, expected: list[str]) -> None:
    assert expand(text) == expected


@pytest.mark.parametrize(
    ("text", "position", "what"),
    [
        ("node[1-3", 5, "never closed"),
        ("node1-3]", 8, "closes nothing"),
        ("n[1-[2]]", 2, "never closed"),
        ("n[]", 3, "not a number"),
        ("n[1,x]", 5, "'x' is not a number"),
        ("n[1-2,5-4]", 7, "runs backwards"),
        ("n[0-4/0]", 3, "step of 0"),
        ("n[4/2]", 3, "not a number"),
        ("n[1-010]", 3, "different numbers of digits"),
        ("n[001-0010]", 3, "different numbers of digits"),
        (f"n[{'1' * 19}]", 3, "at most 18 digits"),
        ("n[\u0661]", 3, "not a number"),
        (",a", 1, "missing before ','"),
        ("a,,b", 3, "missing before ','"),
        ("a,!b", 3, "missing before '!'"),
        ("a,b !", 5, "missing after '!'"),
        ("a,n[0-999999]", 3, "more than 1,000,000"),
        ("n[0-99999]x[0-99999999999]", 1, "more than 1,000,000"),
    ],
)
def test_a_mistake_is_named_with_its_position(text: str, position: int, what: str) -> None:
    with pytest.raises(UsageError) as error:
        expand(text)
    assert f"character {position}:" in str(error.value)
    assert what in str(error.value)


def test_the_bound_itself_is_allowed() -> None:
    assert len(expand(f"n[1-{names.MAX_NAMES}]")) == names.MAX_NAMES


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a",
        "peer[0-998]",
        "rack[1-2]node[01-20]",
        "local-[0-4]",
        "n[01-100]",
        "n[098-101]",
        "n[9-10]",
        "n[1,3,5-7]",
        "10.[0-3].[0-255].7",
        "db[1-3],node[1-40]",
        "rack1node[1-20],rack2node[1-19]",
        "a[1-3]b[4-6]c[7-9]d",
        "n[000-001]",
    ],
)
def test_folds_to_the_text_a_person_would_write(text: str) -> None:
    assert fold(expand(text)) == text
    assert fold(reversed(expand(text))) == text


def test_a_number_of_another_length_keeps_its_own_zeros() -> None:
    assert set(expand(fold(["n1", "n01", "n001", "n10", "n010"]))) == {"n1", "n01", "n001", "n10", "n010"}


def test_names_that_do_not_fold_stay_as_they_are() -> None:
    # On a diagonal no two names share all numbers but one.
    diagonal = [f"x{i}y{2 * i}z{3 * i}" for i in range(10_000)]
    assert fold(diagonal).split(",") == diagonal


def test_more_numbers_than_are_folded_are_kept_as_text() -> None:
    many = ".".join(["1"] * (names.MAX_DIMENSIONS + 3))
    assert fold([f"{many}.{i}" for i in (1, 2)]) == f"{many}.[1-2]"
    assert fold([f"{i}.{many}" for i in (1, 2)]) == f"1.{many},2.{many}"
    assert fold([f"a{'7' * 30}b{i}" for i in (1, 2)]) == f"a{'7' * 30}b[1-2]"


@pytest.mark.parametrize("name", ["", "a b", "a,b", "a!b", "a&b", "a[b", "a]b", "a\n"])
def test_what_the_notation_cannot_say_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="cannot be folded"):
        fold(["good", name])


_ALPHABET = "".join(c for c in string.printable if c not in ",!&[]" and not c.isspace())
_NUMBERED = st.builds(
    lambda head, a, mid, b, wide: f"{head}{a:0{wide}d}{mid}{b}",
    st.sampled_from(["n", "rack", ""]),
    st.integers(0, 30),
    st.sampled_from(["-", "x"]),
    st.integers(0, 12),
    st.integers(1, 3),
)
_NAMES = st.lists(
    st.one_of(
        _NUMBERED,
        st.text("0123456789ab", min_size=1, max_size=24),
        st.text(_ALPHABET + "\u0661\u00e9", min_size=1, max_size=12),
    ),
    max_size=60,
)


@settings(deadline=None)
@given(_NAMES)
def test_expanding_what_was_folded_gives_the_same_names(given_names: list[str]) -> None:
    folded = fold(given_names)
    back = expand(folded)
    assert set(back) == set(given_names)
    assert len(back) == len(set(given_names))
    assert fold(back) == folded


@settings(deadline=None)
@given(st.text("ab01[]-,!&/ ", max_size=14))
def test_any_text_expands_or_is_a_usage_error(text: str) -> None:
    try:
        got = expand(text)
    except UsageError as error:
        assert "character" in str(error)
    else:
        assert set(expand(fold(got))) == set(got)


@pytest.mark.parametrize("name", [
    lambda i: f"node{i * 7}",
    lambda i: f"rack{i * 7919 % 999_983}-node{i * 104_729 % 999_979}",
    lambda i: f"i-{i * 2_654_435_761 % (1 << 60):015x}",
    lambda i: "-".join(str(i * prime % (990 + prime)) for prime in (3, 5, 7, 11, 13, 17, 19, 23)),
])
def test_ten_thousand_names_that_do_not_fold_take_no_time(name: Callable[[int], str]) -> None:
    # Tenths of a second; where the time grows with the square of the names, minutes.
    names = [name(i) for i in range(10_000)]
    began = time.process_time()
    folded = fold(names)
    assert time.process_time() - began < 10
    assert len(folded) > 40_000
