"""How pictures are normalised before a network sees them; the same at training and at prediction.

The choice is a small dict that can be stored beside the weights:

- ``{"kind": "none"}``: values as they are;
- ``{"kind": "standardise"}``: each picture by its own mean and standard deviation, taken over the whole picture and
  all its channels together, so that colours keep their proportions; a picture of one value becomes 0;
- ``{"kind": "fixed", "mean": [...], "std": [...]}``: one number per channel, the same for every picture.
"""

import numpy as np


def check_normalisation(normalisation):
    """Return a normalisation as a plain dict of strings and floats, ready to be stored as JSON.

    Parameters
    ----------
    normalisation : dict, str or None
        As the module describes; a bare kind ("none", "standardise") and None, which is "none", work too.

    Returns
    -------
    dict
        With "kind", and "mean" and "std" where it is "fixed".

    Raises
    ------
    ValueError
        If it is none of these.
    """
    given = (
        {"kind": normalisation or "none"} if normalisation is None or isinstance(normalisation, str) else normalisation
    )
    kind = given.get("kind") if isinstance(given, dict) else None
    wanted = {"none": {"kind"}, "standardise": {"kind"}, "fixed": {"kind", "mean", "std"}}
    if kind not in wanted or set(given) != wanted[kind]:
        raise ValueError(
            f"normalisation is {normalisation!r}; expected {{'kind': 'none'}}, {{'kind': 'standardise'}} or "
            "{'kind': 'fixed', 'mean': [...], 'std': [...]}"
        )
    if kind != "fixed":
        return {"kind": kind}
    mean, std = ([float(value) for value in np.ravel(given[key])] for key in ("mean", "std"))
    if not mean or len(mean) != len(std) or not np.all(np.isfinite(mean + std)) or min(std) <= 0:
        raise ValueError(
            f"normalisation has mean {mean} and std {std}; expected one finite number a channel, std above 0"
        )
    return {"kind": kind, "mean": mean, "std": std}


def statistics(picture, normalisation):
    """Return what is subtracted from a picture, and what it is divided by, per channel.

    Parameters
    ----------
    picture : ndarray
        (C, H, W) float32: the whole picture, not a crop of it.
    normalisation : dict
        As `check_normalisation` returns it.

    Returns
    -------
    mean, std : ndarray
        (C, 1, 1) float32 each.

    Raises
    ------
    ValueError
        If a fixed normalisation is for another number of channels.
    """
    channels = picture.shape[0]
    if normalisation["kind"] == "fixed":
        if len(normalisation["mean"]) != channels:
            raise ValueError(f"normalisation is for {len(normalisation['mean'])} channels; the picture has {channels}")
        mean, std = normalisation["mean"], normalisation["std"]
    elif normalisation["kind"] == "standardise" and picture.size:
        mean = picture.mean(dtype=np.float64)
        std = np.sqrt(np.mean((picture - np.float32(mean)) ** 2, dtype=np.float64))
        if std <= 1e-6 * max(abs(mean), np.abs(picture).max()):  # one value, but for rounding
            std = 1.0
        mean, std = [mean] * channels, [std] * channels
    else:
        mean, std = [0.0] * channels, [1.0] * channels
    return tuple(np.array(values, np.float32).reshape(channels, 1, 1) for values in (mean, std))


def normalise(picture, normalisation):
    """Return a picture normalised.

    Parameters
    ----------
    picture : ndarray
        (C, H, W) float32: the whole picture.
    normalisation : dict, str or None
        As `check_normalisation` takes it.

    Returns
    -------
    ndarray
        (C, H, W) float32.

    Raises
    ------
    ValueError
        If the normalisation is none, or for another number of channels.
    """
    normalisation = check_normalisation(normalisation)
    if normalisation["kind"] == "none":
        return picture
    mean, std = statistics(picture, normalisation)
    return (picture - mean) / std
