"""The folder of a training run: what is in it, and how it survives a kill at any moment."""

import csv
import io
import json
from pathlib import Path

from tinyseg import files
from tinyseg.training import checkpoint
from tinyseg.training.curve import draw_curve


class RunFolder:
    """A run's files: ``last.safetensors``, ``best.safetensors``, ``metrics.csv``, ``curve.png`` and ``config.json``.

    ``last.safetensors`` alone decides where a resumed run goes on; the others follow from it. Every file is written
    under another name first and renamed when complete.

    Parameters
    ----------
    path : str or path-like
        The folder; `prepare` makes it.
    """

    def __init__(self, path):
        self.path = Path(path)
        self.last = self.path / "last.safetensors"
        self.best = self.path / "best.safetensors"
        self.metrics = self.path / "metrics.csv"
        self.curve = self.path / "curve.png"
        self.config = self.path / "config.json"

    def holds_a_run(self):
        """Return whether a run has left anything here."""
        return any(path.exists() for path in (self.last, self.best, self.metrics))

    def refuse_another_run(self):
        """Raise FileExistsError if there is a run here."""
        if self.holds_a_run():
            raise FileExistsError(
                f"{self.path} already holds a run, which is never overwritten: add --resume (resume=True) to go on "
                "with it, or choose another folder"
            )

    def prepare(self, resume):
        """Make the folder, refuse to write over another run, and return the checkpoint to resume from, or None.

        Raises
        ------
        FileExistsError
            If the folder holds a run that is not to be resumed.
        ValueError, OSError
            If the checkpoint is damaged, or the folder cannot be written to.
        """
        if not resume:
            self.refuse_another_run()
        files.make_folder(self.path)
        files.remove_unfinished(self.path)
        if self.last.exists():
            return checkpoint.load(self.last)
        if self.holds_a_run():
            raise ValueError(f"{self.path} has no last.safetensors to resume from, but other files of a run")
        return None

    def write_checkpoint(self, state):
        """Write ``last.safetensors``, from which a resumed run goes on."""
        checkpoint.save(self.last, state)

    def write_config(self, config):
        """Write the run's settings for people to read."""
        files.write_text(self.config, json.dumps(config, indent=2) + "\n")

    def write_progress(self, history, task):
        """Write the table and the picture of the run so far; rows beyond the checkpoint vanish."""
        scores = [score.name for score in task.scores]
        columns = ["epoch", "step", "loss", *task.parts, "learning_rate", *scores, "seconds"]
        files.write_text(self.metrics, metrics_text(history.rows, columns))
        if history.rows:
            parts = {label: history.parts[name] for name, label in task.parts.items()}
            files.write_bytes(self.curve, draw_curve(history.losses, history.rows, parts))


def metrics_text(rows, columns):
    """Return the rows of ``metrics.csv`` as text.

    Parameters
    ----------
    rows : list of dict
        One per epoch; None is left empty.
    columns : sequence of str
        Their keys.

    Returns
    -------
    str
    """
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        writer.writerow([_cell(row.get(name)) for name in columns])
    return buffer.getvalue()


def _cell(value):
    """Return a number with six digits, or nothing for None."""
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else value
