"""The function whose gradients are checked, as one of float64 arrays by name."""

import inspect
from collections.abc import Mapping

import numpy as np

from tinyseg import random
from tinyseg.backend import moved
from tinyseg.explain.networks.runs import tensors_in
from tinyseg.nn import Module
from tinyseg.tensor import Tensor, array_of


class Subject:
    """The function under test, as one of named float64 arrays that may be changed in place."""

    def __init__(self, function, inputs, backward, parameters, state):
        self._function, self._backward, self._state = function, backward, state
        self._inputs, self._by_name = _named_inputs(function, inputs)
        self.arrays = {name: value for name, value in self._inputs.items() if _is_float(value)}
        self._parameters = parameters
        if self._backward is not None and self._parameters:
            raise ValueError("parameters are given with backward; expected those as inputs of the function")
        for name, tensor in self._parameters.items():
            tensor.array = np.array(moved(tensor.array, "cpu"), np.float64)
            self.arrays[name if name not in self.arrays else f"parameter {name}"] = tensor.array
        if not self.arrays:
            raise ValueError("inputs has no array of floats, and there are no parameters: nothing to check")

    def _call(self, inputs):
        random.set_state(self._state)
        return self._function(**inputs) if self._by_name else self._function(*inputs.values())

    def outputs(self):
        """Return all outputs as one vector."""
        if self._backward is not None:
            return np.array(_first(self._call(dict(self._inputs))), np.float64).ravel()
        return _vector(self._used(tensors_in(self._call(self._as_tensors()))))

    def gradients(self, cotangents):
        """Return for each cotangent the gradient of its product with the outputs, by name."""
        if self._backward is not None:
            return [self._of_pair(v) for v in cotangents]
        tensors = self._as_tensors(requires_grad=True)
        outputs = self._used(tensors_in(self._call(tensors)))
        ends = np.cumsum([one.size for one in outputs])[:-1]
        found = []
        leaves = [*(tensors[name] for name in self._inputs if _is_float(self._inputs[name])),
                  *self._parameters.values()]  # fmt: skip
        for v in cotangents:
            for leaf in leaves:
                leaf.grad = None
            for one, part in zip(outputs, np.split(v, ends), strict=True):
                one.backward(part.reshape(one.shape), retain_graph=True)
            zeros = (np.zeros(leaf.shape) if leaf.grad is None else moved(leaf.grad.array, "cpu") for leaf in leaves)
            found.append({name: np.array(grad) for name, grad in zip(self.arrays, zeros, strict=True)})
        return found

    def _used(self, outputs):
        """Return those outputs through which gradients flow."""
        if not hasattr(self, "_flowing"):
            with_tape = tensors_in(self._call(self._as_tensors(requires_grad=True)))
            self._flowing = [tensor.requires_grad for tensor in with_tape]
            if not any(self._flowing):
                raise ValueError("no gradient flows from the output of function to its inputs or parameters")
        return [tensor for tensor, flows in zip(outputs, self._flowing, strict=True) if flows]

    def _as_tensors(self, requires_grad=False):
        return {
            name: Tensor(value, requires_grad=requires_grad) if _is_float(value)
            else Tensor(value) if isinstance(value, np.ndarray) else value
            for name, value in self._inputs.items()
        }  # fmt: skip

    def _of_pair(self, v):
        inputs = dict(self._inputs)
        result = self._call(inputs)
        found = self._backward(v.reshape(np.shape(_first(result))), result, *inputs.values())
        found = found if isinstance(found, tuple | list) else (found,)
        if len(found) != len(self.arrays):
            raise ValueError(f"backward returned {len(found)} gradients; expected {len(self.arrays)}, one per input")
        made = {name: np.asarray(gradient, np.float64) for name, gradient in zip(self.arrays, found, strict=True)}
        for name, gradient in made.items():
            if gradient.shape != self.arrays[name].shape:
                raise ValueError(
                    f"backward returned a gradient of shape {gradient.shape} for {name}; "
                    f"expected {self.arrays[name].shape}"
                )
        return made


def _is_float(value):
    return isinstance(value, np.ndarray) and value.dtype.kind == "f"


def _first(result):
    return result[0] if isinstance(result, tuple | list) else result


def _vector(tensors):
    return np.concatenate([np.array(moved(one.array, "cpu"), np.float64).ravel() for one in tensors])


def _named_inputs(function, inputs):
    """Return inputs by name, floats as float64 copies, and whether they are handed over by name."""
    if isinstance(inputs, Mapping):
        named, by_name = dict(inputs), True
    else:
        inputs = (
            list(inputs) if isinstance(inputs, tuple | list) and not (inputs and np.isscalar(inputs[0])) else [inputs]
        )
        named, by_name = dict(zip(_names(function, len(inputs)), inputs, strict=True)), False
    for name, value in named.items():
        if isinstance(value, Tensor | np.ndarray | list | tuple | float):
            array = np.array(moved(array_of(value), "cpu"))
            named[name] = array.astype(np.float64, "C") if array.dtype.kind == "f" else array
    return named, by_name


def _names(function, count):
    """Return the names of the first arguments of a function, or numbers."""
    try:
        target = function.forward if isinstance(function, Module) else function
        kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        names = [p.name for p in inspect.signature(target).parameters.values() if p.kind in kinds]
    except (TypeError, ValueError):
        names = []
    return names[:count] if len(names) >= count else [f"input {i}" for i in range(count)]
