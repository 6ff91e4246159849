"""Training of any network of `tinyseg.models`: `fit`.

What a step does depends on the options, the weights before it and the number of the step only: the batch of step ``t``
is a function of the seed and ``t``, and the kernels' results do not depend on the number of threads. That is why a run
that is stopped anywhere and resumed ends in the same weights, bit for bit, as one that was never stopped. What is
particular to a kind of network is in its `tinyseg.training.task.Task`.
"""

import contextlib
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tinyseg import backend, optim
from tinyseg.training import recipe
from tinyseg.training.detection import DetectionTask
from tinyseg.training.diagnosis import find_not_finite, first_not_finite
from tinyseg.training.interrupt import Interruptible
from tinyseg.training.model_file import DETECTORS, kind_of, save_model
from tinyseg.training.options import differences
from tinyseg.training.progress import Progress
from tinyseg.training.run_folder import RunFolder
from tinyseg.training.segmentation import SegmentationTask
from tinyseg.training.task import total


class Interrupted(KeyboardInterrupt):
    """Training was stopped by Ctrl-C after a whole step; its text says how to go on."""


class _StopRequested(Exception):
    """Leaves a validation that a Ctrl-C made pointless."""


@dataclass
class History:
    """What `fit` returns, and what a checkpoint keeps beside weights and optimiser.

    Attributes
    ----------
    step : int
        Optimiser steps done.
    losses : list of float
        Loss of each step.
    rows : list of dict
        One per epoch: ``epoch``, ``step``, ``loss`` (mean over the epoch), ``learning_rate``, the scores over the
        validation pictures (None without any) and ``seconds`` of training so far. A U-Net's scores are the means
        ``dice``, ``iou`` and ``pixel_error``; a detector's are ``box_ap``, ``box_ap50``, ``box_ap75`` and those of
        masks, and its rows have the mean of each named loss too.
    best : dict or None
        The row with the highest Dice, average precision of masks, or of boxes where there are no masks; the last row
        without validation.
    learning_rate : float
        Of the last step.
    seconds : float
        Time spent so far, earlier parts of a resumed run included.
    parts : dict of list of float
        Of a detector: each named loss of each step.
    """

    step: int = 0
    losses: list = field(default_factory=list)
    rows: list = field(default_factory=list)
    best: dict | None = None
    learning_rate: float = 0.0
    seconds: float = 0.0
    parts: dict = field(default_factory=dict)

    def state(self):
        """Return all of it as a checkpoint keeps it."""
        state = {**vars(self), "losses": np.array(self.losses, np.float64)}
        if not self.parts:
            del state["parts"]  # a U-Net has but one loss
        else:
            state["parts"] = {name: np.array(values, np.float64) for name, values in self.parts.items()}
        return state

    @classmethod
    def from_state(cls, state):
        """Undo `state`."""
        parts = {name: values.tolist() for name, values in state.get("parts", {}).items()}
        return cls(**{**state, "losses": state["losses"].tolist(), "parts": parts})


def fit(
    model,
    train,
    val=None,
    *,
    out=None,
    resume=False,
    checkpoint_every=("seconds", 60.0),
    tile="auto",
    progress=True,
    info=None,
    **options,
):
    """Train a U-Net, a Faster R-CNN or a Mask R-CNN.

    Parameters
    ----------
    model : tinyseg.models.UNet, FasterRCNN or MaskRCNN
        Trained in place, from the weights it has.
    train, val : sequence of tinyseg.data.Sample, or a data set of `tinyseg.data`
        Pictures with masks (for detectors: with objects) to train on, and to score the model on after each epoch, each
        at its full size.
    out : str or path-like, optional
        Folder for checkpoints, the table of scores and the curve; nothing is written without it.
    resume : bool
        Go on with the run in ``out``, whose options and data must be the same; start it if there is none yet.
    checkpoint_every : tuple or None
        ``("steps", n)`` or ``("seconds", s)``: how often ``last.safetensors`` is written, besides after each epoch.
    tile : int, "auto" or "none"
        Tiles for a U-Net's validation; see `tinyseg.evaluation.predict`.
    progress : bool
        Show a progress bar, and a line per epoch.
    info : dict, optional
        More to keep in ``best.safetensors``, as plain values.
    **options
        See `Options` for a U-Net, `DetectorOptions` for a detector: ``steps``, ``batch_size``, ``learning_rate``,
        ``seed`` and so on.

    Returns
    -------
    History

    Raises
    ------
    ValueError, TypeError
        If an option is wrong, the data do not fit the model, or a resumed run differs from what it was.
    FileExistsError
        If ``out`` holds a run and ``resume`` is False: it is never overwritten.
    OSError
        If a file cannot be written. The checkpoint written last is whole.
    FloatingPointError
        If the loss or a gradient becomes NaN or infinite; names the first layer that made it. The checkpoint written
        last is the last good one.
    Interrupted
        On Ctrl-C (SIGINT, SIGTERM): after the step, and after saving. A second Ctrl-C raises KeyboardInterrupt at once.
    """
    task = make_task(model, train, val, tile, options)
    return _Run(task, out, resume, checkpoint_every, progress, info).run()


