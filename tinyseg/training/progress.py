"""What training shows on the screen: a bar with loss, rate and time left, and a line per epoch."""

import sys
import time
from typing import Any


class Progress:
    """A progress bar on stderr and lines on stdout, for the length of a ``with`` block.

    Parameters
    ----------
    steps : int
        Steps of the whole run.
    start : int
        Steps done before, in a resumed run.
    show : bool
        False shows nothing.
    """

    def __init__(self, steps, start, show):
        self._steps, self._start, self._show = steps, start, show
        self._bar: Any = None
        self._loss = None
        self._first = True

    def __enter__(self):
        if self._show:
            from tqdm import tqdm  # a tenth of a second: not at import

            self._tqdm = tqdm
            self._animated = sys.stderr.isatty()
            self._bar = tqdm(
                total=self._steps,
                initial=self._start,
                unit="step",
                desc="compiling kernels",
                dynamic_ncols=True,
                mininterval=0.2 if self._animated else 10.0,  # a log file needs no animation
                smoothing=0.05,
            )
            self._began = time.perf_counter()
        return self

    def __exit__(self, *exc):
        if self._bar is not None:
            self._bar.set_description("done" if self._bar.n == self._steps else "stopped")
            self._bar.close()

    def step(self, loss, rate):
        """Show one more step."""
        if self._bar is None:
            return
        self._loss = loss if self._loss is None else 0.95 * self._loss + 0.05 * loss
        if self._first:
            self._first = False
            self._after_compiling()
        self._bar.set_description("training", refresh=False)
        self._bar.set_postfix(loss=f"{self._loss:.4f}", rate=f"{rate:.1e}", refresh=False)
        self._bar.update()

    def _after_compiling(self):
        """Say how long the first step took, and keep that time out of the estimate of the time left."""
        seconds = time.perf_counter() - self._began
        if seconds > 3:
            self.say(f"first step after {seconds:.0f} s: the kernels were compiled, and are kept for the next run")
        self._bar.unpause()
        self._bar.start_t = self._bar._time()

    def validating(self):
        """Show that validation is going on; in a log file, the line of the epoch will say so."""
        if self._bar is not None:
            self._bar.set_description("validating", refresh=self._animated)

    def epoch(self, row):
        """Show the line of an epoch."""
        scores = "  ".join(
            f"{label} {row[name]:.4f}"
            for name, label in (("dice", "Dice"), ("iou", "IoU"), ("pixel_error", "pixel error"))
            if row[name] is not None
        )
        if self._bar is not None:
            self._bar.set_description("training", refresh=False)
        self.say(f"epoch {row['epoch']:3d}  step {row['step']:5d}  loss {row['loss']:.4f}  {scores}".rstrip())

    def say(self, line):
        """Print a line without spoiling the bar."""
        if self._show:
            self._tqdm.write(line, file=sys.stdout)
            sys.stdout.flush()
