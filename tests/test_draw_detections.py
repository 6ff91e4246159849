"""Detections over pictures: colours and places worked out by hand, crowds, small pictures and large ones."""

import subprocess
import sys

import numpy as np
import pytest

from tinyseg import Tensor, draw
from tinyseg.colours import CLASS_COLOURS
from tinyseg.data import cells, shapes
from tinyseg.draw.labels import label_texts
from tinyseg.draw.object_colours import object_colours

RED, GREEN = (200, 0, 0), (0, 200, 0)


def test_boxes_by_hand():
    drawn = draw.detections(np.zeros((6, 8)), [[1, 2, 5, 5]], colours=[RED], show_labels=False)
    expected = np.zeros((6, 8), bool)
    expected[2, 1:5] = expected[4, 1:5] = expected[2:5, 1] = expected[2:5, 4] = True
    np.testing.assert_array_equal(drawn, expected[..., None] * np.uint8(RED))


def test_boxes_are_cut_off_at_the_picture_and_those_outside_are_not_drawn():
    drawn = draw.detections(np.zeros((6, 8)), [[-3, -2, 2, 2], [20, 1, 30, 4], [1, -9, 3, -2]], colours=[RED] * 3)
    expected = np.zeros((6, 8), bool)
    expected[:2, :2] = True
    # a side that lies outside is drawn at the edge of the picture instead
    np.testing.assert_array_equal(drawn.any(2), expected)
    thin = draw.detections(np.zeros((6, 8)), [[3, 1, 3, 4]], colours=[RED])  # a box without area is still seen
    assert thin[1:4, 3].any() and not thin[:, 4].any()


def test_masks_by_hand_and_the_best_on_top():
    masks = np.zeros((2, 5, 6), bool)
    masks[0, :, :4] = True
    masks[1, 1:4, 2:5] = True
    boxes = [[0, 0, 4, 5], [2, 1, 5, 4]]
    options = {"colours": [RED, GREEN], "opacity": 0.5, "show_boxes": False, "show_labels": False}
    drawn = draw.detections(np.zeros((5, 6)), boxes, scores=[0.6, 0.9], masks=masks, **options)
    red, green, dim_red = RED, GREEN, (100, 0, 0)
    assert drawn[2, 3].tolist() == [100, 100, 0]  # inside the green one: half of it over the red one's own border
    for row, column in ((1, 2), (1, 3), (1, 4), (2, 2), (2, 4), (3, 2), (3, 4)):
        assert tuple(drawn[row, column]) == green, (row, column)
    assert tuple(drawn[0, 0]) == dim_red  # at the picture's edge there is no border
    assert tuple(drawn[0, 3]) == red and drawn[0, 4].tolist() == [0, 0, 0]
    other = draw.detections(np.zeros((5, 6)), boxes, scores=[0.9, 0.6], masks=masks, **options)
    assert tuple(other[1, 3]) == red and tuple(other[1, 4]) == green
    np.testing.assert_array_equal(draw.detections(np.zeros((5, 6)), boxes, masks=masks, **options), other)
    same = draw.detections(np.zeros((5, 6)), boxes, scores=[0.5, 0.5], masks=masks, **options)
    np.testing.assert_array_equal(same, other)  # of equal scores, the first


def test_masks_of_every_form_are_the_same_drawing(rng):
    sample = shapes(64, 1, count=(3, 3))
    truth = {
        "boxes": sample.boxes,
        "labels": sample.classes,
        "scores": np.float32([0.9, 0.8, 0.7][: len(sample.boxes)]),
    }
    masks = sample.instance_masks
    expected = draw.detections(sample.picture, **truth, masks=masks)
    probabilities = (0.5 + 0.4 * np.where(masks, 1, -1)).astype(np.float32)[:, None]
    windows = [draw.mask_window(mask, (64, 64)) for mask in masks]
    for form in (probabilities, masks.astype(np.uint8), Tensor(probabilities), windows, list(masks)):
        np.testing.assert_array_equal(draw.detections(sample.picture, **truth, masks=form), expected)
    tensors = {name: Tensor(value) for name, value in truth.items()}
    np.testing.assert_array_equal(draw.detections(Tensor(sample.picture).numpy(), **tensors, masks=masks), expected)


