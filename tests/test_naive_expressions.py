"""The naive kernels against loop-free NumPy, over the whole table of cases."""

import numpy as np
import numpy_expressions
import numpy_expressions_boxes
import numpy_expressions_rois
import pytest
from cases import evaluate, of, upstream
from tolerances import EXACT_RESULTS, TOLERANCES, assert_close

import kernels

EXPRESSIONS = numpy_expressions.EXPRESSIONS | numpy_expressions_rois.EXPRESSIONS | numpy_expressions_boxes.EXPRESSIONS


def in_float64(value):
    """Return arrays of floats as float64, in lists too."""
    if isinstance(value, list):
        return [in_float64(item) for item in value]
    return value.astype(np.float64) if isinstance(value, np.ndarray) and value.dtype.kind == "f" else value


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("case", of(), ids=str)
def test_naive_kernel_equals_expression(case, dtype):
    inputs = {name: in_float64(value) for name, value in case.inputs(dtype).items()}
    if case.operator in ("upsample2d", "roi_pool", "roi_align", "iou", "suppression", "pasting"):
        inputs["dtype"] = dtype
    expression = EXPRESSIONS[case.forward.removesuffix("_forward")]
    with np.errstate(all="ignore"):  # infinite and undefined values are part of some cases
        expected = expression(inputs, lambda y: in_float64(upstream(y.astype(dtype))), **case.parameters)
        actual = evaluate("naive", case, dtype)
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        fraction = 0.0 if (case.operator, name) in EXACT_RESULTS else TOLERANCES[case.operator].of(dtype)
        if value is not None and value.dtype.kind == "f":
            value = value.astype(dtype)
        assert_close(actual[name], value, fraction, case.scale, f"{case} {name}")


def test_every_function_has_cases_and_an_expression():
    forward = {name.removesuffix("_forward") for names in kernels.CONTRACT.values() for name in names[::2]}
    assert forward == set(EXPRESSIONS)
    assert forward == {case.forward.removesuffix("_forward") for case in of()}
    assert set(kernels.CONTRACT) == set(TOLERANCES)
