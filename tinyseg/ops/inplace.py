"""Changes in place: ``x += y``, ``x[index] = y`` and their like, on the tape and off it.

Off the tape the values are overwritten and the change is counted: ``backward`` compares the count with the one at the
time an operator saved them. On the tape, the operator runs as usual, and the tensor then takes over its result.
"""

import numpy as np

from tinyseg.ops.shapes import Assign, _plain_index
from tinyseg.tensor import Tensor, is_grad_enabled, tensor_beside, tensor_over


def _overwrite(x, result, sign):
    """Write the values of tensor ``result`` into ``x``, and move ``x`` on to its place on the tape."""
    if result.shape != x.shape:
        raise ValueError(f"x {sign} y gives shape {result.shape}, which does not fit into x of shape {x.shape}")
    if result.requires_grad:
        _check_recordable(x, sign)
    try:
        np.copyto(x.array, result.array, casting="same_kind")
    except TypeError:
        raise TypeError(f"x {sign} y gives {result.dtype}, which does not fit into x of dtype {x.dtype}") from None
    x.mark_changed()
    if result.requires_grad:
        x.creator, x._requires_grad = result.creator, True
    return x


def _check_recordable(x, sign):
    """Refuse changes that the tape could not follow."""
    if x.creator is None and x.requires_grad:
        raise RuntimeError(
            f"x {sign} y changes a leaf that requires gradients: change it within no_grad(), or make a new tensor"
        )
    if x.memory.viewed:
        raise RuntimeError(
            f"x {sign} y changes a tensor that shares memory with another (made by indexing or reshape): "
            "change a clone() of it"
        )


def _snapshot(x):
    """Return a tensor at the same place on the tape with a copy of the values, which will not change."""
    before = tensor_over(x.array.copy())
    before._requires_grad, before.creator = x.requires_grad, x.creator
    return before


def _in_place(operator, sign):
    """Return the method of Tensor for an augmented assignment."""

    def method(self, other):
        if is_grad_enabled() and (self.requires_grad or getattr(other, "requires_grad", False)):
            _check_recordable(self, sign)
            result = operator(_snapshot(self), other)
        else:
            result = operator(self.detach(), other.detach() if isinstance(other, Tensor) else other)
        return NotImplemented if result is NotImplemented else _overwrite(self, result, sign)

    return method


def _set_item(self, index, value):
    """Write ``value``, a number, array or tensor that broadcasts, to ``x[index]``."""
    index = _plain_index(index)
    if is_grad_enabled() and (self.requires_grad or getattr(value, "requires_grad", False)):
        _check_recordable(self, "[...] =")
        value = value if isinstance(value, Tensor) else tensor_beside(self, value, self.dtype)
        _overwrite(self, Assign.apply(_snapshot(self), value.to(dtype=self.dtype), index=index), "[...] =")
    else:
        self.array[index] = value.array if isinstance(value, Tensor) else value
        self.mark_changed()


def _install():
    """Give the in-place operators to the class Tensor."""
    for name, sign in {"add": "+=", "sub": "-=", "mul": "*=", "truediv": "/="}.items():
        setattr(Tensor, f"__i{name}__", _in_place(getattr(Tensor, f"__{name}__"), sign))
    Tensor.__setitem__ = _set_item


_install()