def test_masks_are_asked_for_one_at_a_time():
    asked = []

    class Masks:
        def __len__(self):
            return 3

        def __getitem__(self, i):
            asked.append(int(i))
            return 1, 1, np.ones((2, 2), bool)

    draw.detections(np.zeros((8, 8)), np.full((3, 4), 1), scores=[0.5, 0.9, 0.7], masks=Masks())
    assert asked == [0, 2, 1]


def test_nothing_found_is_the_picture_itself(rng):
    picture = rng.random((3, 9, 7), np.float32)
    empty = draw.detections(picture, np.zeros((0, 4)), np.zeros(0, int), np.zeros(0), np.zeros((0, 1, 9, 7)))
    np.testing.assert_array_equal(empty, draw.to_rgb(picture))
    window = draw.mask_window(np.zeros((4, 5), bool), (4, 5))
    assert window[:2] == (0, 0) and window[2].size == 0
    mask = np.zeros((1, 1, 4, 5), bool)
    np.testing.assert_array_equal(
        draw.detections(np.zeros((4, 5)), [[0, 0, 0, 0]], masks=mask, show_boxes=False), np.zeros((4, 5, 3))
    )


def test_texts():
    assert label_texts(np.array([1, 2, 9]), np.array([0.934, 1, 0.5]), ("background", "cat", "")) == [
        "cat 0.93",
        "class 2 1.00",
        "class 9 0.50",
    ]
    assert label_texts(None, np.array([0.934]), ()) == ["0.93"]
    assert label_texts(np.array([1]), None, ("background", "dog")) == ["dog"]
    assert label_texts(None, None, ()) == []


@pytest.mark.parametrize(
    "box", [[0, 0, 30, 20], [170, 0, 200, 25], [60, 70, 90, 80], [0, 0, 200, 80], [150, 40, 260, 120]]
)
def test_labels_stay_inside_the_picture_and_touch_their_box(box):
    plain = draw.detections(np.zeros((80, 200)), [box], colours=[RED])
    drawn = draw.detections(np.zeros((80, 200)), [box], [1], [0.5], class_names=("", "triangle"), colours=[RED])
    ys, xs = np.nonzero((drawn != plain).any(2))
    height, width = np.ptp(ys) + 1, np.ptp(xs) + 1
    assert 8 <= height <= 16 and 50 <= width <= 90  # a whole label of a line of ten pixels, not a part of one
    spread = plain.any(2)
    rows, columns = np.flatnonzero(spread.any(1)), np.flatnonzero(spread.any(0))
    assert ys.max() >= rows[0] - 1 and ys.min() <= rows[-1] + 1 and xs.max() >= columns[0] and xs.min() <= columns[-1]


def test_labels_never_overlap_and_the_best_has_its_place():
    boxes = [[10, 20, 60, 60], [11, 21, 61, 61], [12, 22, 62, 62], [13, 20, 60, 61]]
    picture = np.zeros((90, 160))
    only = draw.detections(picture, boxes[2:3], [1], [0.9], colours=[RED], show_labels=True)
    colours = [GREEN, GREEN, RED, GREEN]
    drawn = draw.detections(picture, boxes, [1] * 4, [0.5, 0.6, 0.9, 0.7], colours=colours, show_labels=True)
    label = slice(9, 22), slice(12, 12 + 55)
    assert (only[label] == RED).all(2).mean() > 0.5
    np.testing.assert_array_equal(drawn[label][:9], only[label][:9])


def test_no_labels_where_there_is_no_room_or_many():
    tiny = draw.detections(np.zeros((12, 12)), [[1, 1, 8, 8]], [1], [0.5], colours=[RED])
    np.testing.assert_array_equal(tiny, draw.detections(np.zeros((12, 12)), [[1, 1, 8, 8]], colours=[RED]))
    sample = cells(256, 1, radius=(4, 7), coverage=0.7)
    assert len(sample.boxes) > 300
    found = sample.boxes, sample.classes, np.linspace(0.5, 1, len(sample.boxes)), sample.instance_masks
    drawn = draw.detections(sample.picture, *found, class_names=sample.class_names)
    plain = draw.detections(sample.picture, *found, show_labels=False, show_boxes=False)
    np.testing.assert_array_equal(drawn, plain)
    # outlines are one pixel thin: the inside of the objects is still the picture, in colour
    inside = sample.instances > 0
    full = (drawn[inside][:, None] == np.uint8(CLASS_COLOURS)).all(-1).any(1)
    assert 0.2 < full.mean() < 0.65
    assert (draw.detections(sample.picture, *found, show_boxes=True) != plain).any()
    assert (draw.detections(sample.picture, *found, show_labels=True) != plain).any()


