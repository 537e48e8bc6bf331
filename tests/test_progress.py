import sys

import pytest

from study import progress


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that pass between two readings of the clock."""
    step, now = [0.0], [0.0]

    def monotonic() -> float:
        now[0] += step[0]
        return now[0]

    monkeypatch.setattr(progress, "monotonic", monotonic)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False, raising=False)
    return step


def test_all_items_pass_in_order(clock: list[float]):
    assert list(progress.track(iter("abc"), 3, "letters")) == ["a", "b", "c"]


def test_fast_loop_prints_nothing(clock: list[float], capsys: pytest.CaptureFixture[str]):
    clock[0] = 0.001
    list(progress.track(range(1000), 1000, "numbers"))
    assert capsys.readouterr().err == ""


def test_slow_loop_prints_a_line_every_ten_seconds(
    clock: list[float], capsys: pytest.CaptureFixture[str]
):
    clock[0] = 4
    list(progress.track(range(8), 8, "numbers"))
    assert capsys.readouterr().err == "numbers: 2/8 after 12 s\nnumbers: 5/8 after 24 s\n"


def test_terminal_shows_a_bar(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert list(progress.track(range(3), 3, "numbers")) == [0, 1, 2]
    assert "numbers" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("terminal", "setting", "coloured"),
    [(True, "", True), (True, "1", False), (False, "", False)],
)
def test_colour_is_for_a_terminal_that_wants_it(
    terminal: bool, setting: str, coloured: bool, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal, raising=False)
    monkeypatch.setenv("NO_COLOR", setting)
    assert ("\033" in progress.red("error:")) == coloured
    assert "error:" in progress.red("error:")
