"""Gradients against central differences in float64, over every element of small tensors, on every backend.

For a loss ``sum(y * dy)`` the gradient of each input element is compared with ``(loss(x + h) - loss(x - h)) / 2h``.
Inputs keep away from ties and kinks. With h = 1e-5 the error is about h^2 = 1e-10 from curvature and 1e-16 / h = 1e-11
from rounding, so 1e-7 of the largest gradient (or of 0.1) leaves room, and still sees any wrong term.
"""

from typing import Any, NamedTuple

import numpy as np
import pytest

import kernels

H = 1e-5
TOLERANCE = 1e-7


class Check(NamedTuple):
    """One operator on small inputs: which of them vary, and how its backward function is called."""

    function: str
    name: str
    inputs: dict
    parameters: dict
    varied: tuple
    gradients: Any  # (backward, dy, inputs, forward's results, parameters) -> gradients in the order of varied

    def __str__(self):
        return f"{self.function}-{self.name}"


def _first(output):
    """Return y of what forward returned."""
    return output[0] if isinstance(output, tuple) else output


def _weighted(backward, dy, inputs, output, parameters):
    return backward(dy, inputs["x"], inputs["weight"], **parameters)


def _batch_norm(backward, dy, inputs, output, parameters):
    return backward(dy, inputs["x"], inputs["gamma"], output[1], output[2], parameters["training"])


def _max_pool2d(backward, dy, inputs, output, parameters):
    return (backward(dy, output[1], inputs["x"].shape),)


def _roi_pool(backward, dy, inputs, output, parameters):
    return (backward(dy, inputs["rois"], output[1], inputs["x"].shape),)


def _roi_align(backward, dy, inputs, output, parameters):
    how = {name: value for name, value in parameters.items() if name != "output_size"}
    return (backward(dy, inputs["rois"], inputs["x"].shape, **how),)


def _upsample2d(backward, dy, inputs, output, parameters):
    return (backward(dy, inputs["x"].shape, **parameters),)


def _from_output(backward, dy, inputs, output, parameters):
    return (backward(dy, output, **parameters),)


def _add(backward, dy, inputs, output, parameters):
    return backward(dy, inputs["a"].shape, inputs["b"].shape)


def _loss(backward, dy, inputs, output, parameters):
    return (backward(dy, **inputs, **parameters),)


def _normal(seed, **shapes):
    rng = np.random.default_rng(seed)
    return {name: rng.standard_normal(shape) for name, shape in shapes.items()}


def _distinct(shape):
    """Return values at least 0.1 apart from each other and from 0, in random order."""
    size = int(np.prod(shape))
    values = 0.1 * np.arange(size) - 0.05 * size + 0.025
    return np.random.default_rng(5).permutation(values).reshape(shape)


def _convolutions():
    for name, x, weight, parameters in (
        ("plain", (1, 2, 4, 5), (3, 2, 3, 3), {}),
        ("stride_padding", (2, 2, 4, 5), (2, 2, 3, 3), {"stride": 2, "padding": 1}),
        ("asymmetric", (1, 2, 5, 6), (2, 2, 2, 3), {"stride": (2, 1), "padding": (0, 2), "dilation": (1, 2)}),
        ("groups", (1, 4, 3, 4), (2, 2, 2, 2), {"groups": 2, "padding": 1}),
        ("depthwise", (1, 3, 4, 3), (3, 1, 3, 3), {"groups": 3, "padding": 1}),
        ("k1", (2, 3, 2, 3), (2, 3, 1, 1), {}),
    ):
        inputs = _normal(1, x=x, weight=weight, bias=weight[:1])
        yield Check("conv2d", name, inputs, parameters, ("x", "weight", "bias"), _weighted)
    for name, x, weight, parameters in (
        ("k2_s2", (2, 2, 2, 3), (2, 3, 2, 2), {"stride": 2}),
        ("overlapping", (1, 2, 3, 4), (2, 2, 3, 3), {"stride": 2, "padding": 1, "output_padding": 1}),
        ("asymmetric", (1, 2, 3, 2), (2, 2, 2, 3), {"stride": (1, 3), "dilation": (2, 1), "output_padding": (1, 2)}),
        ("groups", (1, 4, 2, 3), (4, 2, 2, 2), {"groups": 2}),
    ):
        inputs = _normal(2, x=x, weight=weight, bias=(weight[1] * parameters.get("groups", 1),))
        yield Check("conv_transpose2d", name, inputs, parameters, ("x", "weight", "bias"), _weighted)
    inputs = _normal(3, x=(3, 4), weight=(2, 4), bias=(2,))
    yield Check("linear", "plain", inputs, {}, ("x", "weight", "bias"), _weighted)