def test_neighbours_have_different_colours_and_others_do_not_change_them(rng):
    sample = cells(256, 1, radius=(4, 7), coverage=0.7)
    boxes = sample.boxes.astype(float)
    chosen = object_colours(boxes, CLASS_COLOURS, 0)
    touching = 0
    for i in range(len(boxes)):
        gap = np.maximum(boxes[:i, :2] - boxes[i, 2:], boxes[i, :2] - boxes[:i, 2:]).max(1)
        touching += (gap <= 0).sum()
        assert (chosen[:i][gap <= 0] != chosen[i]).all()
    assert touching > 100 and set(chosen) == set(range(len(CLASS_COLOURS)))
    np.testing.assert_array_equal(object_colours(boxes[:100], CLASS_COLOURS, 0), chosen[:100])
    apart = np.arange(20)[:, None] * 100 + np.array([0, 0, 5, 5])
    assert object_colours(apart, CLASS_COLOURS, 3).tolist() == [i % len(CLASS_COLOURS) for i in range(20)]
    same = np.zeros((9, 4))  # more than there are colours, all in one place: the colours take turns as far as they go
    assert len(set(object_colours(same, CLASS_COLOURS, 3)[: len(CLASS_COLOURS)])) == len(CLASS_COLOURS)
    assert object_colours(np.zeros((5000, 4)), CLASS_COLOURS, 3).tolist() == [i % 7 for i in range(5000)]


def test_a_larger_drawing_of_a_small_picture(rng):
    picture = rng.random((10, 12), np.float32)
    drawn = draw.detections(picture, [[2, 3, 6, 8]], masks=np.zeros((1, 10, 12)), colours=[RED], scale=4)
    assert drawn.shape == (40, 48, 3)
    np.testing.assert_array_equal(drawn[:12, :, 0], draw.to_rgb(picture)[:3, :, 0].repeat(4, 0).repeat(4, 1))
    assert (drawn[12, 8:24] == RED).all() and (drawn[31, 8:24] == RED).all() and (drawn[12:32, 23] == RED).all()
    mask = np.zeros((1, 10, 12), bool)
    mask[0, 3:8, 2:6] = True
    filled = draw.detections(picture, [[2, 3, 6, 8]], masks=mask, colours=[RED], scale=4, opacity=1)
    assert (filled[12:32, 8:24] == RED).all() and (filled[12:32, 24:] != RED).any(-1).all()


def test_numbered_objects():
    labels = np.zeros((6, 9), np.int32)
    labels[1:4, 1:4], labels[1:5, 4:8] = 70000, 12
    drawn = draw.instances(np.zeros((6, 9)), labels, opacity=1)
    colours = [tuple(drawn[2, 2].tolist()), tuple(drawn[2, 5].tolist())]
    assert colours == [CLASS_COLOURS[1], CLASS_COLOURS[0]]  # 12 comes first, and has the first colour
    assert (drawn[labels == 0] == 0).all()
    bordered = draw.instances(np.zeros((6, 9)), labels, opacity=0.5)
    assert bordered[3, 6].tolist() == [115, 80, 0] and tuple(bordered[1, 4]) == CLASS_COLOURS[0]
    plain = draw.instances(np.zeros((6, 9)), labels, opacity=0.5, outline=False)
    assert plain[1, 4].tolist() == [115, 80, 0]
    np.testing.assert_array_equal(draw.instances(np.ones((6, 9)), labels * 0), np.full((6, 9, 3), 255))
    with pytest.raises(ValueError, match=r"labels has shape \(6, 9\) and dtype float64"):
        draw.instances(np.zeros((6, 9)), labels.astype(float))


def test_numbered_objects_across_strips_are_as_in_one_piece(monkeypatch):
    sample = cells(96, 2, radius=(5, 9))
    windows = [draw.mask_window(mask, (96, 96)) for mask in sample.instance_masks]

    def drawings():
        return [
            draw.instances(sample.picture, sample.instances),
            draw.overlay(sample.picture, sample.instances),
            draw.errors(sample.picture, sample.mask, sample.mask.T),
            draw.detections(sample.picture, sample.boxes, masks=windows),
            draw.detections(sample.picture, [[0, 0, 96, 96]], masks=sample.mask[None], scale=5),
            draw.probability_map(sample.picture),
            draw.to_rgb(sample.picture * 0.3, stretch=True),
        ]

    whole = drawings()
    monkeypatch.setattr("tinyseg.draw.pictures._STRIP", 300)
    for ours, expected in zip(drawings(), whole, strict=True):
        np.testing.assert_array_equal(ours, expected)


