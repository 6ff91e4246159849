"""The settings of a training run, checked once."""

import dataclasses
import math

from tinyseg.data.normalise import check_normalisation

OPTIMISERS = ("adam", "adamw", "sgd")
SCHEDULES = ("one-cycle", "constant")
AUGMENTATIONS = ("turns", "strong", "photo", "none")


@dataclasses.dataclass(frozen=True)
class Options:
    """How to train. Two runs with equal options, data and initial weights end in equal weights, bit for bit.

    Parameters
    ----------
    steps : int
        Number of optimiser steps.
    batch_size : int
        Crops per step.
    crop : int
        Side of the square crops, in pixels.
    learning_rate : float
        The highest learning rate of the schedule.
    optimiser : {"adam", "adamw", "sgd"}
        SGD has momentum 0.9.
    weight_decay : float
        As in PyTorch's optimiser of that name.
    schedule : {"one-cycle", "constant"}
        One-cycle rises to ``learning_rate`` over the first 30 % of the steps and falls to nearly 0 (Smith 2018, with
        PyTorch's defaults).
    clip_norm : float or None
        Longest gradient, as the norm over all parameters; longer ones are scaled down. None: no limit.
    dice_weight : float
        Weight of the Dice loss, which is added to the cross entropy.
    steps_per_epoch : int
        Steps between two validations.
    normalisation : dict or str
        How pictures are prepared; see `tinyseg.data.normalise`.
    augment : {"turns", "strong", "photo", "none"}
        See `tinyseg.training.data_source.make_augmentation`.
    seed : int
        Of the initial weights (for the command line), the crops and the augmentation.

    Raises
    ------
    TypeError, ValueError
        In one sentence that names the option.
    """

    steps: int = 600
    batch_size: int = 8
    crop: int = 256
    learning_rate: float = 3e-3
    optimiser: str = "adam"
    weight_decay: float = 0.0
    schedule: str = "one-cycle"
    clip_norm: float | None = 1.0
    dice_weight: float = 0.0
    steps_per_epoch: int = 50
    normalisation: dict | str = "standardise"
    augment: str = "turns"
    seed: int = 0

    def __post_init__(self):
        for name, least in (("steps", 1), ("batch_size", 1), ("crop", 1), ("steps_per_epoch", 1), ("seed", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int):
                raise TypeError(f"{name} is {value!r}; expected a whole number")
            if value < least:
                raise ValueError(f"{name} is {value}; expected at least {least}")
        for name in ("learning_rate", "weight_decay", "clip_norm", "dice_weight"):
            value = getattr(self, name)
            if name == "clip_norm" and value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise TypeError(f"{name} is {value!r}; expected a number")
            positive = name in ("learning_rate", "clip_norm")
            if not math.isfinite(value) or value < 0 or (positive and value == 0):
                raise ValueError(
                    f"{name} is {value}; expected a finite number {'above 0' if positive else 'of at least 0'}"
                )
        for name, allowed in (
            ("optimiser", OPTIMISERS),
            ("schedule", SCHEDULES),
            ("augment", AUGMENTATIONS),
        ):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} is {getattr(self, name)!r}; expected one of {', '.join(map(repr, allowed))}")

        object.__setattr__(self, "normalisation", check_normalisation(self.normalisation))

    def as_dict(self):
        """Return the options as a dict of plain values."""
        return dataclasses.asdict(self)


def differences(before, now):
    """Compare two dicts of settings, as a resumed run needs it.

    Parameters
    ----------
    before, now : dict
        Names and plain values; tuples and lists count as the same.

    Returns
    -------
    list of str
        One phrase per setting that differs, such as ``"steps was 600 and is 300"``.
    """
    phrases = []
    for name in [*before, *(name for name in now if name not in before)]:
        old, new = _plain(before.get(name)), _plain(now.get(name))
        if old != new:
            phrases.append(f"{name} was {_text(old)} and is {_text(new)}")
    return phrases


def _plain(value):
    """Return lists for tuples, at any depth."""
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value


def _text(value):
    """Return a setting as a user would write it."""
    if isinstance(value, list):
        return ",".join(map(str, value))
    return "not set" if value is None else str(value)
