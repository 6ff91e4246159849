"""Maps with their values in the cells: what is written, marked, refused, and that it can be read."""

import io

import numpy as np
import pytest
from matplotlib.colors import to_hex, to_rgb

from tinyseg import Tensor, explain
from tinyseg.colours import HEX
from tinyseg.explain import Mark
from tinyseg.explain.maps import _ink, _number

RAMP = np.arange(25.0).reshape(5, 5)


def written(axes):
    """Return the texts in the cells of a map, row by row."""
    (rows, columns) = (len(axes.get_yticks()), len(axes.get_xticks()))
    texts = [text.get_text() for text in axes.texts]
    return [texts[row * columns : (row + 1) * columns] for row in range(rows)]


def rectangles(axes):
    return [patch for patch in axes.patches if patch.get_width() != 0]


def test_values_stand_in_their_cells():
    (axes,) = explain.maps(RAMP).axes
    assert written(axes) == [[str(5 * row + column) for column in range(5)] for row in range(5)]
    assert [text.get_position() for text in axes.texts[:6]] == [(c + 0.5, 0.5) for c in range(5)] + [(0.5, 1.5)]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (3, "3"), (-0.0, "0"), (True, "1"), (2.0, "2"), (0.75, "0.75"), (1.625, "1.62"), (-12.5, "-12.5"),
        (12345.678, "12346"), (0.00001, "1e-5"), (3e9, "3e9"), (float("nan"), "nan"), (-float("inf"), "-inf"),
    ],
)  # fmt: skip
def test_numbers_are_short(value, text):
    assert _number(value, 3) == text


def test_more_digits_where_they_are_asked_for():
    assert written(explain.maps(np.array([[1.625, 5.125]]), digits=4).axes[0]) == [["1.625", "5.125"]]


def test_masked_cells_stay_empty_and_nan_is_written():
    table = np.ma.array([[1.0, 2.0], [np.nan, 4.0]], mask=[[False, True], [False, False]])
    assert written(explain.maps(table).axes[0]) == [["1", ""], ["nan", "4"]]


@pytest.mark.parametrize("array", [Tensor(RAMP[None, None]), RAMP[None], RAMP.astype(np.int32), RAMP.tolist()])
def test_what_holds_a_map(array):
    assert written(explain.maps(array).axes[0])[4] == ["20", "21", "22", "23", "24"]


def test_values_are_left_out_where_cells_are_too_small_and_a_bar_stands_for_them():
    figure = explain.maps(np.arange(4096.0).reshape(64, 64), np.eye(3))
    large, bar, small = figure.axes
    assert (len(large.texts), len(small.texts)) == (0, 9)
    assert bar.get_label() == "colours" and bar.get_ylim() == (0, 4095)
    assert len(explain.maps(np.eye(3), values=False).axes) == 2


def test_cells_of_all_maps_have_the_same_size():
    figure = explain.maps(RAMP, np.eye(3), np.ones((2, 7)))
    sizes = [axes.get_window_extent() for axes in figure.axes]
    sides = [(size.width / n, size.height / m) for size, m, n in zip(sizes, (5, 3, 2), (5, 3, 7), strict=True)]
    np.testing.assert_allclose(sides, sides[0][0])


@pytest.mark.parametrize("shapes", [[(64, 64), (40, 100), (3, 3)], [(5, 5)] * 4, [(1, 40)], [(40, 1), (2, 2)]])
def test_figures_are_no_wider_than_asked_and_nothing_overlaps(shapes):
    figure = explain.maps(*(np.arange(float(m * n)).reshape(m, n) for m, n in shapes), width=8)
    assert figure.get_figwidth() <= 8.5
    boxes = [axes.get_tightbbox() for axes in figure.axes]
    for i, box in enumerate(boxes):
        assert figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1 and figure.bbox.y0 <= box.y0
        assert not any(box.overlaps(other) for other in boxes[i + 1 :])


def test_text_fits_into_its_cell():
    figure = explain.maps(np.array([[-0.123456, 123456], [1e-7, 0.5]]), RAMP * 1000)
    figure.draw_without_rendering()
    for axes in figure.axes:
        side = axes.get_window_extent().width / len(axes.get_xticks())
        assert max(text.get_window_extent().width for text in axes.texts) < side


def test_text_can_be_read_on_every_colour():
    import matplotlib

    def luminance(colour):
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in to_rgb(colour)]
        return np.dot(linear, [0.2126, 0.7152, 0.0722]) + 0.05

    for name in ("cividis", "RdBu_r"):
        for place in np.linspace(0, 1, 64):
            colour = matplotlib.colormaps[name](place)[:3]
            pair = sorted([luminance(colour), luminance(_ink(colour))])
            assert pair[1] / pair[0] > 4.5  # WCAG 2, level AA


