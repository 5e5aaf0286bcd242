"""Bars: who sees them, when, and what is left of them."""

import io
import sys

import pytest

from gpu_patch.progress import progress_bar


class Screen(io.StringIO):
    """What standard error goes to."""

    def __init__(self, is_terminal):
        super().__init__()
        self._is_terminal = is_terminal

    def isatty(self):
        return self._is_terminal


@pytest.fixture
def show(monkeypatch):
    """Return what is seen of a bar of 4000 bytes: within, and in the end."""
    tqdm = pytest.importorskip("tqdm.std", reason="the bar is tqdm's")

    def shown(*, seconds=2.0, is_terminal=True, total=4000, **options):
        screen, now = Screen(is_terminal), [0.0]
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stderr", screen)
            patch.setattr(tqdm, "time", lambda: now[0])
            with progress_bar("reading", total, "B", unit_scale=True, **options) as advance:
                now[0] = seconds
                advance(1000)
                within = screen.getvalue()
        return within, screen.getvalue()

    return shown


def test_bar(show):
    within, after = show()
    assert "reading:  25%" in within
    assert "1.00k/4.00k" in within
    assert "500B/s" in within
    # it is overwritten, and the next line begins where it began
    assert after.endswith("\r")
    assert not after.split("\r")[-2].strip()
    assert "\n" not in after


def test_nobody_needs_a_bar(show):
    assert show(seconds=0.5) == ("", "")
    assert show(wanted=False) == ("", "")
    assert show(is_terminal=False) == ("", "")
    assert show(total=0) == ("", "")


def test_without_tqdm(monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    with progress_bar("reading", 10, "B") as advance:
        advance(10)
