"""The stored torchvision numbers of the operators on boxes, on every backend."""

import numpy as np
import pytest
from reference_arrays import stored

import kernels

BACKENDS = pytest.mark.parametrize("backend", kernels.BACKENDS)
DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
BOXES, MASKS = stored("boxes"), stored("paste_masks")
KEPT = [key for key in BOXES if key.startswith("nms_") and "/keep" in key]


def test_all_cases_are_read():
    assert len(KEPT) == 5 + 5 + 5 + 5 + 1


@BACKENDS
@pytest.mark.parametrize("key", KEPT)
def test_nms(backend, key):
    case, _, threshold = key.replace("/keep", "/keep_").replace("__", "_").partition("/keep_")
    kept = kernels.get(backend).nms(BOXES[f"{case}/boxes"], BOXES[f"{case}/scores"], float(threshold or 0.5))
    np.testing.assert_array_equal(kept, BOXES[key])
    assert kept.dtype == np.int64


@BACKENDS
@DTYPES
@pytest.mark.parametrize(
    ("a", "b", "iou"),
    [("box_iou/a", "box_iou/b", "box_iou/iou"), ("nms_degenerate/boxes",) * 2 + ("nms_degenerate/iou",)],
)
def test_box_iou(backend, dtype, a, b, iou):
    computed = kernels.get(backend).box_iou(BOXES[a].astype(dtype), BOXES[b].astype(dtype))
    assert computed.dtype == dtype
    if dtype == np.float32:  # the same operations in the same order, so the same bits
        np.testing.assert_array_equal(computed, BOXES[iou])
    np.testing.assert_allclose(computed, BOXES[iou], rtol=1e-5, atol=1e-6)


@BACKENDS
@DTYPES
@pytest.mark.parametrize("case", ["M28", "M14"])
def test_paste_masks(backend, dtype, case):
    masks, boxes, expected = (MASKS[f"{case}/{name}"] for name in ("masks", "boxes", "y"))
    pasted = kernels.get(backend).paste_masks(masks.astype(dtype), boxes.astype(dtype), expected.shape[2:])
    assert pasted.dtype == dtype
    # the stored numbers are float32's, whose places along a box differ from float64's by some roundings
    np.testing.assert_allclose(pasted, expected, rtol=0, atol=1e-6 if dtype == np.float32 else 5e-6)
    if dtype == np.float32:
        np.testing.assert_array_equal(np.packbits(pasted > 0.5), MASKS[f"{case}/binary"])
