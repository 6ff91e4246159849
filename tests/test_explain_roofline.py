"""The roofline: points where they belong, a roof of two limits."""

import numpy as np
import pytest

import tinyseg
from tinyseg.explain import Measured, roofline

PEAKS = {"flops": 1e11, "bytes": 1e10}


def lines(figure):
    (axes,) = figure.axes
    return {line.get_label(): line.get_xydata() for line in axes.lines}, axes


def test_points_and_roof():
    figure = roofline([("slow", 2e9, 1e9, 4.0), ("fast", 2e9, 1e9, 0.1), Measured("fast", 4e9, 1e8, 0.2)], PEAKS)
    drawn, axes = lines(figure)
    np.testing.assert_allclose(drawn["slow"], [[2, 0.5]])
    np.testing.assert_allclose(drawn["fast"], [[2, 20], [40, 20]])
    (roof,) = (points for label, points in drawn.items() if label.startswith("_"))
    intensity, rate = roof.T
    np.testing.assert_allclose(rate, np.minimum(100, 10 * intensity))
    assert intensity.min() < 2 and intensity.max() > 40
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["slow", "fast"]
    assert "100 GFLOP/s" in axes.texts[0].get_text() and "10.0 GB/s" in axes.texts[1].get_text()


def test_of_a_plan():
    plan = tinyseg.explain.plan(tinyseg.models.UNet(widths=(4, 8)), (1, 1, 16, 16), peaks=PEAKS)
    drawn, _ = lines(roofline(plan))
    np.testing.assert_equal(lines(plan.figure())[0], drawn)
    counted = [row for row in plan.rows if row.flops]
    names = {row.words() for row in counted}
    assert names == {label for label in drawn if not label.startswith("_")}
    assert sum(len(drawn[name]) for name in names) == len(counted)
    row = counted[0]
    place = [row.flops / (row.bytes_read + row.bytes_written), row.flops / row.seconds / 1e9]
    np.testing.assert_allclose(drawn[row.words()][0], place)


def test_nothing_to_draw():
    with pytest.raises(ValueError, match="measured holds nothing"):
        roofline([], PEAKS)
    with pytest.raises(ValueError, match=r"seconds=0\.0.*above 0"):
        roofline([("none", 1, 1, 0.0)], PEAKS)
