"""A whole training run in one file: plain arrays and JSON, written so that it is always complete.

The file is a safetensors file. Its arrays are the leaves of a tree of dicts and lists; the tree itself, with every
number and text in it, is JSON in the file's metadata, where ``{"array": name}`` stands for an array. Python's JSON
writes a float64 so that it reads back as the same number. Nothing in the file can run code.
"""

import json
import os

import numpy as np

from tinyseg import weights

FORMAT = "tinyseg training checkpoint 1"


def save(path, tree):
    """Write a tree of plain values and arrays to a file; an older file stays until the new one is complete.

    Parameters
    ----------
    path : str or path-like
        The file; its name ends in ``.safetensors``.
    tree : dict
        Dicts (keys str or int), lists, tuples, str, bool, int, float, None, NumPy arrays and scalars, and objects with
        a ``numpy()`` method. Tuples come back as lists.

    Raises
    ------
    OSError
        If the file cannot be written.
    TypeError
        If the tree holds anything else.
    """
    arrays: dict[str, np.ndarray] = {}
    text = json.dumps(_pack(tree, arrays, "state"))
    weights.save(path, arrays, {"format": FORMAT, "tree": text})


def load(path):
    """Read a tree that `save` wrote.

    Parameters
    ----------
    path : str or path-like
        The file.

    Returns
    -------
    dict
        The tree; its arrays are new and writable.

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If it is no such file, or is damaged.
    """
    arrays, metadata = weights.load(path, metadata=True)
    if metadata.get("format") != FORMAT:
        raise ValueError(f"{os.fspath(path)} is not a checkpoint of tinyseg's training")
    try:
        return _unpack(json.loads(metadata["tree"]), arrays)
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ValueError(f"{os.fspath(path)} is a damaged checkpoint: its arrays and its description differ") from None


def _pack(value, arrays, name):
    """Return ``value`` as JSON-ready data, its arrays moved to ``arrays`` under names that begin with ``name``."""
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    if isinstance(value, np.generic):
        return _pack(value.item(), arrays, name)
    if hasattr(value, "numpy"):
        value = value.numpy()
    if isinstance(value, np.ndarray):
        arrays[name] = np.ascontiguousarray(value).reshape(value.shape)
        return {"array": name}
    if isinstance(value, (list, tuple)):
        return [_pack(item, arrays, f"{name}/{i}") for i, item in enumerate(value)]
    if isinstance(value, dict):
        pairs = []
        for key, item in value.items():
            if isinstance(key, bool) or not isinstance(key, (str, int)):
                raise TypeError(f"{name} has the key {key!r}; expected text or a whole number")
            pairs.append([key, _pack(item, arrays, f"{name}/{key}")])
        return {"dict": pairs}
    raise TypeError(f"{name} is a {type(value).__name__}, which a checkpoint cannot hold")


def _unpack(value, arrays):
    """Undo `_pack`."""
    if isinstance(value, list):
        return [_unpack(item, arrays) for item in value]
    if isinstance(value, dict):
        if "array" in value:
            return arrays[value["array"]]
        return {key: _unpack(item, arrays) for key, item in value["dict"]}
    return value
