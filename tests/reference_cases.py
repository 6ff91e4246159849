"""The stored PyTorch numbers, each case turned into calls of a backend.

``results(module, case, dtype)`` gives what the kernels compute, under the names that the stored tensors have;
``assert_reproduces`` compares them.
"""

import json
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tolerances import TOLERANCES

FOLDER = Path(__file__).parent / "reference"


class Stored(NamedTuple):
    """One stored case: parameters of the call, tensors by name, and float32's own error per tensor."""

    group: str
    name: str
    parameters: dict
    tensors: dict
    err: dict

    def __str__(self):
        return f"{self.group}-{self.name}"


@lru_cache
def load(group):
    """Return the cases of one file of the folder ``reference``."""
    with np.load(FOLDER / f"{group}.npz", allow_pickle=False) as file:
        arrays = {key: file[key] for key in file.files}
    cases = []
    for name, case in json.loads(str(arrays["meta"]))["cases"].items():
        tensors = {key.split("/")[1]: array for key, array in arrays.items() if key.startswith(f"{name}/")}
        cases.append(Stored(group, name, case["params"], tensors, case.get("err", {})))
    return cases


def all_cases():
    """Return every stored case, except frozen batch normalisation, which is a layer's business."""
    return [case for group in _RUN for case in load(group) if not case.name.startswith("frozen")]


def results(module, case, dtype):
    """Return what the kernels of ``module`` compute for a case, by the names of the stored tensors."""
    stored = {
        name: array if array.dtype.kind == "i" else np.asarray(array, dtype) for name, array in case.tensors.items()
    }
    return _RUN[case.group](module, case, stored)


def assert_reproduces(module, case, dtype):
    """Run a case and compare every result with the stored one.

    A value may differ by twice the stored difference of float32 and float64 (ours and PyTorch's are so far
    from the truth), and by the operator's tolerance, relative to itself and to the largest value up to 1.
    """
    found = results(module, case, dtype)
    computed = ("y", "g_", "indices", "argmax", "running_mean", "running_var")
    outputs = {name for name in case.tensors if name.startswith(computed)}
    outputs -= {"running_mean", "running_var", "running_mean0", "running_var0"}
    assert found.keys() == outputs, "every stored result is computed, and nothing else"
    for name in sorted(outputs):
        _assert_near(found[name], case, name, dtype)


def _assert_near(actual, case, name, dtype):
    expected = case.tensors[name]
    label = f"{case} {name}"
    assert actual.shape == expected.shape, f"{label}: shape {actual.shape}, expected {expected.shape}"
    if expected.dtype.kind == "i":
        np.testing.assert_array_equal(actual, expected, label)
        return
    assert actual.dtype == dtype, f"{label}: {actual.dtype}"
    finite = np.isfinite(expected)
    np.testing.assert_array_equal(actual[~finite], expected[~finite], label)
    if (case.group in ("max_pool2d", "roi_pool") and name == "y") or not finite.any():
        np.testing.assert_array_equal(actual, expected, label)
        return
    good = np.abs(expected[finite].astype(np.float64))
    fraction = TOLERANCES[_OPERATOR.get(case.group, "cross_entropy")].float32
    bound = 2 * case.err.get(name, 0.0) + fraction * (good + min(1.0, good.max()))
    difference = np.abs(actual[finite].astype(np.float64) - expected[finite])
    worst = np.argmax(difference / bound)
    assert (difference <= bound).all(), f"{label}: differs by {difference[worst]:.3g}, allowed {bound[worst]:.3g}"


_OPERATOR = {
    "conv2d": "conv2d",
    "conv_transpose2d": "conv_transpose2d",
    "batch_norm": "batch_norm",
    "max_pool2d": "max_pool2d",
    "roi_pool": "roi_pool",
    "roi_align": "roi_align",
    "interpolate": "upsample2d",
}


# ---- one runner per file --------------------------------------------------------------------------------------------


def _convolution(function, keys):
    def run(module, case, t):
        parameters = {key: case.parameters[key] for key in keys}
        bias = t.get("b")
        found = {"y": getattr(module, f"{function}_forward")(t["x"], t["w"], bias, **parameters)}
        needs = (True, True, bias is not None)
        gradients = getattr(module, f"{function}_backward")(t["gy"], t["x"], t["w"], **parameters, needs=needs)
        found |= dict(zip(("g_x", "g_w", "g_b"), gradients, strict=True))
        return {name: array for name, array in found.items() if array is not None}

    return run