def make_task(model, train, val, tile, options):
    """Return the `Task` of a model: its kind decides which."""
    if kind_of(model) in DETECTORS:
        if tile != "auto":
            raise ValueError(f"tile is {tile!r}, but a detector sees pictures whole; leave it out")
        return DetectionTask(model, train, val, DetectionTask.options_class(**options))
    return SegmentationTask(model, train, val, SegmentationTask.options_class(**options), tile)


class _Run:
    """One call of `fit`."""

    def __init__(self, task, out, resume, checkpoint_every, progress, info):
        if resume and out is None:
            raise ValueError("resume is True but out is None; expected the folder of the run to go on with")
        self.task, self.model, self.options, self.info = task, task.model, task.options, dict(info or {})
        self.interval = recipe.checked_interval(checkpoint_every)
        self.optimiser = recipe.make_optimiser(self.model, self.options)
        self.schedule = recipe.make_schedule(self.optimiser, self.options)
        self.history = History(parts={name: [] for name in task.parts})
        own = task.settings()
        pictures = {name: own.pop(name) for name in ("training pictures", "validation pictures")}
        self.config = {**self.options.as_dict(), **own, "backend": backend.current_backend(), **pictures}
        self.folder: Any = None if out is None else RunFolder(out)
        self.resumed = self._prepare_folder(resume)
        self.progress = Progress(self.options.steps, self.history.step, progress, task.scores, task.parts)

    # ---- the loop --------------------------------------------------------------------------------------------------

    def run(self):
        """Train to the end, or to a Ctrl-C."""
        self.started = time.perf_counter() - self.history.seconds
        self.saved_at = self.history.step, time.perf_counter()
        with Interruptible() as self.stop, self.progress, contextlib.closing(self.task):
            self.model.train()
            while True:
                with contextlib.suppress(_StopRequested):
                    self._finish_epoch()
                if self.stop.requested:
                    self._interrupted()
                if self.history.step == self.options.steps:
                    break
                self._step()
                if self._checkpoint_is_due():
                    self._save()
        self.model.eval()
        self.history.seconds = time.perf_counter() - self.started
        return self.history

    def _step(self):
        """Take one optimiser step."""
        history, step = self.history, self.history.step
        batch = self.task.source.batch(step)
        self.optimiser.zero_grad()
        losses = self._losses(batch, step)
        loss = total(losses)
        value = loss.item()
        if not np.isfinite(value):
            self._not_finite(batch, step, f"the loss of step {step + 1} is {value}")
        loss.backward()
        norm = optim.clip_grad_norm_(self.model.parameters(), self.options.clip_norm or float("inf")).item()
        if not np.isfinite(norm):
            self._not_finite(batch, step, f"the gradient of step {step + 1} is {norm}")
        history.learning_rate = self.optimiser.param_groups[0]["lr"]
        self.optimiser.step()
        if self.schedule is not None and step + 1 < self.options.steps:
            self.schedule.step()
        history.step += 1
        history.losses.append(value)
        for name, values in history.parts.items():
            values.append(losses[name].item())
        self.progress.step(value, history.learning_rate, {name: values[-1] for name, values in history.parts.items()})

    def _losses(self, batch, step):
        """Return the losses of a batch; a detector itself refuses NaN, whose source is named then too."""
        try:
            return self.task.losses(batch, step)
        except (ValueError, FloatingPointError) as error:
            self._not_finite(batch, step, f"the losses of step {step + 1} could not be computed", error)

    def _not_finite(self, batch, step, what, error=None):
        """Raise the error that names the first layer with a NaN or infinity, or ``error`` where there is none."""
        where = find_not_finite(self.model, self.task.pictures(batch), lambda: self.task.losses(batch, step))
        if where is None and error is not None:
            raise error
        kept = "" if self.folder is None else f"; the last good checkpoint is {self.folder.last}"
        raise FloatingPointError(
            f"{what} (NaN or infinity): {where or 'it did not come again when the step was repeated'}{kept}. "
            f"{self._advice()}"
        ) from error

    def _advice(self):
        """Return what to try after a NaN."""
        return f"A lower learning rate ({self.options.learning_rate:g} now) often helps"

    # ---- epochs and files ------------------------------------------------------------------------------------------

    def _finish_epoch(self):
        """After the last step of an epoch: validate, note the scores, keep the best, save. Once per epoch."""
        history, length = self.history, self.options.steps_per_epoch
        at_end = history.step and (history.step % length == 0 or history.step == self.options.steps)
        done = history.rows[-1]["step"] if history.rows else 0
        if not at_end or done == history.step:
            return
        self._check_weights()
        scores = self._validate()
        row = {
            "epoch": len(history.rows) + 1,
            "step": history.step,
            "loss": float(np.mean(history.losses[done:])),
            **{name: float(np.mean(values[done:])) for name, values in history.parts.items()},
            "learning_rate": history.learning_rate,
            **scores,
            "seconds": time.perf_counter() - self.started,
        }
        history.rows.append(row)
        self.progress.epoch(row)
        if self._is_best(row):
            history.best = dict(row)
            self._save_best(row)
        self._save()
        self._write_progress()

    def _is_best(self, row):
        """Return whether an epoch's weights are the ones to keep."""
        best, name = self.history.best, self.task.best
        if best is None or row[name] is None or best[name] is None:
            return True
        return row[name] > best[name] or row[name] == 0  # as long as nothing is found, the newest

    def _validate(self):
        """Return the scores over the validation pictures."""

        def before(done, total):
            if self.stop.requested:
                raise _StopRequested
            self.progress.validating(done, total)

        return self.task.validate(before)

    def _check_weights(self):
        """Raise an error if the last step has spoilt the weights: such weights are never written."""
        bad = first_not_finite(self.model.state_dict())
        if bad is not None:
            kept = "" if self.folder is None else f"; the last good checkpoint is {self.folder.last}"
            raise FloatingPointError(
                f"after step {self.history.step}, {bad} holds NaN or infinity: the step was too large{kept}. "
                f"{self._advice()}"
            )

    def _save_best(self, row):
        """Write the weights with all that prediction needs."""
        if self.folder is None:
            return
        about = {
            **self.task.about(),
            "step": self.history.step,
            "scores": {score.name: row[score.name] for score in self.task.scores},
            **self.info,
        }
        with self._clear_write_errors():
            save_model(self.folder.best, self.model, about)

    def _save(self):
        """Write the checkpoint from which a resumed run goes on."""
        self.saved_at = self.history.step, time.perf_counter()
        if self.folder is None:
            return
        self._check_weights()
        self.history.seconds = time.perf_counter() - self.started
        with self._clear_write_errors():
            self.folder.write_checkpoint(
                {
                    "config": self.config,
                    "info": self.info,
                    "model": self.model.state_dict(),
                    "optimiser": self.optimiser.state_dict(),
                    "schedule": None if self.schedule is None else self.schedule.state_dict(),
                    "history": self.history.state(),
                }
            )

    def _write_progress(self):
        """Write the table and the curve."""
        if self.folder is not None:
            with self._clear_write_errors():
                self.folder.write_progress(self.history, self.task)

    @contextlib.contextmanager
    def _clear_write_errors(self):
        """Add to an error of writing what is safe, and how to go on."""
        try:
            yield
        except OSError as error:
            if not self.folder.last.exists():
                raise
            raise type(error)(
                f"{error}. The run is safe in {self.folder.last}; once the disk is in order, go on with it by --resume "
                "(resume=True)"
            ) from error

    def _checkpoint_is_due(self):
        """Return whether ``checkpoint_every`` has passed."""
        if self.interval is None:
            return False
        kind, length = self.interval
        step, moment = self.saved_at
        return (self.history.step - step if kind == "steps" else time.perf_counter() - moment) >= length

    def _interrupted(self):
        """Save, and raise `Interrupted` with how to go on."""
        self._save()
        self._write_progress()
        text = f"stopped after step {self.history.step} of {self.options.steps}"
        if self.folder is not None:
            text += f", saved in {self.folder.last}. Go on with --resume (resume=True)"
        raise Interrupted(text)

    # ---- starting and resuming -------------------------------------------------------------------------------------

    def _prepare_folder(self, resume):
        """Make the folder and load its checkpoint; return whether there was one."""
        if self.folder is None:
            return False
        state = self.folder.prepare(resume)
        if state is not None:
            self._load(state)
            self._write_progress()
            return True
        self.started = time.perf_counter()
        self.folder.write_config({**self.config, "info": self.info})
        self._save()  # step 0: a run killed before its first epoch can be resumed too
        return False

    def _load(self, state):
        """Put everything where the checkpoint left it, after checking that it belongs to this run."""
        changed = differences(state["config"], self.config)
        if changed:
            raise ValueError(
                f"cannot resume {self.folder.path}: {'; '.join(changed)}. Resume with the run's own settings, or start "
                "a new run in another folder"
            )
        self.model.load_state_dict(state["model"])
        self.optimiser.load_state_dict(state["optimiser"])
        if self.schedule is not None:
            self.schedule.load_state_dict(state["schedule"])
        self.history = History.from_state(state["history"])