def _layers():
    for training in (True, False):
        inputs = _normal(4, x=(3, 2, 2, 3), gamma=(2,), beta=(2,), running_mean=(2,))
        inputs["running_var"] = np.array([0.5, 2.0])
        parameters = {"training": training}
        name = "training" if training else "evaluation"
        yield Check("batch_norm", name, inputs, parameters, ("x", "gamma", "beta"), _batch_norm)
    for name, parameters in (
        ("k2", {"kernel_size": 2}),
        ("overlapping", {"kernel_size": 3, "stride": 1, "padding": 1}),
        ("dilated_ceil", {"kernel_size": (2, 3), "stride": 2, "dilation": (2, 1), "ceil_mode": True}),
    ):
        yield Check("max_pool2d", name, {"x": _distinct((1, 2, 5, 6))}, parameters, ("x",), _max_pool2d)
    for name, parameters in (
        ("nearest", {"scale_factor": 2}),
        ("nearest_down", {"size": (2, 3)}),
        ("bilinear", {"scale_factor": (1.5, 2), "mode": "bilinear"}),
        ("bilinear_down", {"size": (2, 3), "mode": "bilinear"}),
        ("bilinear_corners", {"size": (7, 3), "mode": "bilinear", "align_corners": True}),
    ):
        yield Check("upsample2d", name, _normal(6, x=(1, 2, 4, 5)), parameters, ("x",), _upsample2d)
    yield Check("relu", "plain", {"x": _distinct((3, 7))}, {}, ("x",), _from_output)
    yield Check("sigmoid", "plain", _normal(7, x=(3, 7)), {}, ("x",), _from_output)
    yield Check("softmax", "plain", _normal(8, x=(2, 4, 3)), {}, ("x",), _from_output)
    yield Check("softmax", "axis0", _normal(8, x=(4, 3)), {"axis": 0}, ("x",), _from_output)
    yield Check("add", "broadcast", _normal(9, a=(2, 1, 4), b=(3, 1)), {}, ("a", "b"), _add)


def _rois():
    corners = [[2, 1, 9, 11], [-6, 3, 8, 20], [4.2, 4.1, 4.4, 4.2], [30, 30, 50, 50], [0, 0, 12, 10]]
    rois = np.column_stack([[0, 1, 0, 1, 0], corners])
    for name, parameters in (("o2", {"output_size": 2}), ("overlapping_bins", {"output_size": (5, 3)})):
        inputs = {"x": _distinct((2, 2, 5, 6)), "rois": rois}
        yield Check("roi_pool", name, inputs, parameters | {"spatial_scale": 0.5}, ("x",), _roi_pool)
    for aligned in (True, False):
        for ratio in (-1, 1, 2, 3):
            parameters = {"output_size": (2, 3), "spatial_scale": 0.5, "sampling_ratio": ratio, "aligned": aligned}
            inputs = _normal(13, x=(2, 2, 5, 6)) | {"rois": rois}
            yield Check("roi_align", f"ratio{ratio}_{aligned}", inputs, parameters, ("x",), _roi_align)