def test_found_objects_have_the_colour_of_their_truth():
    sample = shapes(96, 7, count=(4, 4), radius=(10, 16), max_overlap=0)
    order = np.arange(len(sample.boxes))[::-1]
    found = {
        "boxes": sample.boxes[order] + 1,
        "labels": sample.classes[order],
        "scores": np.linspace(0.6, 0.9, len(order)),
        "masks": sample.instance_masks[order],
    }
    left, right = draw.truth_and_prediction(sample, found, show_labels=False, show_boxes=False)
    np.testing.assert_array_equal(left, right)
    one = {name: value[:1] for name, value in found.items()}
    assert (draw.truth_and_prediction(sample, one, show_labels=False)[1] != left).any()
    labelled = draw.truth_and_prediction(sample, found, scale=3)
    assert labelled[0].shape == (288, 288, 3) and (labelled[0] != labelled[1]).any()  # scores on one side only
    with pytest.raises(ValueError, match="sample 'x' has no boxes"):
        draw.truth_and_prediction(type(sample)(sample.picture, name="x"), found)


@pytest.mark.parametrize(
    "arguments, words",
    [
        ({"boxes": [[0, 0, 1]]}, r"boxes has shape \(1, 3\); expected \(K, 4\)"),
        ({"boxes": [[0, 0, 1, np.nan]]}, "expected .* finite numbers"),
        ({"boxes": [[0, 0, 1, 1]], "labels": [1, 2]}, "labels has 2 entries; expected 1"),
        ({"boxes": [[0, 0, 1, 1]], "scores": []}, "scores has 0 entries"),
        ({"boxes": [[0, 0, 1, 1]], "masks": np.zeros((2, 4, 5))}, "masks has 2 entries"),
        ({"boxes": [[0, 0, 1, 1]], "masks": np.zeros((1, 5, 4))}, r"has shape \(5, 4\); expected \(4, 5\)"),
        ({"boxes": [[0, 0, 1, 1]], "masks": [(3, 0, np.ones((2, 2), bool))]}, r"at \(3, 0\) of shape \(2, 2\) is not"),
        ({"boxes": [[0, 0, 1, 1]], "colours": [RED, RED]}, "colours has 2 entries"),
        ({"boxes": [[0, 0, 1, 1]], "scale": 0}, "scale is 0"),
        ({"boxes": [[0, 0, 1, 1]], "opacity": -1}, "opacity is -1"),
    ],
)
def test_mistakes_are_named(arguments, words):
    with pytest.raises(ValueError, match=words):
        draw.detections(np.zeros((4, 5)), **arguments)


def test_a_large_photograph_takes_little_more_than_the_drawing():
    """12 megapixels: the drawing is 36 million bytes, and what the painting needs beside it is less than that again."""
    program = (
        "import tracemalloc\n"
        "import numpy as np\n"
        "from tinyseg import draw\n"
        "picture = np.zeros((3, 3000, 4000), np.float32)\n"
        "labels = np.zeros((3000, 4000), np.uint16)\n"
        "labels[100:2900, 200:3000] = 3\n"
        "mask = labels[None] > 0\n"
        "drawings = {\n"
        "    'overlay': lambda: draw.overlay(picture, labels),\n"
        "    'stretched': lambda: draw.to_rgb(picture, stretch=True),\n"
        "    'instances': lambda: draw.instances(picture, labels),\n"
        "    'detections': lambda: draw.detections(picture, [[200, 100, 3000, 2900]], [1], [0.9], mask),\n"
        "    'errors': lambda: draw.errors(picture, labels, labels),\n"
        "}\n"
        "tracemalloc.start()\n"
        "for name, drawing in drawings.items():\n"
        "    tracemalloc.reset_peak()\n"
        "    before = tracemalloc.get_traced_memory()[0]\n"
        "    drawing()\n"
        "    print(name, tracemalloc.get_traced_memory()[1] - before)\n"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    peaks = dict(line.split() for line in run.stdout.splitlines())
    assert len(peaks) == 5
    assert all(int(peak) < 2 * 36e6 for peak in peaks.values()), peaks
