"""A line that says why the first use takes long: Numba is compiling kernels."""

import sys
import time

#: Seconds of compiling after which a person wonders what is going on.
PATIENCE = 1.0
#: What they are told.
LINE = "tinyseg: compiling kernels for their first use here, up to half a minute; they are kept on disk\n"


class Announcer:
    """Adds up the time that Numba holds its compiler's lock, and says so once it is long.

    Parameters
    ----------
    write : callable
        Takes the line.
    clock : callable
        Seconds.
    """

    def __init__(self, write, clock=time.perf_counter):
        self._write, self._clock = write, clock
        self._depth, self._start, self._total, self._said = 0, 0.0, 0.0, False

    def begin(self):
        """Note that compiling begins; it may begin again inside."""
        if self._depth == 0:
            self._start = self._clock()
        self._depth += 1

    def end(self):
        """Note that it ends."""
        self._depth -= 1
        if self._depth or self._said:
            return
        self._total += self._clock() - self._start
        if self._total >= PATIENCE:
            self._said = True
            self._write(LINE)


def announce():
    """Tell the person in front of it, at a terminal or in a notebook, when compiling takes more than a second."""
    in_notebook = "ipykernel" in sys.modules
    if not (sys.stderr.isatty() or in_notebook):
        return
    from numba.core import event

    def write(line):  # a notebook shows the error stream in the colour of alarm
        print(line, end="", file=sys.stdout if in_notebook else sys.stderr, flush=True)

    announcer = Announcer(write)

    class Listener(event.Listener):
        def on_start(self, event):
            announcer.begin()

        def on_end(self, event):
            announcer.end()

    event.register("numba:compiler_lock", Listener())
