"""The line that says why the first use takes long."""

import io
import os
import shutil
import subprocess
import sys
from pathlib import Path

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


# ---- what is kept on disk --------------------------------------------------------------------------------------------

RELU = """
import numpy as np
from kernels.naive import relu

relu.relu_forward(np.ones(3))
print(sum(relu._relu_kernel.stats.cache_hits.values()))
"""


@pytest.mark.skipif(bool(numba.config.DISABLE_JIT), reason="nothing is compiled without the JIT")
def test_an_edit_in_another_file_of_the_folder_is_noticed(tmp_path):
    package = tmp_path / "kernels"
    shutil.copytree(
        Path(__file__).parents[1] / "kernels", package, ignore=shutil.ignore_patterns("__pycache__", "cpu", "cuda")
    )

    def hits(**more):
        environment = {**os.environ, "PYTHONPATH": str(tmp_path), "NUMBA_CACHE_DIR": str(tmp_path / "cache"), **more}
        run = [sys.executable, "-c", RELU]
        return int(subprocess.run(run, env=environment, cwd=tmp_path, check=True, capture_output=True).stdout)

    assert (hits(), hits()) == (0, 1)
    with (package / "naive" / "add.py").open("a") as file:
        file.write("# an edit\n")
    assert (hits(), hits()) == (0, 1)
    other = {"NUMBA_BOUNDSCHECK": "0" if numba.config.BOUNDSCHECK else "1"}
    assert (hits(**other), hits(**other)) == (0, 1)
