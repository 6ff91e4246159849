"""The microscope's crop_and_resize: numbers by hand, and TensorFlow's definition written down once more."""

import math

import numpy as np
import pytest
from random_rois import groups

from tinyseg import explain
from tinyseg.explain.rois.calls import pool

BOTH = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])


def crop(features, roi, size, scale=1.0):
    return explain.roi(features, roi, "crop_and_resize", output_size=size, spatial_scale=scale)


def ramp(dtype=np.float64):
    """Return a map of 5x5 cells that holds 0 to 24."""
    return np.arange(25, dtype=dtype).reshape(5, 5)


# ---- by hand ---------------------------------------------------------------------------------------------------------


@BOTH
def test_samples_are_on_the_corners_of_the_box(dtype):
    """A box of half the picture, 0 to 2.5: corners 0 and 0.5, samples at 0 and 2: cells 0, 2, 10 and 12 themselves."""
    trace = crop(ramp(dtype), (0, 0, 2.5, 2.5), 2)
    assert trace.output.tolist() == [[[0, 2], [10, 12]]] and trace.dtype == dtype and trace.box == (0, 0, 2, 2)
    assert [(s.y, s.x) for py in (0, 1) for px in (0, 1) for s in trace.samples(py, px)] == [
        (0, 0), (0, 2), (2, 0), (2, 2)
    ]  # fmt: skip


def test_the_whole_picture_goes_from_the_centre_of_the_first_cell_to_that_of_the_last():
    assert crop(ramp(), (0, 0, 5, 5), 2).output.tolist() == [[[0, 4], [20, 24]]]
    assert crop(ramp(), (0, 0, 80, 80), 3, 1 / 16).output.tolist() == [[[0, 2, 4], [10, 12, 14], [20, 22, 24]]]


def test_steps_between_the_corners():
    """Corners 1.25 and 2.5 are 0.25 and 0.5 of the picture, so 1 and 2: in three steps 1, 1.5, 2."""
    trace = crop(ramp(), (1.25, 0, 2.5, 5), (1, 3))
    assert trace.output.tolist() == [[[11, 11.5, 12]]]  # one bin down: in the middle, row 2
    (sample,) = trace.samples(0, 1)
    assert [tuple(cell) for cell in sample.cells if cell.weight] == [(2, 1, 0.5, 11), (2, 2, 0.5, 12)]


def test_beyond_the_outer_cells_there_is_nothing():
    """Unlike RoIAlign, which moves a sample less than a cell beyond them onto the map."""
    trace = crop(ramp(), (-0.3125, 0, 5.3125, 5), (2, 3))
    assert trace.columns.place.ravel().tolist() == [-0.25, 2, 4.25]
    assert trace.columns.on_map.ravel().tolist() == [False, True, False]
    assert trace.output.tolist() == [[[0, 2, 0], [0, 22, 0]]]


def test_reversed_boxes_are_mirrored():
    assert crop(ramp(), (2.5, 0, 0, 2.5), 2).output.tolist() == [[[2, 0], [12, 10]]]


def test_normalised_coordinates():
    """A box from 0 to 40 pixels on a picture of 80, whose map has a sixteenth of its size: normalised 0 to 0.5."""
    trace = crop(ramp(), (0, 0, 40, 40), 2, 1 / 16)
    np.testing.assert_array_equal(trace.output[0], tensorflow(ramp(), [0, 0, 0.5, 0.5], (2, 2)))


# ---- TensorFlow's definition -----------------------------------------------------------------------------------------


def tensorflow(plane, box, size):
    """Return ``tf.image.crop_and_resize`` of one map and a normalised box x1, y1, x2, y2, point by point."""
    (height, width), (x1, y1, x2, y2) = plane.shape, box
    out = np.zeros(size)
    for i in range(size[0]):
        if size[0] > 1:
            y = y1 * (height - 1) + i * ((y2 - y1) * (height - 1) / (size[0] - 1))
        else:
            y = 0.5 * (y1 + y2) * (height - 1)
        for j in range(size[1]):
            if size[1] > 1:
                x = x1 * (width - 1) + j * ((x2 - x1) * (width - 1) / (size[1] - 1))
            else:
                x = 0.5 * (x1 + x2) * (width - 1)
            if 0 <= y <= height - 1 and 0 <= x <= width - 1:
                top, bottom, left, right = math.floor(y), math.ceil(y), math.floor(x), math.ceil(x)
                upper = plane[top, left] + (plane[top, right] - plane[top, left]) * (x - left)
                lower = plane[bottom, left] + (plane[bottom, right] - plane[bottom, left]) * (x - left)
                out[i, j] = upper + (lower - upper) * (y - top)
    return out


def clear_of_the_border(trace):
    """Whether rounding cannot move a sample over the border of the map."""
    places = (
        (axis.place, size) for axis, size in zip((trace.rows, trace.columns), trace.features.shape[1:], strict=True)
    )
    return all((np.minimum(abs(place), abs(place - size + 1)) > 1e-6).all() for place, size in places)


def test_random_boxes_equal_the_definition():
    compared = 0
    for group in groups(np.float64, rois=500, seed=1):
        height, width = group.x.shape[2:]
        for kind, row in zip(group.kinds, group.rois, strict=True):
            if kind in ("huge", "not finite"):
                continue
            trace = crop(group.x, row, *group.how.values())
            if clear_of_the_border(trace):
                box = row[1:] * group.how["spatial_scale"] / [width, height, width, height]
                expected = tensorflow(trace.features[1], box, trace.output_size)
                np.testing.assert_allclose(trace.output[1], expected, rtol=1e-9, atol=1e-9)
                compared += 1
    assert compared > 250


@BOTH
def test_equals_what_the_other_explanations_call_so(dtype):
    """`tinyseg.explain.rois.calls.pool` makes it of the RoIAlign kernel, by another box."""
    compared = 0
    for group in groups(dtype, rois=500, seed=2, signs=False):
        for kind, row in zip(group.kinds, group.rois, strict=True):
            if kind in ("huge", "not finite"):
                continue
            trace = crop(group.x, row, *group.how.values())
            if clear_of_the_border(trace):
                other = pool("crop_and_resize", group.x, row[None], *group.how.values())[0]
                # the other box moves samples by some roundings of its corners
                bound = np.abs(row[1:]).max() * group.how["spatial_scale"] + 2
                np.testing.assert_allclose(trace.output, other, rtol=0, atol=16 * np.finfo(dtype).eps * bound)
                compared += 1
    assert compared > 250
