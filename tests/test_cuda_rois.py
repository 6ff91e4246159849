"""Operators on RoIs and boxes on the GPU: both ways to add gradients up, checks of values there, and odd boxes."""

import numpy as np
import pytest
from cases import compare, of

import kernels
from kernels import cuda
from kernels.cuda.device import SIMULATED

pytestmark = pytest.mark.cuda
naive = kernels.get("naive")
BOTH = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
#: Pairs of boxes that the simulator gets through in a few seconds.
_FEW_BOXES = 130


def _is_quick(case):
    return not SIMULATED or len(case.inputs(np.float32)["boxes"]) <= _FEW_BOXES


@BOTH
@pytest.mark.parametrize("case", [case for case in of("suppression") if _is_quick(case)], ids=str)
def test_suppression_equals_naive(case, dtype):
    compare("cuda", case, dtype)


@pytest.fixture(params=[True, False], ids=["deterministic", "atomic"])
def _either_way(request):
    cuda.use_deterministic(request.param)
    yield
    cuda.use_deterministic(True)


_SOME = ("ratio-1_o2", "ratio2_o5x3_scale4", "o2", "one_bin", "large_adaptive", "map_1x1", "no_rois", "channels7")


@BOTH
@pytest.mark.usefixtures("_either_way")
@pytest.mark.parametrize("case", [case for case in of("roi_pool", "roi_align") if case.name.endswith(_SOME)], ids=str)
def test_gradients_either_way(case, dtype):
    compare("cuda", case, dtype)


def test_what_use_deterministic_takes():
    assert cuda.is_deterministic()
    with pytest.raises(TypeError, match="flag is 1; expected True or False"):
        cuda.use_deterministic(1)


def _map_and_rois(dtype=np.float32, boxes=((0, 1, 1, 6, 7), (1, 3, 0.5, 9, 4), (0, 2, 2, 2.5, 8))):
    rng = np.random.default_rng(4)
    return rng.standard_normal((2, 5, 9, 11)).astype(dtype), np.array(boxes, dtype)


@BOTH
@pytest.mark.parametrize("ratio", [-1, 2])
@pytest.mark.parametrize("aligned", [False, True])
def test_huge_and_far_boxes(dtype, ratio, aligned):
    big = 1e30 if dtype == np.float32 else 1e250
    boxes = [(0, -big, -1e5, big, 1e5), (1, -4e7, -1e9, 3e7, 1e9), (0, 5e8, 5e8, 6e8, 6e8), (1, 2, 3, big, 3)]
    x, rois = _map_and_rois(dtype, boxes)
    for function, how in (("roi_align", {"sampling_ratio": ratio, "aligned": aligned}), ("roi_pool", {})):
        expected = getattr(naive, f"{function}_forward")(x, rois, 2, **how)
        actual = getattr(cuda, f"{function}_forward")(x, rois, 2, **how)
        on_device = getattr(cuda, f"{function}_forward")(cuda.to_device(x), cuda.to_device(rois), 2, **how)
        if function == "roi_align":
            expected, actual, on_device = (expected,), (actual,), (on_device,)
        for one, two, three in zip(expected, actual, on_device, strict=True):
            np.testing.assert_allclose(cuda.to_host(two), one, rtol=1e-5, atol=1e-6)
            np.testing.assert_array_equal(cuda.to_host(three), cuda.to_host(two))


@pytest.mark.usefixtures("_either_way")
@pytest.mark.parametrize("output_size", [1, (3, 2), (12, 9)])
def test_values_on_the_device_give_what_those_of_the_host_give(output_size):
    x, rois = _map_and_rois()
    x_there, rois_there = cuda.to_device(x), cuda.to_device(rois)
    before = cuda.transfers()
    y = cuda.roi_align_forward(x_there, rois_there, output_size, 0.5, aligned=True)
    dx = cuda.roi_align_backward(y, rois_there, x.shape, 0.5, aligned=True)
    best, argmax = cuda.roi_pool_forward(x_there, rois_there, output_size)
    dbest = cuda.roi_pool_backward(best, rois_there, argmax, x.shape)
    after = cuda.transfers()
    # each call copies its verdict of three numbers, and nothing else
    assert (after.to_device, after.to_host - before.to_host) == (before.to_device, 4)
    assert after.to_host_bytes - before.to_host_bytes == 4 * 3 * 4
    y, dx, best, argmax, dbest = map(cuda.to_host, (y, dx, best, argmax, dbest))
    expected = naive.roi_align_forward(x, rois, output_size, 0.5, aligned=True)
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(dx, naive.roi_align_backward(y, rois, x.shape, 0.5, aligned=True), rtol=1e-5, atol=1e-5)
    for one, two in zip((best, argmax), naive.roi_pool_forward(x, rois, output_size), strict=True):
        np.testing.assert_array_equal(one, two)
    np.testing.assert_allclose(dbest, naive.roi_pool_backward(best, rois, argmax, x.shape), rtol=1e-5, atol=1e-5)


