"""Drawings: colours and places worked out by hand, sizes, and no trace in matplotlib's global state."""

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from tinyseg import draw
from tinyseg.colours import CLASS_COLOURS, OKABE_ITO


def test_to_rgb_takes_what_the_library_has():
    grey = np.float32([[0, 0.2, 1]])
    expected = np.repeat(np.uint8([[[0], [51], [255]]]), 3, axis=2)
    for picture in (grey, grey[None], np.stack([grey] * 3), np.uint8([[0, 51, 255]]), expected, grey.astype(float)):
        np.testing.assert_array_equal(draw.to_rgb(picture), expected)
    np.testing.assert_array_equal(draw.to_rgb(np.float32([[-1, 2, np.nan]]))[0, :, 0], [0, 255, 0])
    assert draw.to_rgb(np.array([[False, True]]))[0, :, 0].tolist() == [0, 255]
    stretched = draw.to_rgb(np.linspace(-3, 5, 1001, dtype=np.float32)[None], stretch=True)[0, :, 0]
    assert stretched[0] == 0 and stretched[-1] == 255 and stretched[500] in (127, 128)
    with pytest.raises(ValueError, match=r"picture has shape \(2, 3, 4\)"):
        draw.to_rgb(np.zeros((2, 3, 4)))
    with pytest.raises(ValueError, match="dtype int64"):
        draw.to_rgb(np.zeros((3, 4), int))


def test_overlay_by_hand():
    picture = np.full((3, 5), 0.4, np.float32)  # 102
    mask = np.zeros((3, 5), np.uint8)
    mask[:, 3:] = 1
    drawn = draw.overlay(picture, mask, opacity=0.5, colours=[(202, 2, 102)])
    np.testing.assert_array_equal(drawn[:, :3], 102)
    np.testing.assert_array_equal(drawn[:, 3], np.uint8([[202, 2, 102]] * 3))  # the border, in full
    np.testing.assert_array_equal(drawn[:, 4], np.uint8([[152, 52, 102]] * 3))
    plain = draw.overlay(picture, mask, opacity=0.5, colours=[(202, 2, 102)], outline=False)
    np.testing.assert_array_equal(plain[:, 3], plain[:, 4])


def test_labels_take_their_colours_in_turn_and_repeat():
    labels = np.arange(2 * len(CLASS_COLOURS) + 1)[None]
    drawn = draw.overlay(np.zeros(labels.shape, np.float32), labels, opacity=1)
    assert drawn[0, 0].tolist() == [0, 0, 0]
    np.testing.assert_array_equal(drawn[0, 1:], np.uint8(CLASS_COLOURS * 2))


def test_overlay_leaves_its_arguments_alone_and_takes_masks_of_every_kind():
    picture, mask = np.zeros((3, 4, 5), np.float32), np.ones((4, 5), np.uint8)
    expected = draw.overlay(picture, mask)
    for kind in (bool, np.int64, np.int32):
        np.testing.assert_array_equal(draw.overlay(picture, mask.astype(kind)), expected)
    np.testing.assert_array_equal(draw.overlay(picture, mask[None]), expected)
    assert picture.max() == 0 and mask.min() == 1
    bytes_picture = np.zeros((4, 5, 3), np.uint8)
    draw.overlay(bytes_picture, mask)
    assert bytes_picture.max() == 0


def test_overlay_of_another_size_is_named():
    with pytest.raises(
        ValueError, match=r"mask has shape \(4, 6\) and dtype int64; expected integers of shape \(4, 5\)"
    ):
        draw.overlay(np.zeros((4, 5)), np.zeros((4, 6), int))
    with pytest.raises(ValueError, match="dtype float64; expected integers"):
        draw.overlay(np.zeros((4, 5)), np.zeros((4, 5)))
    with pytest.raises(ValueError, match="opacity is 2"):
        draw.overlay(np.zeros((4, 5)), np.zeros((4, 5), int), opacity=2)