def _losses():
    rng = np.random.default_rng(10)
    shape = (3, 4)
    x = _distinct(shape)
    soft, hard = rng.uniform(0.1, 0.9, shape), rng.integers(0, 2, shape).astype(float)
    weight, pos_weight = rng.uniform(0.5, 2, (4,)), rng.uniform(0.5, 2, (3, 1))
    # away from x by other than the betas below, where the slope bends
    offset = x + rng.choice([-1.7, -0.3, 0.04, 0.6, 2.2], shape)
    classes = np.array([[0, 3, 2], [1, -100, 3]])
    scores = _distinct((2, 4, 3))

    for how in ("none", "mean", "sum"):
        for function, name, inputs, parameters in (
            ("binary_cross_entropy", "plain", {"p": soft, "target": hard}, {}),
            ("binary_cross_entropy", "weight", {"p": soft, "target": soft[::-1].copy(), "weight": weight}, {}),
            ("binary_cross_entropy_with_logits", "plain", {"x": x, "target": hard}, {}),
            (
                "binary_cross_entropy_with_logits",
                "weights",
                {"x": x, "target": soft, "weight": weight, "pos_weight": pos_weight},
                {},
            ),
            ("cross_entropy", "plain", {"x": scores, "target": classes}, {}),
            ("cross_entropy", "all", {"x": scores, "target": classes, "weight": weight}, {"label_smoothing": 0.2}),
            ("smooth_l1", "beta1", {"x": x, "target": offset}, {"beta": 1.0}),
            ("smooth_l1", "beta1_9", {"x": x, "target": offset}, {"beta": 1 / 9}),
            ("smooth_l1", "beta0", {"x": x, "target": offset}, {"beta": 0.0}),
            ("sigmoid_focal", "plain", {"x": x, "target": hard}, {}),
            ("sigmoid_focal", "soft", {"x": x, "target": soft}, {"alpha": -1, "gamma": 1.5}),
            ("dice", "whole", {"x": x, "target": hard}, {}),
            ("dice", "per_sample", {"x": x, "target": soft}, {"per_sample": True, "smooth": 0.5}),
        ):
            varied = ("p",) if "p" in inputs else ("x",)
            yield Check(function, f"{name}_{how}", inputs, parameters | {"reduction": how}, varied, _loss)


CHECKS = [*_convolutions(), *_layers(), *_rois(), *_losses()]


@pytest.mark.parametrize("check", CHECKS, ids=str)
@pytest.mark.parametrize("backend", kernels.BACKENDS)
def test_gradient_equals_central_differences(backend, check):
    module = kernels.get(backend)
    forward = getattr(module, f"{check.function}_forward")
    output = forward(**check.inputs, **check.parameters)
    rng = np.random.default_rng(11)
    dy = np.asarray(rng.uniform(0.5, 1.5, _first(output).shape) * rng.choice([-1, 1], _first(output).shape))
    backward = getattr(module, f"{check.function}_backward")
    gradients = check.gradients(backward, dy, check.inputs, output, check.parameters)

    def loss(name, changed):
        return np.sum(_first(forward(**check.inputs | {name: changed}, **check.parameters)) * dy)

    for name, gradient in zip(check.varied, gradients, strict=True):
        expected = np.empty_like(check.inputs[name])
        for index in np.ndindex(expected.shape):
            higher, lower = check.inputs[name].copy(), check.inputs[name].copy()
            higher[index] += H
            lower[index] -= H
            expected[index] = (loss(name, higher) - loss(name, lower)) / (2 * H)
        allowed = TOLERANCE * max(0.1, np.abs(expected).max())
        assert gradient.shape == expected.shape
        assert np.abs(gradient - expected).max() <= allowed, f"{check}: gradient of {name}"
        assert np.abs(expected).max() > 1e-3, "the check sees something"


@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("backend", kernels.BACKENDS)
def test_concat_gradient_equals_central_differences(backend, axis):
    module, rng = kernels.get(backend), np.random.default_rng(12)
    arrays = [rng.standard_normal((2, 3)), rng.standard_normal((2, 3))]
    dy = rng.standard_normal(module.concat_forward(arrays, axis).shape)
    gradients = module.concat_backward(dy, [a.shape[axis] for a in arrays], axis)
    for i, gradient in enumerate(gradients):
        for index in np.ndindex(gradient.shape):
            higher, lower = [a.copy() for a in arrays], [a.copy() for a in arrays]
            higher[i][index] += H
            lower[i][index] -= H
            change = module.concat_forward(higher, axis) - module.concat_forward(lower, axis)
            assert abs(gradient[index] - np.sum(change * dy) / (2 * H)) <= TOLERANCE


def test_every_operator_is_checked():
    checked = {f"{check.function}_backward" for check in CHECKS} | {"concat_backward"}
    assert checked == {name for names in kernels.CONTRACT.values() for name in names if name.endswith("_backward")}