def test_scales_of_colours():
    def ends(figure):
        return [axes.images[0].get_clim() for axes in figure.axes]

    assert ends(explain.maps(RAMP, RAMP / 2)) == [(0, 24), (0, 12)]
    assert ends(explain.maps(RAMP, RAMP / 2, scale="shared")) == [(0, 24)] * 2
    assert ends(explain.maps(RAMP, RAMP / 2, scale=(2, 9))) == [(2, 9)] * 2
    assert ends(explain.maps(np.array([[-3.0, np.inf, 1.0]]))) == [(-3, 3)]
    assert ends(explain.maps(np.ones((2, 2)))) == [(0, 2)]
    signed, plain = explain.maps(RAMP - 3, RAMP).axes
    assert (signed.images[0].get_cmap().name, plain.images[0].get_cmap().name) == ("RdBu_r", "cividis")


def test_marks_lie_where_they_should():
    marks = [Mark(0, 1, 2, 3, 2, "window"), Mark(1, 0.5, 0.25, 1.5, 2), (0, 0, 0, 1, 1, "window")]
    figure = explain.maps(RAMP, RAMP, marks=marks)
    window, single = rectangles(figure.axes[0])
    (other,) = rectangles(figure.axes[1])
    np.testing.assert_allclose(window.get_bbox().bounds, (2, 1, 2, 3), atol=0.1)
    np.testing.assert_allclose(other.get_bbox().bounds, (0.25, 0.5, 2, 1.5), atol=0.2)
    assert window.get_edgecolor() == single.get_edgecolor() != other.get_edgecolor()
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["window"]


def test_colours_of_marks_may_be_chosen():
    marks = [Mark(0, 0, 0, colour="blue"), Mark(0, 1, 1, label="b", colour="#123456")]
    blue, other = rectangles(explain.maps(RAMP, marks=marks).axes[0])
    assert to_hex(blue.get_edgecolor()) == HEX["blue"]
    assert to_hex(other.get_edgecolor()) == "#123456"


def test_neighbouring_marks_of_different_colours_do_not_hide_each_other():
    marks = [Mark(0, 0, 0, 3, 3, name) for name in "abcd"]
    lefts = [patch.get_x() for patch in rectangles(explain.maps(RAMP, marks=marks).axes[0])]
    assert len(set(lefts)) == 4 and max(lefts) < 0.3


def test_rows_and_columns_may_be_counted_from_elsewhere():
    (axes,) = explain.maps(np.pad(RAMP, 1), origins=[(-1, 3)], marks=[Mark(0, 0, 4, 5, 5)]).axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["-1", "0", "1", "2", "3", "4", "5"]
    assert [label.get_text() for label in axes.get_xticklabels()][0] == "3"
    np.testing.assert_allclose(rectangles(axes)[0].get_bbox().bounds, (4, 0, 5, 5), atol=0.1)
    assert axes.texts[8].get_text() == "0" and axes.texts[8].get_position() == (4.5, 0.5)  # the ramp's first


def test_words_around_the_maps():
    figure = explain.maps(RAMP, RAMP, RAMP, titles="abc", operators=["*", "="], title="All")
    assert [axes.get_title() for axes in figure.axes] == ["a", "b", "c"]
    assert [text.get_text() for text in figure.texts] == ["∗", "=", "All"]  # an asterisk at mid-height


def test_long_operators_get_room():
    figure = explain.maps(RAMP, RAMP, operators=["and therefore"])
    figure.draw_without_rendering()
    word, (left, right) = figure.texts[0].get_window_extent(), [axes.get_tightbbox() for axes in figure.axes]
    assert left.x1 < word.x0 and word.x1 < right.x0


def test_nothing_global_and_it_can_be_written():
    import matplotlib.pyplot as plt

    before = plt.get_fignums()
    file = io.BytesIO()
    explain.maps(RAMP, title="ramp").savefig(file, format="png")
    assert file.getvalue().startswith(b"\x89PNG") and plt.get_fignums() == before


@pytest.mark.parametrize(
    ("arrays", "options", "error", "message"),
    [
        ([], {}, TypeError, "no array was given"),
        ([np.array([["a"]])], {}, TypeError, "array 0 has dtype <U1; expected numbers"),
        ([RAMP, np.zeros((2, 3, 3))], {}, ValueError, r"array 1 has shape \(2, 3, 3\); expected \(H, W\)"),
        ([np.zeros(3)], {}, ValueError, r"array 0 has shape \(3,\)"),
        ([np.zeros((0, 3))], {}, ValueError, r"array 0 has shape \(0, 3\)"),
        ([RAMP], {"titles": ["a", "b"]}, ValueError, "titles has 2 entries; expected 1"),
        ([RAMP, RAMP], {"operators": []}, ValueError, "operators has 0 entries; expected 1"),
        ([RAMP], {"origins": []}, ValueError, "origins has 0 entries; expected 1"),
        ([RAMP], {"marks": [Mark(1, 0, 0)]}, ValueError, "mark 0 is on map 1; expected 0 to 0"),
        ([RAMP], {"scale": "same"}, ValueError, "scale is 'same'; expected 'own', 'shared' or"),
    ],
)
def test_what_is_refused(arrays, options, error, message):
    with pytest.raises(error, match=message):
        explain.maps(*arrays, **options)
