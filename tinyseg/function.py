"""Function: what one differentiable operator computes, saves, and returns when the tape comes back to it."""

import inspect
import itertools
import re
import weakref
from typing import Any

import numpy as np

from tinyseg.backend import is_on_device
from tinyseg.tensor import Tensor, is_grad_enabled, tensor_over, whole_array
from tinyseg.watching import tell

_serials = itertools.count()


class Function:
    """One differentiable operator; each application on the tape is an object of its class, a node.

    A subclass defines two methods. ``forward(self, *arrays, **parameters)`` takes the inputs as NumPy arrays (None
    where an optional input is left out) and returns the output array, or a tuple of it and further arrays, which carry
    no gradient. ``backward(self, dy)`` takes the gradient of the output and returns one gradient per input, None where
    there is none; with a single input, the gradient alone. Where the tensors lie on the device, all these are device
    arrays, which NumPy's operators and functions take as well, and ``tinyseg.backend.kernel`` runs there.

    In between, ``forward`` sets ``self.saved`` to a tuple of the arrays that ``backward`` will need, and nothing more:
    they are what a training step keeps in memory. Parameters may become plain attributes. ``self.needs`` says which
    inputs' gradients are wanted: both methods may save work by it. A class may say by ``gradients_are_new = True`` that
    what its ``backward`` returns needs no copy to become a parameter's ``grad``. A class whose ``backward`` can add its
    gradient to another array says ``adds_up = True``. Then ``self.onto`` is what other operators' gradients for the
    first input come to so far, None if there are none yet, and the first gradient that it returns is the sum of both, a
    new array.

    Examples
    --------
    >>> import tinyseg
    >>> from tinyseg.function import Function
    >>> class Square(Function):
    ...     def forward(self, x):
    ...         self.saved = (x,)
    ...         return x * x
    ...
    ...     def backward(self, dy):
    ...         (x,) = self.saved
    ...         return 2 * x * dy
    >>> x = tinyseg.Tensor([3.0], requires_grad=True)
    >>> Square.apply(x).sum().backward()
    >>> x.grad
    Tensor([6.])
    """

    saved: Any = ()  # a tuple; None once backward has freed it
    needs: tuple = ()
    gradients_are_new = False  # whether backward returns arrays that share no memory with each other or anything else
    adds_up = False  # whether backward adds the gradient of the first input to ``onto``
    onto: Any = None
    sources: tuple = ()
    _retained = None

    def forward(self, *arrays, **parameters):
        """Return the output for the inputs, and set ``saved``."""
        raise NotImplementedError

    def backward(self, dy):
        """Return the gradient of each input for the gradient of the output."""
        raise NotImplementedError

    @classmethod
    def apply(cls, *inputs, **parameters):
        """Run ``forward`` and put the node on the tape where a gradient is wanted.

        Parameters
        ----------
        *inputs : Tensor or None
            What gradients may flow to. A NumPy array counts as a tensor that requires none.
        **parameters
            Handed to ``forward`` as they are.

        Returns
        -------
        Tensor or tuple of Tensor
            As many as ``forward`` returns arrays.

        Raises
        ------
        TypeError
            If an input is something else.
        """
        node = cls()
        inputs = tuple(node._as_tensor(value, place) for place, value in enumerate(inputs))
        recording = is_grad_enabled()
        node.needs = tuple(recording and tensor is not None and tensor.requires_grad for tensor in inputs)
        arrays = [None if tensor is None else tensor.array for tensor in inputs]
        if len({*map(type, arrays)}) > 1:
            node._check_devices(arrays)
        tell("operator begins", node=node)
        result = node.forward(*arrays, **parameters)
        array, *others = result if isinstance(result, tuple) else (result,)
        output = tensor_over(whole_array(array))
        for tensor in inputs:
            if tensor is not None and np.may_share_memory(output.array, tensor.array):
                output.memory = tensor.memory  # a view
                output.memory.viewed = True
        outputs = (output, *map(tensor_over, others))
        if any(node.needs):
            node._record(inputs, outputs)
        tell("operator", node=node, inputs=inputs, output=output)
        return outputs if others else output

    def _as_tensor(self, value, place):
        """Return an input as a tensor, or None."""
        if value is None or isinstance(value, Tensor):
            return value
        if isinstance(value, np.ndarray) or is_on_device(value):
            return Tensor(value)
        raise TypeError(
            f"{self._place_name(place)} of {self.operator_name()} is a {type(value).__name__}; expected a Tensor"
        )

    def _check_devices(self, arrays):
        """Refuse inputs of which some lie on the device and some do not."""
        places: dict[bool, int] = {}
        for place, array in enumerate(arrays):
            if array is not None:
                places.setdefault(bool(is_on_device(array)), place)
        if len(places) > 1:
            raise ValueError(
                f"{self._place_name(places[True])} of {self.operator_name()} lies on 'cuda' and "
                f"{self._place_name(places[False])} on 'cpu': move one of them by to()"
            )

    def _record(self, inputs, outputs):
        """Link the node to the nodes (or leaves) that made its inputs, and note the state of all it saved."""
        outputs[0].requires_grad = True
        outputs[0].creator = self
        self.serial = next(_serials)
        self.sources = tuple(
            (tensor if tensor.creator is None else tensor.creator) if needed else None
            for tensor, needed in zip(inputs, self.needs, strict=True)
        )
        self._changes_at_save = [
            (tensor.memory, tensor.memory.changes, place)
            for place, tensor in enumerate((*inputs, *outputs))
            if tensor is not None
            and any(array is not None and np.may_share_memory(array, tensor.array) for array in self.saved)
        ]

    def gradients(self, dy, retain, onto=None):
        """Run ``backward`` after checking that all it needs is still there; free it afterwards.

        The first gradient is added to ``onto``, if that is given: only to a function that ``adds_up``.
        """
        if self.saved is None:
            raise RuntimeError(
                f"backward() a second time through {self.operator_name()}: what it saved was freed by the first. "
                "Compute the loss again, or pass retain_graph=True the first time"
            )
        for memory, changes, place in self._changes_at_save:
            if memory.changes != changes:
                raise RuntimeError(
                    f"{self._place_name(place)} of {self.operator_name()} was changed in place after the operator ran "
                    "(by +=, an assignment or an optimiser's step, say), but backward() needs it as it was"
                )
        retained = None if self._retained is None else self._retained()
        if retained is not None:
            retained.add_gradient(dy)
        self.onto = onto
        tell("backward begins", node=self)
        result = self.backward(dy)
        tell("backward", node=self)
        self.onto = None
        if not retain:
            self.saved = None
        return result if isinstance(result, tuple | list) else (result,)

    def keep_gradient_in(self, tensor):
        """Leave the gradient of the output in ``tensor.grad`` when it comes by."""
        self._retained = weakref.ref(tensor)  # the tensor refers to the node: two strong references never die

    @classmethod
    def operator_name(cls):
        """Return the operator's name as in ``tinyseg.ops``: conv_transpose2d for the class ConvTranspose2d."""
        return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", cls.__name__).lower()

    def _place_name(self, place):
        """Return the name that ``forward`` gives to input number ``place``; the number after the last is the output."""
        if self.needs and place >= len(self.needs):
            return "the output"
        names = [p for p in inspect.signature(self.forward).parameters.values() if p.kind is not p.KEYWORD_ONLY]
        if names[min(place, len(names) - 1)].kind is inspect.Parameter.VAR_POSITIONAL:
            return f"input {place}"
        return f"input {names[place].name!r}"
