"""How a network is run to be looked at: on which pictures, for which loss, and so that it is afterwards as before."""

from contextlib import contextmanager

import numpy as np

from tinyseg import random
from tinyseg.explain import checks
from tinyseg.models import GeneralizedRCNN
from tinyseg.tensor import Tensor, no_grad


def pictures_of(model, shape):
    """Return pictures in the form that a network takes."""
    given = shape if isinstance(shape, np.ndarray) and shape.ndim > 1 else None
    if given is not None and given.dtype.kind not in "fiub":
        raise TypeError(f"shape is an array of dtype {given.dtype}; expected pictures of numbers, or whole numbers")
    shape = checks.wholes("shape", shape if given is None else given.shape, "whole numbers")
    detector = isinstance(model, GeneralizedRCNN)
    if detector and len(shape) == 3:
        shape = (1, *shape)
    if len(shape) != 4 or min(shape) < 1:
        expected = "(N, C, H, W) or (C, H, W)" if detector else "(N, C, H, W)"
        raise ValueError(f"shape is {shape}; expected {expected}, each at least 1")
    parameter = next(model.parameters(), None)
    values = np.random.default_rng(0).random(shape) if given is None else given.reshape(shape)
    values = values.astype(np.float32 if parameter is None else parameter.dtype)
    return list(values) if detector else Tensor(values)


@contextmanager
def unchanged(model):
    """Leave a network, and the source of chance, as they were."""
    modes = [(module, module.training) for module in model.modules()]
    buffers = [(buffer, buffer.array, buffer.array.copy()) for buffer in model.buffers()]
    gradients = [(parameter, parameter.grad) for parameter in model.parameters()]
    chance, own = random.get_state(), getattr(model, "generator", None)
    own_chance = None if own is None else own.bit_generator.state
    try:
        for parameter, _ in gradients:
            parameter.grad = None  # not to be added to
        yield
    finally:
        for module, mode in modes:
            module.training = mode
        for buffer, array, values in buffers:
            array[...] = values
            buffer.array = array
        for parameter, gradient in gradients:
            parameter.grad = gradient
        random.set_state(chance)
        if own is not None:
            own.bit_generator.state = own_chance


def run(model, pictures, backward):
    """Run a network on pictures, with ``backward`` as in a step of training."""
    if not backward:
        with no_grad():
            model(pictures)
        return
    loss = _loss_of(model, pictures)
    if not loss.requires_grad:
        raise ValueError("nothing in model requires gradients; backward=True needs a parameter that does")
    loss.backward()


def _loss_of(model, pictures):
    """Return the sum of all that a network puts out."""
    if isinstance(model, GeneralizedRCNN):
        outputs = model(pictures, [_made_up_object(model, *picture.shape[1:]) for picture in pictures])
    else:
        outputs = model(pictures)
    sums = [tensor.sum() for tensor in tensors_in(outputs)]
    return sum(sums[1:], sums[0])


def _made_up_object(model, height, width):
    """Return the truth of a picture with one object in its middle."""
    box = np.array([[width / 4, height / 4, 3 * width / 4, 3 * height / 4]], np.float32)
    mask = np.zeros((1, height, width), np.uint8)
    mask[:, height // 4 : -(-3 * height // 4), width // 4 : -(-3 * width // 4)] = 1
    truth = {"boxes": box, "labels": np.array([1])}
    return {**truth, "masks": mask} if model.roi_heads.has_mask() else truth


def tensors_in(value):
    """Return the tensors in what a network puts out."""
    if isinstance(value, Tensor):
        return [value]
    if not isinstance(value, dict | list | tuple):
        raise TypeError(f"the output has a {type(value).__name__}; expected Tensors, alone or in lists and dicts")
    parts = value.values() if isinstance(value, dict) else value
    return [tensor for part in parts for tensor in tensors_in(part)]
