"""The RoI microscope: traces whose contributions add up to what the kernels return, and numbers worked out by hand."""

import json
import math

import numpy as np
import pytest
from random_rois import MODES

import kernels
from tinyseg import Tensor, explain

BOTH = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
LOWEST = -3.4028234663852886e38


def ramp(dtype=np.float64):
    """Return a map of 5x5 cells that holds 0 to 24."""
    return np.arange(25, dtype=dtype).reshape(5, 5)


# ---- numbers worked out by hand --------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize(
    ("aligned", "ratio", "expected"),
    [(False, 2, [[3, 4], [8, 9]]), (True, 1, [[0, 1], [5, 6]]), (True, 2, [[0.75, 1.625], [5.125, 6]])],
)
def test_align_on_a_ramp(aligned, ratio, expected, dtype):
    how = {"sampling_ratio": ratio, "aligned": aligned}
    trace = explain.roi(ramp(dtype), (0, 0, 2, 2), output_size=2, **how)
    assert trace.output.tolist() == [expected] and trace.output.dtype == trace.dtype == dtype


@BOTH
@pytest.mark.parametrize(("aligned", "top_left"), [(False, 7.5), (True, 4.5)])
def test_align_of_bins_smaller_than_cells(aligned, top_left, dtype):
    trace = explain.roi(ramp(dtype), (1, 1, 3, 3), output_size=4, aligned=aligned)
    assert trace.output[0, 0, 0] == top_left and trace.samples_per_bin() == (1, 1)
    (sample,) = trace.samples(0, 0)
    assert (sample.y, sample.x) == ((1.25, 1.25) if not aligned else (0.75, 0.75))


def test_every_number_of_one_bin_by_hand():
    """Box 0 to 2, half a cell off: -0.5 to 1.5. Samples of the first bin: -0.25, moved to 0, and 0.25."""
    trace = explain.roi(ramp(), (0, 0, 2, 2), output_size=2, sampling_ratio=2, aligned=True)
    assert (trace.roi, trace.scaled, trace.box) == ((0, 0, 2, 2), (0, 0, 2, 2), (-0.5, -0.5, 1.5, 1.5))
    assert trace.rows.edges.tolist() == trace.columns.edges.tolist() == [-0.5, 0.5, 1.5]
    samples = trace.samples(0, 0)
    assert [(s.y, s.x) for s in samples] == [(-0.25, -0.25), (-0.25, 0.25), (0.25, -0.25), (0.25, 0.25)]
    assert [tuple(cell) for cell in samples[3].cells] == [
        (0, 0, 0.5625, 0), (0, 1, 0.1875, 1), (1, 0, 0.1875, 5), (1, 1, 0.0625, 6)
    ]  # fmt: skip
    assert [cell.weight for cell in samples[0].cells] == [1, 0, 0, 0]
    assert [s.value for s in samples] == [0, 0.25, 1.25, 1.5]
    assert [s.contribution for s in samples] == [0, 0.0625, 0.3125, 0.375]  # a quarter each: 0.75 in all
    expected = np.zeros((5, 5))
    expected[:2, :2] = np.outer([0.875, 0.125], [0.875, 0.125])
    np.testing.assert_array_equal(trace.weights(0, 0), expected)


def test_a_box_of_pixels_is_scaled_first():
    trace = explain.roi(ramp(), (8, 16, 24, 48), output_size=1, spatial_scale=1 / 16, aligned=False, sampling_ratio=1)
    assert trace.scaled == trace.box == (0.5, 1, 1.5, 3)
    assert trace.output.item() == 5 * 2 + 1


@pytest.mark.parametrize(("place", "values"), [(-1, [0]), (-1.01, []), (5, [20]), (5.01, [])])
def test_a_sample_one_cell_beyond_the_border_is_kept(place, values):
    """Samples in a column: at -1 and H they are moved to the first and last row; beyond, they are not read."""
    how = {"sampling_ratio": 1, "aligned": False}
    trace = explain.roi(ramp(), (-0.5, place - 0.5, 0.5, place + 0.5), output_size=1, **how)
    (sample,) = trace.samples(0, 0)
    assert (sample.y, sample.x) == (place, 0)
    assert (sample.on_map, [sample.value] if sample.on_map else []) == (bool(values), values)
    assert trace.output.item() == (values or [0])[0] and len(sample.cells) == 4 * len(values)


def test_a_box_without_size():
    """Forced to one cell if not aligned; otherwise no samples in the adaptive mode, and all at one place in others."""
    box = (2, 2, 2, 2)
    forced = explain.roi(ramp(), box, output_size=1, aligned=False)
    assert (forced.box, forced.output.item()) == ((2, 2, 3, 3), 5 * 2.5 + 2.5)
    none = explain.roi(ramp(), box, output_size=1, aligned=True)
    assert (none.samples_per_bin(), none.samples(0, 0), none.output.item()) == ((0, 0), [], 0)
    (four,) = explain.roi(ramp(), box, output_size=1, aligned=True, sampling_ratio=2).samples(0, 0)
    assert (four.y, four.x, four.times, four.value, four.contribution) == (1.5, 1.5, 4, 9, 9)