def test_errors_by_hand():
    truth, prediction = np.array([[0, 1, 0, 1]]), np.array([[0, 1, 1, 0]])
    drawn = draw.errors(np.zeros((1, 4), np.float32), truth, prediction, opacity=1)
    expected = [(0, 0, 0), OKABE_ITO["bluish green"], OKABE_ITO["vermilion"], OKABE_ITO["blue"]]
    assert [tuple(colour) for colour in drawn[0].tolist()] == expected


def test_probability_map():
    drawn = draw.probability_map(np.float32([[0, 1, -1, 2, np.nan]]))
    np.testing.assert_array_equal(drawn[0, 0], drawn[0, 2])
    np.testing.assert_array_equal(drawn[0, 1], drawn[0, 3])
    assert tuple(drawn[0, 4]) == OKABE_ITO["vermilion"]
    assert drawn[0, 0, 2] > drawn[0, 0, 0] and drawn[0, 1, 0] > drawn[0, 1, 2]  # dark blue to yellow
    ramp = draw.probability_map(np.linspace(0, 1, 256)[None])[0].astype(float) @ (0.2126, 0.7152, 0.0722)
    assert np.all(np.diff(ramp) > -1.5) and ramp[-1] > ramp[0] + 150  # brighter means more
    with pytest.raises(ValueError, match=r"probability has shape \(2, 3, 4\)"):
        draw.probability_map(np.zeros((2, 3, 4)))
    with pytest.raises(ValueError, match="colour_map is 'nice'; expected a name that matplotlib knows"):
        draw.probability_map(np.zeros((3, 4)), "nice")


def test_panels_are_where_they_should_be():
    red, blue = np.zeros((40, 60, 3), np.uint8), np.zeros((30, 50, 3), np.uint8)
    red[..., 0], blue[..., 2] = 200, 200
    sheet = draw.panels([red, blue], gap=5)
    assert sheet.shape == (50, 135, 3)
    np.testing.assert_array_equal(sheet[5:45, 5:65], red)
    np.testing.assert_array_equal(sheet[5:35, 70:120], blue)
    assert (sheet[:, :5] == 255).all() and (sheet[36:, 70:] == 255).all()
    sheet = draw.panels([red, blue, red], columns=2, gap=5)
    assert sheet.shape == (95, 135, 3)
    np.testing.assert_array_equal(sheet[50:90, 5:65], red)


def test_titles_and_legends_take_room_and_show_ink():
    red = np.zeros((40, 120, 3), np.uint8)
    plain = draw.panels([red, red], gap=5)
    titled = draw.panels([red, red], ["a", "a title much too long for the width of its panel"], gap=5)
    head = titled.shape[0] - plain.shape[0]
    assert head > 8
    strip = titled[5 : 5 + head]
    assert (strip[:, 5:125] < 100).any() and (strip[:, 130:250] < 100).any()
    assert (strip[:, 250:] == 255).all() and (strip[:, 125:130] == 255).all()  # cut at its panel's end
    np.testing.assert_array_equal(titled[5 + head : 45 + head, 5:125], red)
    legend = draw.panels([red], legend={f"class {i}": OKABE_ITO["blue"] for i in range(5)}, gap=5)
    more = legend[50:]
    assert (more == OKABE_ITO["blue"]).all(-1).sum() >= 5 * 100 and legend.shape[1] == 130
    with pytest.raises(ValueError, match="1 drawings and 2 titles"):
        draw.panels([red], ["a", "b"])
    with pytest.raises(ValueError, match="0 drawings"):
        draw.panels([])


def test_save(tmp_path):
    drawing = draw.overlay(np.zeros((4, 5)), np.eye(4, 5, dtype=int))
    draw.save(tmp_path / "a.png", drawing)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "a.png")), drawing)


def test_importing_loads_no_matplotlib_and_drawing_no_pyplot():
    program = (
        "import sys\n"
        "import numpy as np\n"
        "from tinyseg import draw\n"
        "print('matplotlib' in sys.modules)\n"
        "draw.probability_map(np.zeros((2, 2), np.float32))\n"
        "print('matplotlib' in sys.modules, 'matplotlib.pyplot' in sys.modules)\n"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["False", "True", "False"]
