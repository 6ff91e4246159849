"""What a call of a kernel costs at least: the operations of the textbook, and the bytes that it must read and write."""

from typing import NamedTuple

import numpy as np


class Cost(NamedTuple):
    """What a call costs.

    Attributes
    ----------
    flops : int or None
        Multiplications and additions of the textbook's formula; None where they are not counted, because they take
        less time than the bytes: everything but convolutions and linear layers.
    bytes_read, bytes_written : int
        Of every array that it is given and that it returns, once.
    """

    flops: int | None
    bytes_read: int
    bytes_written: int


def arrays_in(value):
    """Return the arrays in arguments or results.

    Parameters
    ----------
    value : object
        An array, or a dict, list or tuple of values; anything else holds none.

    Returns
    -------
    list of ndarray
    """
    if isinstance(value, np.ndarray):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    return [array for part in value for array in arrays_in(part)] if isinstance(value, list | tuple) else []


def cost(call):
    """Return what a call costs at least.

    Parameters
    ----------
    call : tinyseg.backend.KernelCall
        The call.

    Returns
    -------
    Cost
    """
    read, written = ({id(a): a.nbytes for a in arrays_in(v)} for v in (call.arguments, call.result))
    return Cost(_flops(call), sum(read.values()), sum(written.values()))


def _flops(call):
    """Return twice the products of a convolution or linear layer, None for others."""
    kind, given = call.name.rpartition("_")[0], call.arguments
    kind = kind.removesuffix("_relu").removesuffix("_joined")
    if kind in ("conv2d", "linear"):  # every weight of an output channel meets every value of it once
        channels = given.get("dy", call.result)
    elif kind == "conv_transpose2d":  # every weight of an input channel meets every value of it once
        channels = given["x"]
    else:
        return None
    weight = given["weight"]
    products = channels.size * (weight.size // max(weight.shape[0], 1))
    return 2 * products * sum(given["needs"][:2]) if "needs" in given else 2 * products
