import json

import numpy as np
import pytest

import tinyseg
from tinyseg import Tensor, explain, ops

RAMP = np.tile(np.arange(8.0), (8, 1))


def test_a_ramp_by_hand():
    # a cell is one more than its left neighbour: RoIAlign goes up by one per cell, RoIPool takes the box's last cell
    drag = explain.roi_drag(RAMP, [1, 1, 3, 3], output_size=1)
    assert drag.offsets[1] == 1 / 16 and drag.offsets[-1] == 2
    np.testing.assert_array_equal(drag.outputs["roi_pool"].ravel(), 3 + (drag.offsets >= 0.5) + (drag.offsets >= 1.5))
    np.testing.assert_array_equal(drag.outputs["roi_align"].ravel(), 2 + drag.offsets)
    np.testing.assert_array_equal(drag.outputs["roi_align_aligned"].ravel(), 1.5 + drag.offsets)
    assert [(jump.offset, jump.step, jump.size) for jump in drag.jumps["roi_pool"]] == [(0.5, 7, 1.0), (1.5, 23, 1.0)]
    slopes = drag.derivatives["roi_pool"].ravel()
    assert np.flatnonzero(np.isnan(slopes)).tolist() == [7, 23] and np.nansum(np.abs(slopes)) == 0
    assert drag.jumps["roi_align"] == drag.jumps["roi_align_aligned"] == []
    np.testing.assert_array_equal(drag.derivatives["roi_align"], 1)
    assert drag.numbers("roi_pool") == {
        "steps": 32, "unchanged": 30, "jumps": 2, "largest_jump": 1.0, "largest_slope": 0.0,
    }  # fmt: skip
    assert drag.numbers("roi_align")["unchanged"] == 0


def test_lengths_are_picture_pixels(rng):
    x = rng.standard_normal((7, 9))
    small = explain.roi_drag(x, [1, 1, 4, 4], output_size=2, distance=1)
    large = explain.roi_drag(x, [4, 4, 16, 16], output_size=2, spatial_scale=0.25, step=0.25, distance=4)
    for op in small.outputs:
        np.testing.assert_array_equal(small.outputs[op], large.outputs[op])
        np.testing.assert_array_equal(small.derivatives[op], 4 * large.derivatives[op])
    assert explain.roi_drag(x, [4, 4, 16, 16], output_size=2, spatial_scale=0.25).offsets[-1] == 8


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_outputs_are_those_of_the_kernels(rng, dtype):
    x = rng.standard_normal((2, 3, 8, 9)).astype(dtype)
    drag = explain.roi_drag(
        Tensor(x), [1, 2.3, 1.1, 7.7, 6.2], output_size=(2, 3), sampling_ratio=-1, axis="y", step=0.3, distance=2
    )
    assert len(drag.offsets) == 8
    for i, offset in enumerate(drag.offsets):
        box = np.array([[1, *(np.array([2.3, 1.1, 7.7, 6.2]).astype(dtype) + [0, offset, 0, offset])]]).astype(dtype)
        expected = {
            "roi_pool": ops.roi_pool(Tensor(x), box, (2, 3)),
            "roi_align": ops.roi_align(Tensor(x), box, (2, 3), aligned=False),
            "roi_align_aligned": ops.roi_align(Tensor(x), box, (2, 3), aligned=True),
        }
        for op, y in expected.items():
            assert drag.outputs[op].dtype == dtype
            np.testing.assert_array_equal(drag.outputs[op][i], y.numpy()[0])


