from __future__ import annotations

import pytest

from kanary.text import duration, log_lines, one_line, plain, shortened, table


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("plain ✓ text\n\ttab", "plain ✓ text\n\ttab"),
        ("\x1b[1;31mred\x1b[0m", "red"),
        ("\x9b31mred", "red"),
        ("\x1b]0;title\x07a\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "alink"),
        ("\x1bPq#0\x1b\\a", "a"),
        ("\x1bc\x1b(Ba", "a"),
        ("bell\x07 nul\x00 del\x7f", "bell\ufffd nul\ufffd del\ufffd"),
        ("\x1b", "\ufffd"),
        ("\x1b]52;never ends", "52;never ends"),
        ("abc\u202egnp.exe\u2066", "abc\ufffdgnp.exe\ufffd"),
    ],
)
def test_nothing_that_a_terminal_acts_on_is_left(given: str, wanted: str) -> None:
    assert plain(given) == wanted
    assert one_line(given) == plain(" ".join(given.split()))


def test_an_escape_inside_an_escape_does_not_make_a_new_one() -> None:
    assert "\x1b" not in plain("\x1b\x1b[31m[31m\x1b[\x1b[0m0m")


def test_log_lines_keep_the_last_state_of_a_progress_bar() -> None:
    assert log_lines("a\r\n 10%\r 50%\r100%\r\nend\tx\n") == ["a", "100%", "end     x", ""]


@pytest.mark.parametrize(
    ("seconds", "wanted"),
    [(None, ""), (-3, "0.0 s"), (0.44, "0.4 s"), (9.96, "10 s"), (59.4, "59 s"), (59.6, "1m 00s"), (3599.7, "1h 00m"),
     (7620, "2h 07m"), (86399.9, "1d 00h"), (273600, "3d 04h")],
)  # fmt: skip
def test_durations_are_short_and_carry_over(seconds: float | None, wanted: str) -> None:
    assert duration(seconds) == wanted


def test_text_is_cut_with_an_ellipsis() -> None:
    assert [shortened("abcdef", width) for width in (6, 5, 1)] == ["abcdef", "abcd…", "…"]


def test_a_table_is_aligned_and_cuts_nothing() -> None:
    text = table(("A", "LONGER"), [("long value", "x"), ("y\nz", "")])
    assert text.splitlines() == ["A           LONGER", "long value  x", "y z"]
