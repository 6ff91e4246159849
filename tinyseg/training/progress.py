"""What training shows on the screen: a bar with loss, rate and time left, and a line per epoch."""

import sys
import time
from typing import Any

from tinyseg.backend import peak_memory


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
    scores : sequence of tinyseg.training.task.Score
        What the line of an epoch shows.
    parts : dict of str
        Names of the losses that are added up, and what they are called in the bar.
    """

    def __init__(self, steps, start, show, scores, parts):
        self._steps, self._start, self._show = steps, start, show
        self._scores, self._labels = scores, {"loss": "loss", **parts}
        self._bar: Any = None
        self._smooth: dict[str, float] = {}
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
            self._began = self._shown_at = time.perf_counter()
        return self

    def __exit__(self, *exc):
        if self._bar is not None:
            self._bar.set_description("done" if self._bar.n == self._steps else "stopped")
            self._bar.close()
            peak = peak_memory()
            if peak is not None:
                self.say(f"peak memory {peak:.0f} MiB")

    def step(self, loss, rate, parts):
        """Show one more step, and the losses that were added up where there are several."""
        if self._bar is None:
            return
        for name, value in {"loss": loss, **parts}.items():
            self._smooth[name] = 0.95 * self._smooth.get(name, value) + 0.05 * value
        if self._first:
            self._first = False
            self._after_compiling()
        self._bar.set_description("training", refresh=False)
        digits = 3 if parts else 4
        texts = {self._labels[name]: f"{value:.{digits}f}" for name, value in self._smooth.items()}
        # a dict keeps its order, keywords would be sorted; what a narrow terminal cuts off comes last
        self._bar.set_postfix({"loss": texts.pop("loss"), "rate": f"{rate:.1e}", **texts}, refresh=False)
        self._bar.update()

    def _after_compiling(self):
        """Say how long the first step took, and keep that time out of the estimate of the time left."""
        seconds = time.perf_counter() - self._began
        if seconds > 3:
            self.say(f"first step after {seconds:.0f} s: the kernels were compiled, and are kept for the next run")
        self._bar.unpause()
        self._bar.start_t = self._bar._time()

    def validating(self, done, total):
        """Show how far validation is; in a log file, the line of the epoch will say so."""
        if self._bar is not None and self._animated:
            moment = time.perf_counter()
            if moment > self._shown_at + 0.2:
                self._shown_at = moment
                self._bar.set_description("validating" if total < 2 else f"validating {done}/{total}")

    def epoch(self, row):
        """Show the line of an epoch."""
        scores, before = "", ""
        for score in self._scores:
            if row[score.name] is not None:
                kind, _, short = score.label.partition(" ")  # "mask AP  AP50  box AP  AP50": each kind once
                scores += f"  {short if short and kind == before else score.label} {row[score.name]:.4f}"
                before = kind
        if self._bar is not None:
            self._bar.set_description("training", refresh=False)
        self.say(f"epoch {row['epoch']:3d}  step {row['step']:5d}  loss {row['loss']:.4f}{scores}")

    def say(self, line):
        """Print a line without spoiling the bar."""
        if self._show:
            self._tqdm.write(line, file=sys.stdout)
            sys.stdout.flush()