_WRONG = [
    ((0, 1, np.nan, 3, 4), "row 1 of rois has y1 nan"),
    ((0, 1, 1, np.inf, 4), "row 1 of rois has x2 inf"),
    ((2, 1, 1, 3, 4), "row 1 of rois has batch index 2"),
    ((-1, 1, 1, 3, 4), "row 1 of rois has batch index -1"),
    ((0.5, 1, 1, 3, 4), "row 1 of rois has batch index 0.5"),
    ((np.nan, 1, 1, 3, 4), "row 1 of rois has batch index nan"),
    ((0, 2e38, 1, 2.5e38, 4), "row 1 of rois has x1 2e.38; expected a number that stays finite"),
    ((0, -1.5e38, 1, 1.5e38, 4), "row 1 of rois has x1 -1.5e.38 and x2"),
    ((0, 3, 1, 2, 4), "row 1 of rois has x2 2, less than x1 3"),
]


@pytest.mark.parametrize("there", [False, True], ids=["host", "device"])
@pytest.mark.parametrize(("row", "message"), _WRONG)
def test_wrong_rois_are_refused_in_the_same_words(row, message, there):
    x, rois = _map_and_rois(boxes=((1, 1, 1, 2, 2), row))
    place = cuda.to_device if there else np.asarray
    dy = np.zeros((2, 5, 2, 2), np.float32)
    with pytest.raises(ValueError, match=message):
        cuda.roi_align_forward(x, place(rois), 2, 2.0, aligned=True)
    with pytest.raises(ValueError, match=message):
        cuda.roi_align_backward(dy, place(rois), x.shape, 2.0, aligned=True)
    if "less than" not in message:
        with pytest.raises(ValueError, match=message):
            cuda.roi_pool_forward(x, place(rois), 2, 2.0)
    if "expected a number that" not in message and "and x2" not in message and "less than" not in message:
        with pytest.raises(ValueError, match=message):
            cuda.roi_pool_backward(dy, place(rois), np.zeros(dy.shape, np.int32), x.shape)
    # and the next call works
    assert cuda.roi_align_forward(x, place(rois[:1]), 2, aligned=True).shape == (1, 5, 2, 2)


@pytest.mark.usefixtures("_either_way")
@pytest.mark.parametrize("there", [False, True], ids=["host", "device"])
@pytest.mark.parametrize("place", [-2, 99, 2**31 - 1])
def test_places_outside_the_map_are_refused(place, there):
    x, rois = _map_and_rois()
    dy = np.ones((3, 5, 2, 2), np.float32)
    argmax = np.zeros(dy.shape, np.int32)
    argmax[2, 4, 1, 1] = place
    if there:
        argmax, rois = cuda.to_device(argmax), cuda.to_device(rois)
    with pytest.raises(ValueError, match="argmax has values from .*; expected -1 to 98"):
        cuda.roi_pool_backward(dy, rois, argmax, x.shape)


def test_int64_places_are_refused_on_the_device():
    x, rois = _map_and_rois()
    dy = np.ones((3, 5, 2, 2), np.float32)
    argmax = np.zeros(dy.shape, np.int64)
    assert cuda.roi_pool_backward(dy, rois, argmax, x.shape).shape == x.shape
    with pytest.raises(TypeError, match="argmax has dtype int64; expected int32 on the device"):
        cuda.roi_pool_backward(dy, rois, cuda.to_device(argmax), x.shape)


@pytest.mark.parametrize("there", [False, True], ids=["host", "device"])
def test_wrong_boxes_are_refused_in_the_same_words(there):
    place = cuda.to_device if there else np.asarray
    good, bad = np.ones((3, 4), np.float32), np.ones((3, 4), np.float32)
    bad[2, 1] = np.inf
    scores, no_scores = np.ones(3, np.float32), np.array([1, np.nan, 0], np.float32)
    masks = np.ones((3, 1, 2, 2), np.float32)
    with pytest.raises(ValueError, match="b has y1 inf in row 2"):
        cuda.box_iou(place(good), place(bad))
    with pytest.raises(ValueError, match="boxes has y1 inf in row 2"):
        cuda.nms(place(bad), place(scores), 0.5)
    with pytest.raises(ValueError, match="scores has nan in row 1"):
        cuda.nms(place(good), place(no_scores), 0.5)
    bad[2, 1] = 2**31
    with pytest.raises(ValueError, match="boxes has y1 2147483648.0 in row 2"):
        cuda.paste_masks(place(masks), place(bad), (5, 6))
    scores[1] = np.inf  # which scores may be; and boxes without area are all kept
    np.testing.assert_array_equal(cuda.to_host(cuda.nms(place(good), place(scores), 0.5)), [1, 0, 2])


@BOTH
@pytest.mark.parametrize("scores", ["equal", "signed zeros", "rising"])
def test_suppression_of_equal_boxes(dtype, scores):
    # 33 boxes apart, each twice, which is two more than a word holds
    corner = np.tile(np.arange(33, dtype=dtype) * 10, 2)
    boxes = np.stack([corner, 0 * corner, corner + 5, 0 * corner + 5], axis=1)
    values = {"equal": np.ones(66), "signed zeros": np.tile([0.0, -0.0], 33), "rising": np.arange(66.0)}
    arguments = boxes, values[scores].astype(dtype), 0.5
    np.testing.assert_array_equal(cuda.to_host(cuda.nms(*arguments)), naive.nms(*arguments))
