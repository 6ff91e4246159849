"""The line that says why the first use takes long."""

import io
import sys

import numba
import pytest
from numba.core import event

from tinyseg import compiling


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def compile_for(announcer, clock, seconds, inside=0):
    """Hold the compiler's lock so long, and again inside so often."""
    announcer.begin()
    for _ in range(inside):
        announcer.begin()
        announcer.end()
    clock.now += seconds
    announcer.end()


def test_says_so_once_after_a_second_in_all():
    lines, clock = [], Clock()
    announcer = compiling.Announcer(lines.append, clock)
    compile_for(announcer, clock, 0.6, inside=3)
    clock.now += 100  # what passes in between is not compiling
    compile_for(announcer, clock, 0.3)
    assert lines == []
    compile_for(announcer, clock, 0.2)
    compile_for(announcer, clock, 50)
    assert len(lines) == 1 and "compiling kernels" in lines[0]


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(("stream", "lines"), [(Terminal, 1), (io.StringIO, 0)], ids=["terminal", "file"])
def test_hears_numba_and_speaks_to_a_person_only(monkeypatch, stream, lines):
    monkeypatch.setattr(compiling, "PATIENCE", 0.0)
    monkeypatch.setattr(sys, "stderr", stream())
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)
    register, registered = event.register, []
    monkeypatch.setattr(event, "register", lambda *pair: registered.append(pair) or register(*pair))
    compiling.announce()
    monkeypatch.setattr(event, "register", register)  # Numba has listeners of its own
    try:
        numba.njit(lambda a: a + 1)(1)
    finally:
        for pair in registered:
            event.unregister(*pair)
    assert sys.stderr.getvalue().count("compiling kernels") == lines