def test_a_huge_box_lists_its_samples_on_the_map():
    trace = explain.roi(ramp(np.float32), (-2e9, 1, 2e9, 2), output_size=1, aligned=False)
    assert trace.columns.grid == 4 * 10**9 and trace.columns.on_map.sum() < 20 and trace.columns.on_map.all()
    expected = kernels.get("naive").roi_align_forward(
        trace.features[None], np.array([[0, -2e9, 1, 2e9, 2]], np.float32), 1, aligned=False
    )
    assert trace.output == expected


# ---- RoIPool by hand -------------------------------------------------------------------------------------------------


def test_pool_rounds_halves_away_from_zero_and_bins_overlap():
    """Corners 0.5 and 2.5 become 1 and 3: three cells, which two bins of 1.5 share as 1 to 2 and 2 to 3."""
    trace = explain.roi(ramp(), (0.5, 0.5, 2.5, 2.5), "roi_pool", output_size=2)
    assert trace.box == (1, 1, 3, 3) and trace.rows.bin_size == 1.5
    assert (trace.rows.first.tolist(), trace.rows.stop.tolist()) == ([1, 2], [3, 4])
    assert trace.output.tolist() == [[[12, 13], [17, 18]]] == trace.argmax.tolist()
    assert [tuple(cell) for cell in trace.cells(0, 0)] == [(1, 1, 0, 6), (1, 2, 0, 7), (2, 1, 0, 11), (2, 2, 1, 12)]
    assert trace.weights(0, 0)[2, 2] == 1 == trace.weights(0, 0).sum()
    assert explain.roi(ramp(), (-0.5, -2.5, 1, 1), "roi_pool", output_size=1).box == (-1, -3, 1, 1)


def test_pool_of_a_reversed_box_is_one_cell():
    trace = explain.roi(ramp(), (3, 4, 1, 2), "roi_pool", output_size=1)
    assert (trace.box, trace.output.item(), trace.argmax.item()) == ((3, 4, 3, 4), 23, 23)


def test_pool_empty_bins_ties_and_nan():
    x = np.zeros((4, 4))
    x[0], x[1, 1:] = np.nan, -np.inf
    trace = explain.roi(x, (0, 0, 0, 9), "roi_pool", output_size=(5, 1))
    assert trace.output.ravel().tolist() == [LOWEST * 0 + v for v in (0, 0, 0, 0, 0)]
    assert trace.argmax.ravel().tolist() == [4, 8, -1, -1, -1]  # NaN never wins; of equals the first; no cells: -1
    assert trace.cells(2, 0) == [] and trace.weights(2, 0).sum() == 0
    only = explain.roi(x, (1, 0, 3, 1), "roi_pool", output_size=1)
    assert (only.output.item(), only.argmax.item()) == (LOWEST, -1)


# ---- against the naive kernel ----------------------------------------------------------------------------------------


def test_any_map_of_the_batch_and_any_form_of_the_arguments(rng):
    x = rng.standard_normal((2, 3, 6, 7)).astype(np.float32)
    how = {"output_size": (2, 3), "aligned": True, "sampling_ratio": 2}
    trace = explain.roi(x, (1, 0.5, 1, 4, 5), **how)
    assert trace.picture == 1
    same = [
        explain.roi(Tensor(x), np.array([1, 0.5, 1, 4, 5]), **how),
        explain.roi(x[1], (0.5, 1, 4, 5), **how),
        explain.roi(x[1:], Tensor(np.array([0.5, 1, 4, 5])), **how),
        explain.roi(x.astype(">f4")[:, :, ::-1][:, :, ::-1], (1, 0.5, 1, 4, 5), **how),
    ]
    for other in same:
        np.testing.assert_array_equal(other.output, trace.output)
    for channel in range(3):
        np.testing.assert_array_equal(
            explain.roi(x[1, channel], (0.5, 1, 4, 5), **how).output[0], trace.output[channel]
        )


def test_json_is_strict_and_comes_back(rng):
    x = rng.standard_normal((2, 5, 6)).astype(np.float32)
    x[1, 2, 2:4] = np.nan, -np.inf
    for op, how in (*MODES[:2], MODES[-2], ("crop_and_resize", {})):
        trace = explain.roi(x, (1.3, 2, 14.7, 18), op, output_size=(2, 3), spatial_scale=0.25, **how)
        text = trace.to_json()
        read = json.loads(text, parse_constant=pytest.fail)
        assert read["features"][1][2][2:4] == ["NaN", "-Infinity"] and "NaN" in text
        assert math.isnan(float(read["features"][1][2][2])) and float(read["features"][1][2][3]) == -math.inf
        again = explain.RoITrace.from_json(text)
        assert again.to_json() == text
        np.testing.assert_array_equal(again.output, trace.output)
        assert again.dtype == trace.dtype
        first = json.loads(trace.to_json(0), parse_constant=pytest.fail)
        assert first["output"] == [read["output"][0]] and len(first["features"]) == 1
    with pytest.raises(ValueError, match="text has format None; expected 'tinyseg.explain.roi'"):
        explain.RoITrace.from_json("{}")


