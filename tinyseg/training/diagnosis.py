"""Where a NaN or infinity came from: the first layer that made one."""

from contextlib import contextmanager

import numpy as np

from tinyseg.tensor import Tensor


def find_not_finite(model, loss_of, x):
    """Run a training step's forward and backward pass again and watch every layer.

    Parameters
    ----------
    model : tinyseg.nn.Module
        With the weights that the failing step had. Its ``logits`` are what ``loss_of`` takes.
    loss_of : callable
        From logits (Tensor) to the loss (Tensor of one value).
    x : ndarray of float, shape (N, C, H, W)
        The failing step's pictures.

    Returns
    -------
    str or None
        What was found, to follow "NaN or infinity: ", naming the first layer in the order of computation; None if all
        values and gradients are finite.
    """
    if not np.isfinite(x).all():
        return "the pictures of the batch hold it already"
    seen: list[tuple] = []
    with np.errstate(all="ignore"), _watched(model, seen):
        logits = model.logits(Tensor(x))
    for name, module, finite in seen:
        if not finite:
            return f"the first layer whose output has it is {name} ({type(module).__name__}){_cause(module)}"
    with np.errstate(all="ignore"):
        loss = loss_of(logits)
        if not np.isfinite(loss.numpy()).all():
            return f"the loss itself makes it, from logits as large as {np.abs(logits.numpy()).max():.3g}"
        for parameter in model.parameters():
            parameter.grad = None
        loss.backward()
    for name, module, _ in reversed(seen):  # gradients come back from the last layer to the first
        for own, parameter in module.named_parameters():
            if parameter.grad is not None and not np.isfinite(parameter.grad.numpy()).all():
                return f"the first layer whose gradient has it is {name} ({type(module).__name__}), in its {own}"
    return None


def first_not_finite(state):
    """Return the name of the first array of a state dict that holds NaN or infinity, or None."""
    for name, value in state.items():
        array = value.numpy() if hasattr(value, "numpy") else np.asarray(value)
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            return name
    return None


def _cause(module):
    """Say so where the layer's own weights hold it already."""
    bad = first_not_finite(dict(module.named_parameters()))
    return "" if bad is None else f", because its {bad} has it already: the step before was too large"


@contextmanager
def _watched(model, seen):
    """Append (name, module, whether its output is finite) to ``seen`` whenever a layer without parts has run."""
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
    """Return a forward hook that notes whether the output is finite."""

    def watching(module, args, output):
        seen.append((name, module, bool(np.isfinite(output.numpy()).all())))

    return watching