def test_along_y_is_along_x_of_the_transposed_map(rng):
    x = rng.standard_normal((6, 9))
    down = explain.roi_drag(x, [2, 1, 6, 3], output_size=(2, 3), axis="y")
    right = explain.roi_drag(x.T, [1, 2, 3, 6], output_size=(3, 2), axis="x")
    for op in down.outputs:
        np.testing.assert_allclose(down.outputs[op], right.outputs[op].swapaxes(2, 3), rtol=1e-13, atol=1e-15)
        assert [jump.offset for jump in down.jumps[op]] == [jump.offset for jump in right.jumps[op]]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_roi_align_jumps_where_a_sample_leaves_the_map(dtype):
    # one sample, at 4 + offset on a map of 6 cells: kept up to exactly 6, and then 0
    drag = explain.roi_drag(
        np.ones((6, 6), dtype), [3, 1, 5, 3], output_size=1, sampling_ratio=1, distance=3, ops="roi_align"
    )
    (jump,) = drag.jumps["roi_align"]
    assert 2 < jump.offset <= 2 + 1 / 16 / 4096 and jump.size == 1 and jump.bins.all()
    assert jump.before.item() == 1 and jump.after.item() == 0
    slopes = drag.derivatives["roi_align"].ravel()
    assert np.isnan(slopes[32]) and not np.delete(slopes, 32).any()


def test_crops_jump_where_a_sample_passes_the_last_cell():
    # the right samples lie at (4 + offset) * 5 / 6, and leave the map beyond cell 5
    drag = explain.roi_drag(np.ones((6, 6)), [1, 1, 4, 4], output_size=2, distance=3, ops="crop_and_resize")
    (jump,) = drag.jumps["crop_and_resize"]
    assert 2 <= jump.offset <= 2 + 1 / 16 / 4096
    assert jump.bins[0].tolist() == [[False, True], [False, True]]


def test_crops_are_those_of_the_microscope(rng):
    x = rng.standard_normal((7, 9))
    drag = explain.roi_drag(x, [3, 2, 30, 31], output_size=(2, 3), spatial_scale=0.25, step=1, ops="crop_and_resize")
    for i, offset in enumerate(drag.offsets):
        trace = explain.roi(
            x, [3 + offset, 2, 30 + offset, 31], "crop_and_resize", output_size=(2, 3), spatial_scale=0.25
        )
        np.testing.assert_allclose(
            drag.outputs["crop_and_resize"][i], trace.output.reshape(1, 2, 3), rtol=1e-12, atol=1e-14
        )


def test_two_jumps_within_a_step_are_told_apart(rng):
    # corners at .2 and .7 are rounded up after .3 and .8 pixels, both in the first step
    drag = explain.roi_drag(rng.standard_normal((9, 9)), [1.2, 1, 5.7, 4], output_size=4, step=1, ops="roi_pool")
    assert [round(jump.offset, 2) for jump in drag.jumps["roi_pool"] if jump.step == 0] == [0.3, 0.8]


def test_roi_align_jumps_where_rounding_changes_the_number_of_samples(rng):
    # bins of 2 cells: 2 or 3 samples each, as the last digit of the box's size has it
    x = rng.standard_normal((12, 12))
    adaptive, fixed = (
        explain.roi_drag(
            x, [0.1, 1, 4.1, 5], output_size=2, sampling_ratio=ratio, step=0.1, distance=4, ops="roi_align"
        ).jumps["roi_align"]
        for ratio in (0, 2)
    )
    assert adaptive and fixed == []
    for jump in adaptive:
        sizes = {(4.1 + offset) - (0.1 + offset) for offset in (jump.offset, jump.offset - 0.1 / 4096)}
        assert len({np.ceil(size / 2) for size in sizes}) == 2


def test_a_steep_slope_is_no_jump():
    x = np.zeros((8, 8))
    x[:, 4] = 1e6
    drag = explain.roi_drag(x, [2, 2, 4, 4], output_size=2, sampling_ratio=1, ops="roi_align_aligned")
    assert drag.jumps["roi_align_aligned"] == [] and drag.numbers("roi_align_aligned")["largest_slope"] == 1e6