def test_the_json_of_samples_adds_up():
    trace = explain.roi(ramp(), (-3, 0, 2, 2), output_size=(1, 2), sampling_ratio=2, aligned=True)
    read = json.loads(trace.to_json())
    for px, made in enumerate(read["bins"][0]):
        down, across = read["rows"]["bins"][0]["samples"], read["columns"]["bins"][px]["samples"]
        pairs = [(a, b) for a in down for b in across]
        assert sum(made["contributions"][0]) == read["output"][0][0][px]
        for (a, b), value in zip(pairs, made["values"][0], strict=True):
            terms = [
                v * w * read["features"][0][row][column]
                for row, v in zip(a["cells"], a["weights"], strict=True)
                for column, w in zip(b["cells"], b["weights"], strict=True)
            ]
            assert sum(terms) == value and (a["on_map"] and b["on_map"]) == bool(terms)
    assert [s["on_map"] for s in read["columns"]["bins"][0]["samples"]] == [False, False]  # -2.875 and -1.625
    assert read["rows"]["bins"][0]["samples"][0]["place"] == -0.0


# ---- mistakes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"op": "roi"}, ValueError, "op is 'roi'; expected one of 'roi_pool', 'crop_and_resize', 'roi_align'"),
        ({"aligned": None}, TypeError, "aligned is None; expected True or False"),
        ({"features": ramp(np.complex64)}, TypeError, "features has dtype complex64; expected numbers"),
        ({"features": np.zeros(5)}, ValueError, r"features has shape \(5,\); expected \(H, W\), .*none of them 0"),
        ({"features": np.zeros((0, 5, 5))}, ValueError, r"features has shape \(0, 5, 5\)"),
        ({"roi": (1, 2, 3)}, ValueError, r"roi has shape \(1, 3\); expected boxes of four"),
        ({"features": np.zeros((2, 1, 5, 5))}, ValueError, r"roi has boxes of four numbers for 2 pictures"),
        ({"roi": (1, 0, 0, 2, 2)}, ValueError, "row 0 of rois has batch index 1; expected a whole number from 0 to 0"),
        ({"roi": (0, math.nan, 2, 2)}, ValueError, "row 0 of rois has y1 nan; expected a finite number"),
        ({"roi": (0, 0, 1e39, 2), "features": ramp(np.float32)}, ValueError, "row 0 of rois has x2 inf"),
        ({"roi": (3, 0, 1, 2)}, ValueError, "row 0 of rois has x2 1, less than x1 3; expected no reversed box"),
        ({"output_size": 0}, ValueError, "output_size is 0; expected at least 1"),
        ({"sampling_ratio": 10**7}, ValueError, "sampling_ratio is 10000000, .* expected at most 4194304 in a trace"),
        ({"sampling_ratio": 10**4}, ValueError, "output_size is .* samples on the map"),
        ({"op": "roi_pool"}, ValueError, "aligned is True; expected None with op 'roi_pool'"),
        (
            {"op": "crop_and_resize", "aligned": None, "sampling_ratio": 2},
            ValueError,
            "sampling_ratio is 2; expected -1 with op 'crop_and_resize', which has no such option",
        ),
    ],
)
def test_mistakes_are_named(change, error, message):
    good = {"features": ramp(), "roi": (0, 0, 2, 2), "output_size": 2, "aligned": True}
    with pytest.raises(error, match=f"^{message}"):
        explain.roi(**good | change)


@pytest.mark.parametrize(
    ("place", "name"), [((2, 0, 0), "py"), ((0, 2, 0), "px"), ((0, 0, 1), "channel"), ((0.5, 0, 0), "py")]
)
def test_bins_and_channels_that_there_are_not(place, name):
    pool = explain.roi(ramp(), (0, 0, 2, 2), "roi_pool", output_size=2)
    align = explain.roi(ramp(), (0, 0, 2, 2), output_size=2, aligned=True)
    for look in (pool.cells, pool.weights, align.samples, align.contributions):
        with pytest.raises(ValueError, match=f"^{name} is .*; expected a whole number from 0 to "):
            look(*place)
    assert align.samples(-1, -1) == align.samples(1, 1)
    for trace, look in ((pool, "samples"), (align, "cells")):
        with pytest.raises(ValueError, match="^op is "):
            getattr(trace, look)(0, 0)
