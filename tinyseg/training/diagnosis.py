"""Where a NaN or infinity came from: the first layer that made one."""

from contextlib import contextmanager, suppress

import numpy as np

from tinyseg.backend import moved
from tinyseg.tensor import Tensor
from tinyseg.training.task import total


def find_not_finite(model, pictures, losses_of):
    """Run a training step's forward and backward pass again and watch every layer.

    Parameters
    ----------
    model : tinyseg.nn.Module
        With the weights that the failing step had.
    pictures : array of float, or list of arrays
        The failing step's pictures, on the host or the device.
    losses_of : callable
        Called without arguments; runs the model on them and returns its losses, a dict of Tensors of one value.

    Returns
    -------
    str or None
        What was found, to follow "NaN or infinity: ", naming the first layer in the order of computation; None if all
        values and gradients are finite.
    """
    pictures = pictures if isinstance(pictures, list) else [pictures]
    if not all(np.isfinite(moved(picture, "cpu")).all() for picture in pictures):
        return "the pictures of the batch hold it already"
    seen: list[tuple] = []
    losses: dict = {}
    # a detector refuses NaN by an error
    with np.errstate(all="ignore"), suppress(ValueError, FloatingPointError), _watched(model, seen):
        losses = losses_of()
    for name, module, largest in seen:
        if not np.isfinite(largest):
            return f"the first layer whose output has it is {name} ({type(module).__name__}){_cause(module)}"
    with np.errstate(all="ignore"):
        for name, loss in losses.items():
            if not np.isfinite(loss.to("cpu").numpy()).all():
                name = "the loss" if len(losses) == 1 else name
                return f"{name} itself makes it, after a last layer's output as large as {seen[-1][2]:.3g}"
        if losses:
            return _find_in_gradients(model, seen, total(losses))
    return None


def _find_in_gradients(model, seen, loss):
    """Run the backward pass and return the first layer whose gradient is not finite, in words, or None."""
    for parameter in model.parameters():
        parameter.grad = None
    loss.backward()
    for name, module, _ in reversed(seen):  # gradients come back from the last layer to the first
        for own, parameter in module.named_parameters():
            if parameter.grad is not None and not np.isfinite(parameter.grad.to("cpu").numpy()).all():
                return f"the first layer whose gradient has it is {name} ({type(module).__name__}), in its {own}"
    return None


def first_not_finite(state):
    """Return the name of the first array of a state dict that holds NaN or infinity, or None."""
    for name, value in state.items():
        array = value.to("cpu").numpy() if isinstance(value, Tensor) else np.asarray(value)
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            return name
    return None


def _cause(module):
    """Say so where the layer's own weights hold it already."""
    bad = first_not_finite(dict(module.named_parameters()))
    return "" if bad is None else f", because its {bad} has it already: the step before was too large"


@contextmanager
def _watched(model, seen):
    """Append (name, module, largest magnitude of its output) to ``seen`` whenever a layer without parts has run."""
    handles = [
        module.register_forward_hook(_watching(name, seen))
        for name, module in model.named_modules()
        if not list(module.children())
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _watching(name, seen):
    """Return a forward hook that notes how large the output is: NaN or infinity where it has one."""

    def watching(module, args, output):
        sizes = [float(np.abs(array).max(initial=0)) for array in _arrays(output)]
        seen.append((name, module, float(np.max(sizes, initial=0))))

    return watching


def _arrays(output):
    """Yield the floating-point arrays of a layer's output, which may be a dict or list of tensors."""
    if isinstance(output, (list, tuple, dict)):
        for item in output.values() if isinstance(output, dict) else output:
            yield from _arrays(item)
        return
    array = output.to("cpu").numpy() if isinstance(output, Tensor) else output
    if isinstance(array, np.ndarray) and array.dtype.kind == "f":
        yield array