def test_table_and_json(rng):
    drag = explain.roi_drag(rng.standard_normal((7, 7)), [4, 4, 20, 18], output_size=2, spatial_scale=0.25, step=0.25)
    text = str(drag)
    assert "moved along x by 8 picture pixels (2 cells), 0.25 at a time" in text
    row = next(line for line in text.splitlines() if line.startswith("RoIPool")).split()
    numbers = drag.numbers("roi_pool")
    assert row[1:4] == [str(numbers[name]) for name in ("steps", "unchanged", "jumps")]
    whole = json.loads(drag.to_json())
    assert whole["offsets"] == drag.offsets.tolist() and set(whole["operators"]) == set(drag.outputs)
    pool = whole["operators"]["roi_pool"]
    assert np.array(pool["outputs"]).shape == (33, 1, 2, 2) and len(pool["jumps_at"]) == pool["jumps"] == 2
    slopes = np.array(pool["derivatives"], float)
    np.testing.assert_array_equal(slopes, drag.derivatives["roi_pool"])


def test_figure_breaks_lines_at_jumps_and_names_bins():
    drag = explain.roi_drag(RAMP, [1, 1, 3, 3], output_size=(1, 2))
    figure = drag.figure()
    titles = [axes.get_title().strip() for axes in figure.axes]
    assert titles[:5:2] == ["RoIPool", "RoIAlign, not aligned", "RoIAlign, aligned"]
    line = figure.axes[0].lines[2]  # after two lines that mark the jumps
    at, height = line.get_data()
    assert np.isnan(height).sum() == 2 and at[np.isnan(height)].tolist() == [0.5, 1.5]
    assert [text.get_text() for text in figure.legends[0].get_texts()][:2] == ["bin (0, 0)", "bin (0, 1)"]
    assert len(drag.figure(bins=[(0, 1)]).legends[0].get_texts()) == 3
    for wrong in ({"channel": 1}, {"bins": [(1, 0)]}, {"bins": []}):
        with pytest.raises(ValueError, match=f"^{next(iter(wrong))} "):
            drag.figure(**wrong)


def test_nothing_is_changed(rng):
    x = rng.standard_normal((5, 5))
    copy, state = x.copy(), tinyseg.random.get_state()
    explain.roi_drag(x, [0, 0, 3, 3], output_size=2).figure()
    np.testing.assert_array_equal(x, copy)
    assert tinyseg.random.get_state() == state


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"features": np.full((4, 4), np.nan)}, ValueError, "features has values that are not finite"),
        ({"features": np.zeros(4)}, ValueError, r"features has shape \(4,\); expected \(H, W\)"),
        ({"features": np.array([["a"]])}, TypeError, "features has dtype <U1; expected numbers"),
        ({"features": np.zeros((2, 1, 4, 4))}, ValueError, "roi has boxes of four numbers for 2 pictures"),
        ({"roi": [[0, 0, 1, 1]] * 2}, ValueError, "roi has 2 boxes; expected one"),
        ({"roi": [0, 0, 1]}, ValueError, r"roi has shape \(1, 3\)"),
        ({"axis": "z"}, ValueError, "axis is 'z'; expected 'x' or 'y'"),
        ({"step": 0}, ValueError, "step is 0; expected a number above 0"),
        ({"distance": 0.01}, ValueError, "distance is 0.01; expected 1 to 100000 steps of 0.0625"),
        ({"step": 1e-9}, ValueError, "distance is 2.0; expected 1 to 100000 steps of 1e-09"),
        ({"spatial_scale": 0}, ValueError, "spatial_scale is 0.0; expected more than 0"),
        ({"output_size": 1.5}, TypeError, "output_size is 1.5; expected a whole number"),
        ({"features": [[1, 2], [3]]}, ValueError, "features has rows of different lengths"),
        ({"ops": None}, TypeError, "ops is None; expected names of operators"),
        ({"output_size": (0, 1)}, ValueError, "output_size is 0; expected at least 1"),
        ({"ops": ("roi_pool", "pool")}, ValueError, "ops has 'pool'; expected some of 'roi_pool'"),
        ({"spatial_scale": -1.0, "distance": 2}, ValueError, "spatial_scale is -1.0; expected more than 0"),
    ],
)
def test_what_does_not_fit_is_said(change, error, words):
    arguments = {"features": RAMP, "roi": [0, 0, 2, 2], "output_size": 1} | change
    with pytest.raises(error, match=words):
        explain.roi_drag(arguments.pop("features"), arguments.pop("roi"), **arguments)
