"""Lines stay whole and exact; equal outputs are folded; a difference is shown against the majority."""

from hypothesis import given
from hypothesis import strategies as st

from fanout.report.gathered import KEPT_LEAST, KEPT_MOST, LINE_MOST, Kept, Lines, diff, folded, grouped, room


@given(st.binary(max_size=200).map(lambda b: b.replace(b"x", b"\n")), st.lists(st.integers(0, 200), max_size=5))
def test_in_any_pieces_every_byte_comes_once_behind_its_prefix(text: bytes, cuts: list[int]) -> None:
    lines, out, at = Lines(b"n1: ", terminal=False), b"", 0
    for cut in [*sorted(cuts), len(text)]:
        out += lines.feed(text[at:cut])
        at = max(at, cut)
    out += lines.finish()
    whole = text if not text or text.endswith(b"\n") else text + b"\n"
    assert out == b"".join(b"n1: " + line + b"\n" for line in whole.split(b"\n")[:-1])


def test_a_terminal_gets_no_control_characters_and_a_pipe_gets_them_all() -> None:
    evil = b"\x1b]0;owned\x07\x9b\xff\r\n"
    assert Lines(b"", terminal=False).feed(evil) == evil
    shown = Lines(b"", terminal=True).feed(evil)
    assert not set(shown[:-1]) & {*range(0x20), 0x7F} and b"owned" in shown


def test_a_terminal_gets_what_is_not_utf8_as_its_bytes() -> None:
    assert Lines(b"", terminal=True).feed("ü ".encode() + b"\xff\x80\n") == "ü ".encode() + b"\\xff\\x80\n"


def test_a_line_without_end_is_broken_not_kept_for_ever() -> None:
    out = Lines(b"n: ", terminal=False).feed(b"x" * (LINE_MOST + 1))
    assert out == b"n: " + b"x" * (LINE_MOST + 1) + b"\n"


def test_equal_outputs_and_ends_are_one_group_the_largest_first() -> None:
    groups = grouped([("n1", b"a\n", ""), ("n2", b"b\n", ""), ("n3", b"b\n", ""), ("n4", b"b\n", "exit 3")])
    assert [(group.label, group.end) for group in groups] == [("n[2-3] (2)", ""), ("n1", ""), ("n4", "exit 3")]
    assert folded(groups, terminal=False) == b"n[2-3] (2): b\nn1: a\nn4 [exit 3]: b\n"


def test_several_lines_are_indented_and_none_is_just_the_names() -> None:
    assert folded(grouped([("n1", b"a\nb\n", "")]), terminal=False) == b"n1:\n  a\n  b\n"
    assert folded(grouped([("n1", b"", "")]), terminal=False) == b"n1:\n"


def test_only_what_differs_from_the_majority_is_shown() -> None:
    groups = grouped([("n1", b"a\nb", ""), ("n2", b"a\nb", ""), ("n3", b"a\nc", "")])
    text = diff(groups, terminal=False)
    assert text.startswith(b"n[1-2] (2) are the majority\nn3:\n") and b"  -b\n  +c\n" in text
    assert diff(groups[:1], terminal=False) == b"n[1-2] (2) agree\n"


def test_what_is_kept_is_bounded_and_what_is_cut_is_said() -> None:
    kept = Kept(10)
    kept.feed(b"12345678")
    kept.feed(b"9abcdef")
    assert kept.cut == 5 and kept.output().startswith(b"12345678") and b"not kept" in kept.output()
    assert room(1) == KEPT_MOST and room(10**6) == KEPT_LEAST
