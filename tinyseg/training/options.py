"""The settings of a training run, checked once."""

import dataclasses
import math
from typing import Any, ClassVar

from tinyseg.data.normalise import check_normalisation

OPTIMISERS = ("adam", "adamw", "sgd")
AUGMENTATIONS = ("turns", "strong", "photo", "none")


class CommonOptions:
    """The checks that options of all kinds of networks share; dataclasses inherit it.

    Raises
    ------
    TypeError, ValueError
        In one sentence that names the option.
    """

    #: Options that are whole numbers, with the least that each may be.
    whole: ClassVar[dict] = {}
    #: Options that are finite numbers, with whether 0 is too little. ``clip_norm`` may also be None.
    numbers: ClassVar[dict] = {"learning_rate": True, "weight_decay": False, "clip_norm": True}
    #: Options that are one of some words.
    choices: ClassVar[dict] = {}

    def __post_init__(self):
        for name, least in self.whole.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int):
                raise TypeError(f"{name} is {value!r}; expected a whole number")
            if value < least:
                raise ValueError(f"{name} is {value}; expected at least {least}")
        for name, positive in self.numbers.items():
            value = getattr(self, name)
            if name == "clip_norm" and value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise TypeError(f"{name} is {value!r}; expected a number")
            if not math.isfinite(value) or value < 0 or (positive and value == 0):
                raise ValueError(
                    f"{name} is {value}; expected a finite number {'above 0' if positive else 'of at least 0'}"
                )
        for name, allowed in self.choices.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} is {getattr(self, name)!r}; expected one of {', '.join(map(repr, allowed))}")
        object.__setattr__(self, "normalisation", check_normalisation(getattr(self, "normalisation", None)))

    def as_dict(self) -> dict[str, Any]:
        """Return the options as a dict of plain values."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}  # type: ignore[arg-type]


@dataclasses.dataclass(frozen=True)
class Options(CommonOptions):
    """How to train a U-Net. Two runs with equal options, data and initial weights end in equal weights, bit for bit.

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
        See `tinyseg.training.segmentation.make_augmentation`.
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

    whole: ClassVar[dict] = {"steps": 1, "batch_size": 1, "crop": 1, "steps_per_epoch": 1, "seed": 0}
    numbers: ClassVar[dict] = {**CommonOptions.numbers, "dice_weight": False}
    choices: ClassVar[dict] = {
        "optimiser": OPTIMISERS,
        "schedule": ("one-cycle", "constant"),
        "augment": AUGMENTATIONS,
    }


@dataclasses.dataclass(frozen=True)
class DetectorOptions(CommonOptions):
    """How to train a detector: Faster R-CNN or Mask R-CNN. Equal runs end in equal weights here too, bit for bit.

    Parameters
    ----------
    steps : int
        Number of optimiser steps.
    batch_size : int
        Pictures per step, each whole.
    learning_rate : float
        The highest learning rate of the schedule.
    optimiser : {"adamw", "adam", "sgd"}
        SGD has momentum 0.9.
    weight_decay : float
        As in PyTorch's optimiser of that name.
    schedule : {"cosine", "linear", "one-cycle", "constant"}
        How the rate falls to nearly 0 after the warm-up; one-cycle has a warm-up of its own, and constant has none.
    warm_up : int
        Steps over which the rate rises at first; at most a fifth of all steps.
    clip_norm : float or None
        Longest gradient, as the norm over all parameters; longer ones are scaled down. None: no limit.
    steps_per_epoch : int
        Steps between two validations.
    normalisation : dict or str
        How pictures are prepared; see `tinyseg.data.normalise`.
    augment : {"turns", "strong", "photo", "none"}
        See `tinyseg.data.detection_augmentation`.
    seed : int
        Of the initial weights (for the command line), the order of the pictures, the augmentation, and the proposals
        and anchors that a step learns from.

    Raises
    ------
    TypeError, ValueError
        In one sentence that names the option.
    """

    steps: int = 600
    batch_size: int = 4
    learning_rate: float = 1e-3
    optimiser: str = "adamw"
    weight_decay: float = 0.01
    schedule: str = "cosine"
    warm_up: int = 20
    clip_norm: float | None = 5.0
    steps_per_epoch: int = 100
    normalisation: dict | str = "standardise"
    augment: str = "turns"
    seed: int = 0

    whole: ClassVar[dict] = {"steps": 1, "batch_size": 1, "warm_up": 0, "steps_per_epoch": 1, "seed": 0}
    choices: ClassVar[dict] = {
        "optimiser": OPTIMISERS,
        "schedule": ("cosine", "linear", "one-cycle", "constant"),
        "augment": AUGMENTATIONS,
    }


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