def _batch_norm(module, case, t):
    eps = case.parameters["eps"]
    gamma, beta = t.get("gamma"), t.get("beta")
    found = {}

    def call(x, gy, running_mean, running_var, training, momentum, suffix):
        y, mean, inv_std = module.batch_norm_forward(
            x, gamma, beta, running_mean, running_var, training, momentum=momentum, eps=eps
        )
        dx, dgamma, dbeta = module.batch_norm_backward(gy, x, gamma, mean, inv_std, training)
        found.update({f"y{suffix}": y, f"g_x{suffix}": dx})
        if gamma is not None:
            found.update({f"g_gamma{suffix}": dgamma, f"g_beta{suffix}": dbeta})

    if "steps" not in case.parameters:
        call(t["x"], t["gy"], t["running_mean"], t["running_var"], False, 0.1, "")
        return found
    running_mean, running_var = t["running_mean0"].copy(), t["running_var0"].copy()
    for step in range(1, case.parameters["steps"] + 1):
        momentum = case.parameters["momentum"]
        if momentum is None:  # the plain average of all batches so far
            momentum = 1 / step
        call(t[f"x{step}"], t[f"gy{step}"], running_mean, running_var, True, momentum, str(step))
        found |= {f"running_mean{step}": running_mean.copy(), f"running_var{step}": running_var.copy()}
    call(t["x1"], t["gy_eval"], running_mean, running_var, False, 0.1, "_eval")
    return found


def _max_pool2d(module, case, t):
    parameters = {("kernel_size" if key == "kernel" else key): value for key, value in case.parameters.items()}
    y, indices = module.max_pool2d_forward(t["x"], **parameters)
    return {"y": y, "indices": indices, "g_x": module.max_pool2d_backward(t["gy"], indices, t["x"].shape)}


def _roi_pool(module, case, t):
    size, scale = case.parameters["output_size"], case.parameters["spatial_scale"]
    y, argmax = module.roi_pool_forward(t["x"], t["rois"], size, scale)
    found = {"y": y, "argmax": argmax}
    if "gy" in t:
        found["g_x"] = module.roi_pool_backward(t["gy"], t["rois"], argmax, t["x"].shape)
    return found


def _roi_align(module, case, t):
    p, rois = case.parameters, t["rois"]
    how = {name: p[name] for name in ("spatial_scale", "sampling_ratio", "aligned")}
    kept = np.ones(len(rois), bool)
    if p["aligned"] and p["sampling_ratio"] <= 0 and "roi_names" in p:
        # reversed along both axes: torchvision gives 0 and no gradient, here it is an error, as along one axis
        kept = np.array(p["roi_names"]) != "rev_both"
    y = np.zeros(t["gy"].shape, rois.dtype)
    y[kept] = module.roi_align_forward(t["x"], rois[kept], p["output_size"], **how)
    return {"y": y, "g_x": module.roi_align_backward(t["gy"][kept], rois[kept], t["x"].shape, **how)}


def _interpolate(module, case, t):
    parameters = dict(case.parameters)
    if parameters.pop("recompute_scale_factor", False):  # PyTorch: the step follows from the sizes, not the factor
        parameters = parameters | {"scale_factor": None, "size": t["y"].shape[2:]}
    y = module.upsample2d_forward(t["x"], **parameters)
    return {"y": y, "g_x": module.upsample2d_backward(t["gy"], t["x"].shape, **parameters)}


_LOSSES = {
    "bce_logits": "binary_cross_entropy_with_logits",
    "bce_prob": "binary_cross_entropy",
    "ce": "cross_entropy",
    "smooth_l1": "smooth_l1",
    "focal": "sigmoid_focal",
    "dice": "dice",
}


def _losses(module, case, t):
    function = next(name for prefix, name in _LOSSES.items() if case.name.startswith(prefix))
    parameters = dict(case.parameters)
    scores = "p" if "p" in t else "x"
    if "weight" in parameters:
        parameters["weight"] = np.asarray(parameters["weight"], t[scores].dtype)
    parameters |= {name: t[key] for name, key in (("weight", "w"), ("pos_weight", "pos_weight")) if key in t}
    y = getattr(module, f"{function}_forward")(t[scores], t["t"], **parameters)
    gradient = getattr(module, f"{function}_backward")(t["gy"], t[scores], t["t"], **parameters)
    return {"y": y, f"g_{scores}": gradient}


_RUN = {
    "conv2d": _convolution("conv2d", ("stride", "padding", "dilation", "groups")),
    "conv_transpose2d": _convolution("conv_transpose2d", ("stride", "padding", "output_padding", "dilation", "groups")),
    "batch_norm": _batch_norm,
    "max_pool2d": _max_pool2d,
    "roi_pool": _roi_pool,
    "roi_align": _roi_align,
    "interpolate": _interpolate,
    "losses": _losses,
}
