"""The shared table of cases: what every backend is run on, and compared over.

Each case names an operator of ``kernels.CONTRACT``, its forward and backward functions, a builder of seeded inputs for
a floating type, and parameters. ``compare`` runs one case, forward and backward, against the naive kernels::

    import numpy as np
    import pytest
    from cases import compare, of


    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    @pytest.mark.parametrize("case", of("conv2d"), ids=str)
    def test_conv2d(case, dtype):
        compare("cpu", case, dtype)

A new operator needs its rows in one of the files ``case_rows_*.py``, an entry in ``_BACKWARD`` below that says how its
gradient is called, if it has one, and a row in ``tolerances.py``. ``evaluate`` gives the results by name: ``y``,
what else the forward returns, ``dx``, ...
"""

import case_rows_boxes
import case_rows_layers
import case_rows_losses
import case_rows_rois
import numpy as np
from tolerances import EXACT_RESULTS, TOLERANCES, assert_close

import kernels


def module_of(backend):
    """Return the functions of a backend; those of "cuda" return NumPy arrays here."""
    if backend != "cuda":
        return kernels.get(backend)
    import cuda_backend  # only where there is a GPU, or the simulator

    return cuda_backend


def of(*operators):
    """Return the cases of the given operators, or all."""
    return [case for case in CASES if not operators or case.operator in operators]


def upstream(y):
    """Return the gradient of the output that the tests use: seeded normal numbers of y's shape and type."""
    return np.asarray(np.random.default_rng(21).standard_normal(y.shape), y.dtype)


def evaluate(backend, case, dtype):
    """Return every result of a case by name: the forward ones, then the gradients.

    Parameters
    ----------
    backend : str
        Name of a backend of ``kernels``, or ``"cuda"``.
    case : Case
        What to call.
    dtype : dtype
        float32 or float64.

    Returns
    -------
    dict of str to ndarray or None
        ``running_mean`` and ``running_var`` of batch_norm are there as the call left them.
    """
    module = module_of(backend)
    inputs = case.inputs(dtype)
    output = getattr(module, case.forward)(**inputs, **{k: v for k, v in case.parameters.items() if k != "needs"})
    names = _OUTPUTS.get(case.operator, ("y",))
    results = dict(zip(names, output if isinstance(output, tuple) else (output,), strict=True))
    if case.backward is None:
        return results
    backward = getattr(module, case.backward)
    results |= _BACKWARD[case.operator](backward, upstream(results["y"]), inputs, results, case.parameters)
    for name in ("running_mean", "running_var"):
        if name in inputs:
            results[name] = inputs[name]
    return results


def compare(backend, case, dtype):
    """Run a case forward and backward and check every result against the naive kernels, within tolerances.py."""
    actual, expected = evaluate(backend, case, dtype), evaluate("naive", case, dtype)
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        fraction = 0.0 if (case.operator, name) in EXACT_RESULTS else TOLERANCES[case.operator].of(dtype)
        assert_close(actual[name], value, fraction, case.scale, f"{case} {np.dtype(dtype)} {name}")


# ---- how each backward is called ------------------------------------------------------------------------------------

_OUTPUTS = {"max_pool2d": ("y", "indices"), "roi_pool": ("y", "argmax"), "batch_norm": ("y", "mean", "inv_std")}


def _weighted(backward, dy, inputs, results, parameters):
    gradients = backward(dy, inputs["x"], inputs["weight"], **parameters)
    return dict(zip(("dx", "dweight", "dbias"), gradients, strict=True))


def _batch_norm(backward, dy, inputs, results, parameters):
    gradients = backward(
        dy, inputs["x"], inputs["gamma"], results["mean"], results["inv_std"], training=parameters["training"]
    )
    return dict(zip(("dx", "dgamma", "dbeta"), gradients, strict=True))


def _max_pool2d(backward, dy, inputs, results, parameters):
    return {"dx": backward(dy, results["indices"], inputs["x"].shape)}


def _roi_pool(backward, dy, inputs, results, parameters):
    return {"dx": backward(dy, inputs["rois"], results["argmax"], inputs["x"].shape)}


def _roi_align(backward, dy, inputs, results, parameters):
    how = {name: value for name, value in parameters.items() if name != "output_size"}
    return {"dx": backward(dy, inputs["rois"], inputs["x"].shape, **how)}


def _upsample2d(backward, dy, inputs, results, parameters):
    return {"dx": backward(dy, inputs["x"].shape, **parameters)}


def _from_output(backward, dy, inputs, results, parameters):
    return {"dx": backward(dy, results["y"], **parameters)}


def _add(backward, dy, inputs, results, parameters):
    da, db = backward(dy, inputs["a"].shape, inputs["b"].shape)
    return {"da": da, "db": db}


def _concat(backward, dy, inputs, results, parameters):
    axis = parameters.get("axis", 1)
    gradients = backward(dy, [a.shape[axis] for a in inputs["arrays"]], **parameters)
    return {f"darrays[{i}]": gradient for i, gradient in enumerate(gradients)}


def _loss(backward, dy, inputs, results, parameters):
    return {"dx": backward(dy, **inputs, **parameters)}


_BACKWARD = {
    "conv2d": _weighted,
    "conv_transpose2d": _weighted,
    "linear": _weighted,
    "batch_norm": _batch_norm,
    "max_pool2d": _max_pool2d,
    "roi_pool": _roi_pool,
    "roi_align": _roi_align,
    "upsample2d": _upsample2d,
    "relu": _from_output,
    "sigmoid": _from_output,
    "softmax": _from_output,
    "add": _add,
    "concat": _concat,
    "binary_cross_entropy": _loss,
    "cross_entropy": _loss,
    "smooth_l1": _loss,
    "sigmoid_focal": _loss,
    "dice": _loss,
}

CASES = [*case_rows_layers.rows(), *case_rows_losses.rows(), *case_rows_rois.rows(), *case_rows_boxes.rows()]
