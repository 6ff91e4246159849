"""What a run found, as a JSON file: written, read again, compared with another."""

import json
import math
from dataclasses import asdict, dataclass, field
from typing import NamedTuple

from benchmarks.measure import Spread, Timing
from tinyseg import files

#: Number of the format; it grows when an older reader would misread a file.
FORMAT = 1


@dataclass
class Row:
    """One case, measured.

    Attributes
    ----------
    name : str
        ``kind/operator/size/arrays/direction``.
    flops, bytes : int or None
        Multiplications and additions of the textbook algorithm; numbers read and written at least once, in bytes.
    checked : str
        What the results were compared with.
    timings : dict of str to Timing
        Per entrant.
    memory : dict of str to int
        Peak bytes of a fresh process per entrant, for models.
    """

    name: str
    flops: int | None
    bytes: int
    checked: str
    timings: dict
    memory: dict = field(default_factory=dict)

    @property
    def parts(self):
        """Kind, operator, size, arrays and direction."""
        return self.name.split("/")

    def spread(self, entrant):
        """Return the spread of an entrant's seconds, or None where it was not timed."""
        timing = self.timings.get(entrant)
        return Spread.of(timing.seconds) if timing is not None and timing.seconds else None


@dataclass
class Run:
    """Everything that one run measured, and on what.

    Attributes
    ----------
    machine : dict
        The processor and the versions of what was measured.
    peaks : dict
        ``flops`` and ``bytes`` per second of this machine.
    absent : dict of str to str
        Who was asked for and why it did not take part.
    complete : bool
        False where the run was stopped.
    gpu : dict
        What else a run on a GPU leaves: see `gpu`.
    """

    command: str
    machine: dict
    peaks: dict
    rows: list
    absent: dict = field(default_factory=dict)
    complete: bool = True
    gpu: dict = field(default_factory=dict)

    def names(self):
        """Return the entrants in the order of their appearance."""
        return list(dict.fromkeys(name for row in self.rows for name in row.timings))

    def errors(self):
        """Return (row, entrant, error) for everyone who was wrong or failed."""
        return [(row, name, t.error) for row in self.rows for name, t in row.timings.items() if t.error]


def write(path, run):
    """Write a run as JSON, whole or not at all."""
    data = {"format": FORMAT, **asdict(run)}
    if not run.gpu:
        del data["gpu"]
    for row in data["rows"]:
        row["timings"] = {name: _stored(Timing(*timing)) for name, timing in row["timings"].items()}
    files.write_text(path, json.dumps(data, indent=1, allow_nan=False) + "\n")


def _stored(timing):
    """Return a timing in its JSON form; what only GPUs have is left out for others."""
    stored = {**timing._asdict(), "first": None if math.isnan(timing.first) else timing.first}
    if timing.called is None:
        del stored["called"], stored["waits"]
    return stored


def _stored(timing):
    """Return a timing in its JSON form; what only GPUs have is left out for others."""
    stored = {**timing._asdict(), "first": None if math.isnan(timing.first) else timing.first}
    if timing.called is None:
        del stored["called"], stored["waits"]
    return stored


def read(path):
    """Return the run that a JSON file holds.

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If it is not such a file; one sentence that says why.
    """
    with open(path, encoding="utf-8") as file:
        try:
            data = json.load(file)
        except ValueError:  # also where it is no text
            raise ValueError(f"{path} is no JSON file; expected the results.json of a benchmark") from None
    if not isinstance(data, dict) or "format" not in data or "rows" not in data:
        raise ValueError(f"{path} holds no results of a benchmark")
    if data.pop("format") != FORMAT:
        raise ValueError(f"{path} was written by another version of the benchmarks; measure anew")
    try:
        rows = [Row(**{**row, "timings": _timings(row["timings"])}) for row in data.pop("rows")]
        return Run(rows=rows, **data)
    except (TypeError, AttributeError, KeyError) as error:
        raise ValueError(f"{path} is damaged: {error}") from None


def _timings(stored):
    """Return timings from their JSON form."""
    return {
        name: Timing(**{**timing, "first": math.nan if timing["first"] is None else timing["first"]})
        for name, timing in stored.items()
    }


class Change(NamedTuple):
    """How one entrant's time of one row differs between two runs; ``ratio`` is new by old."""

    name: str
    entrant: str
    old: Spread
    new: Spread

    @property
    def ratio(self):
        """New median by old median: below 1 is faster."""
        return self.new.median / self.old.median

    @property
    def mark(self):
        """``"faster"`` or ``"slower"`` where the middle halves of old and new do not overlap, else nothing."""
        if self.old.overlaps(self.new):
            return ""
        return "faster" if self.ratio < 1 else "slower"


def compare(old, new):
    """Return the `Change` of every row and entrant that both runs timed, in the order of the new run."""
    before = {row.name: row for row in old.rows}
    changes = []
    for row in new.rows:
        for entrant in row.timings:
            spreads = [r.spread(entrant) if r else None for r in (before.get(row.name), row)]
            if all(spreads):
                changes.append(Change(row.name, entrant, *spreads))
    return changes
