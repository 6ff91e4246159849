"""The RoI microscope's tables, pictures and pages: what they say, and that they are whole."""

import html.parser
import json
import re
import subprocess
import sys
import xml.etree.ElementTree

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from tinyseg import explain
from tinyseg.explain.rois.figure import bin_bounds
from tinyseg.explain.rois.sheet import view

SVG = "{http://www.w3.org/2000/svg}"


def ramp(dtype=np.float64):
    """Return a map of 5x5 cells that holds 0 to 24."""
    return np.arange(25, dtype=dtype).reshape(5, 5)


def all_traces(features, box, **how):
    """Return a trace of each operator."""
    return explain.roi_compare(features, box, **how).traces


# ---- tables ----------------------------------------------------------------------------------------------------------


def test_the_table_of_samples_can_be_followed_by_hand():
    text = str(explain.roi(ramp(), (0, 0, 2, 2), output_size=2, sampling_ratio=2, aligned=True))
    assert text.splitlines()[0] == "RoIAlign, aligned: 5 x 5 cells, float64, to 2 x 2 bins"
    assert "- 0.5  -0.5  -0.5  1.5  1.5   from here on, a cell's centre is at its whole number" in text
    assert "size 2 x 2 cells, a bin 1 x 1; 2 x 2 samples each (sampling_ratio 2)" in text
    assert " 0.5625 * 0 + 0.1875 * 1 + 0.1875 * 5 + 0.0625 * 6   = 1.5\n" in text
    assert re.search(r"-0.25  -0.25 +1 \* 0 \(moved to the border\) +=  ?0\n", text)
    assert "(0 + 0.25 + 1.25 + 1.5) / 4 samples = 0.75\n" in text
    assert text.endswith("output\n   0.75  1.625\n  5.125      6")


def test_the_table_of_cells_can_be_followed_by_hand():
    text = str(explain.roi(ramp(), (0.5, 0.5, 2.5, 2.5), "roi_pool", output_size=2))
    assert "bin (0, 0)  rows 1 to 2, columns 1 to 2\n  6 7 / 11 12  ->  12 (row 2, column 2)" in text
    assert "size 3 x 3 cells (last - first + 1, at least 1), a bin 1.5 x 1.5" in text


@pytest.mark.parametrize(
    ("box", "how", "words"),
    [
        ((9, 9, 9, 9), {"op": "roi_pool"}, "no cells on the map: 0"),
        ((2, 2, 2, 2), {"aligned": True}, "a box without size, no sample: 0"),
        ((2, 2, 2, 2), {"aligned": False}, "at least 1"),
        ((2, 2, 2, 2), {"aligned": True, "sampling_ratio": 2}, "(4 at one place) "),
        ((9, 9, 12, 12), {"aligned": True, "sampling_ratio": 1}, "off the map"),
        ((900, 9, 1200, 12), {"aligned": True}, "900 samples, all off the map: 0"),
        ((0, 0, 300, 1), {"aligned": True}, "/ 300 samples, 294 more off the map = "),
        ((0, 0, 4, 4), {"aligned": True, "sampling_ratio": 7}, "(sum of the 49 values) / 49 samples"),
        ((0, 0, 3, 3), {"op": "crop_and_resize"}, "one sample a bin, in the middle down, in the middle across"),
    ],
)
def test_special_boxes_in_words(box, how, words):
    assert words in str(explain.roi(ramp(), box, output_size=1, **how))


def test_nan_and_what_is_nothing_but_nan():
    x = np.full((3, 3), np.nan)
    assert "-> " in (text := str(explain.roi(x, (0, 0, 2, 2), "roi_pool", output_size=1)))
    assert "(no cell: all are NaN or -inf)" in text
    assert "0 * nan" in str(explain.roi(x, (0, 0, 2, 2), output_size=1, sampling_ratio=1, aligned=False))


def test_a_long_table_is_cut_and_says_how_to_see_the_rest():
    trace = explain.roi(np.stack([ramp(), -ramp()]), (0, 0, 4, 4), output_size=7, sampling_ratio=2, aligned=True)
    text = str(trace)
    assert "channel 0 of 2, " in text and len(text.splitlines()) < 90
    left = int(re.search(r"\.\.\. and (\d+) more bins", text)[1])
    assert text.count("\nbin (") == 49 - left
    chosen = trace.table(1, bins=[(6, 6), (-1, 0)])
    assert re.findall(r"bin \(.*?\)", chosen) == ["bin (6, 6)", "bin (6, 0)"] and "channel 1 of 2" in chosen
    with pytest.raises(ValueError, match="px is 7; expected a whole number from 0 to 6"):
        trace.table(bins=[(0, 7)])


def test_the_table_of_a_comparison_has_all_four():
    comparison = explain.roi_compare(ramp(), (0, 0, 2, 2), output_size=2, sampling_ratio=2)
    text = str(comparison)
    titles = ["RoIPool", "crop_and_resize", "RoIAlign, not aligned", "RoIAlign, aligned"]
    assert [trace.title for trace in comparison.traces] == titles
    assert all(f"{title}\n" in text for title in titles) and "   0.75  1.625\n    5.125      6\n" in text
    read = json.loads(comparison.to_json(), parse_constant=pytest.fail)
    assert (read["format"], len(read["traces"])) == ("tinyseg.explain.roi_compare", 4)
    assert read["traces"][2] == json.loads(comparison.traces[2].to_json())


# ---- pictures --------------------------------------------------------------------------------------------------------

BOXES = [(0.4, 0.6, 3.1, 2.5), (-3, -2, 9, 8), (2, 2, 2, 2), (50, 60, 70, 80), (-1e6, 1, 1e7, 2), (-90, -90, -80, -80)]


@pytest.mark.parametrize("box", BOXES, ids=str)
def test_every_box_can_be_drawn(box):
    for trace in all_traces(ramp(), box, output_size=2):
        figure = trace.figure()
        figure.draw_without_rendering()
        on_map, output = figure.axes
        left, top, right, bottom = view(trace)
        assert on_map.get_xlim() == (left, right) and on_map.get_ylim() == (bottom, top)
        assert right - left >= 3 and bottom - top >= 3 and right - left < 12
        texts = [text.get_text() for text in output.texts]
        assert texts == [f"{value + 0.0:.4g}" for value in trace.output[0].ravel()]
        assert {f"{value:g}" for value in range(12)} <= {text.get_text() for text in on_map.texts}


@pytest.mark.parametrize(
    "box", [(-1.5e38, 1, 1.5e38, 2), (-3e38, -3e38, -2.9e38, 3e37), (0, 0, 3.4e38, 3.4e38)], ids=str
)
def test_boxes_at_the_end_of_the_type_s_range(box):
    """They are traced, drawn and written; places may overflow, and JSON has no infinity."""
    for trace in all_traces(ramp(np.float32), box, output_size=(2, 3)):
        text = trace.to_json()
        json.loads(text, parse_constant=pytest.fail)
        assert explain.RoITrace.from_json(text).to_json() == text
        assert np.isfinite(view(trace)).all() and str(trace)
        trace.figure().draw_without_rendering()
        Page(trace.html())


def test_a_box_off_the_map_is_announced():
    for box, words in (((50, 60, 70, 80), "below, to the right"), ((-9, -8, -5, -6), "above, to the left")):
        for trace in all_traces(ramp(), box, output_size=1):
            assert f"the box is off the map:\n{words}" in [text.get_text() for text in trace.figure().axes[0].texts]
    texts = [text.get_text() for text in all_traces(ramp(), (0, 0, 2, 2), output_size=1)[0].figure().axes[0].texts]
    assert not [text for text in texts if "off the map" in text]


def test_nothing_overlaps_or_is_cut_off():
    """Titles, axes and legend of wide, tall and tiny maps, on the figure and clear of each other."""
    for shape, size in (((5, 5), 2), ((3, 40), 7), ((40, 3), 1), ((1, 1), (1, 3))):
        box = (0, 0, shape[1], shape[0])
        comparison = explain.roi_compare(np.ones(shape), box, output_size=size)
        for figure in (comparison.figure(), *(trace.figure() for trace in comparison.traces[::3])):
            figure.draw(renderer := FigureCanvasAgg(figure).get_renderer())
            parts = [figure.legends[0], figure.texts[0]]
            for axes in figure.axes:
                labels = (axes.title, axes.xaxis.label, axes.yaxis.label, *axes.get_xticklabels())
                parts += [axes, *(label for label in labels if label.get_text()), *axes.get_yticklabels()[:1]]
            boxes = [part.get_window_extent(renderer) for part in parts]
            for n, one in enumerate(boxes):
                assert one.x0 >= -1 and one.y0 >= -1 and one.x1 <= figure.bbox.x1 + 1 and one.y1 <= figure.bbox.y1 + 1
                for other in boxes[:n]:
                    across = min(one.x1, other.x1) - max(one.x0, other.x0)
                    assert across < 2 or min(one.y1, other.y1) - max(one.y0, other.y0) < 2, (shape, parts[n])


def test_a_sample_alone_shows_its_weights():
    trace = explain.roi(ramp(), (0, 0, 2, 2), output_size=2, sampling_ratio=2, aligned=True)
    weights = [text.get_text() for text in trace.figure(bin=(0, 0), sample=3).axes[0].texts if "×" in text.get_text()]
    assert weights == ["×0.56", "×0.19", "×0.19", "×0.062"]
    assert not [text for text in trace.figure(bin=None).axes[0].texts if "×" in text.get_text()]
    for wrong in ({"sample": 4}, {"bin": None, "sample": 0}, {"sample": 0.5}):
        with pytest.raises(ValueError, match="sample is .* expected one of them, from 0"):
            trace.figure(**wrong)
    for wrong in ({"bin": (2, 0)}, {"channel": 1}):
        with pytest.raises(ValueError, match="expected a whole number from 0 to"):
            trace.figure(**wrong)


def test_large_maps_are_drawn_around_the_box():
    rng = np.random.default_rng(0)
    trace = explain.roi(rng.standard_normal((60, 80)), (20, 30, 30, 36), output_size=3, aligned=True)
    left, top, right, bottom = view(trace)
    assert 17 < left < 20 and 30 < right < 33 and 27 < top < 30 and 36 < bottom < 39
    trace.figure().draw_without_rendering()


def test_svg_is_well_formed_and_the_same_each_time():
    comparison = explain.roi_compare(ramp(), BOXES[0], output_size=2)
    for shown in (comparison, *comparison.traces):
        text = shown.svg()
        assert text == shown.svg()
        root = xml.etree.ElementTree.fromstring(text)
        assert root.tag == f"{SVG}svg" and root.find(f"{SVG}title").text
        written = [node.text for node in root.iter(f"{SVG}text")]
        assert "24" in written and "the box as given" in written


def test_drawing_leaves_matplotlib_alone():
    code = (
        "import numpy as np, sys, tinyseg; t = tinyseg.explain.roi(np.ones((4, 4)), (0, 0, 2, 2), 'roi_pool', "
        "output_size=1); str(t); t.to_json(); assert 'matplotlib' not in sys.modules; import matplotlib; "
        "before = matplotlib.rcParams.copy(); t.svg(); assert before == matplotlib.rcParams.copy(); "
        "assert 'matplotlib.pyplot' not in sys.modules and 'numba' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# ---- pages -----------------------------------------------------------------------------------------------------------


class Page(html.parser.HTMLParser):
    """Collects a page's elements, and checks that all are closed in order."""

    VOID = ("meta", "br", "img", "link")

    def __init__(self, text):
        super().__init__()
        self.open, self.elements, self.texts = [], [], {}
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open:
            self.texts.setdefault(self.open[-1], []).append(data)


@pytest.mark.parametrize("box", BOXES[::2], ids=str)
def test_pages_are_whole_and_stand_alone(box):
    comparison = explain.roi_compare(ramp(), box, output_size=(2, 3), sampling_ratio=2)
    for shown, traces in ((comparison, comparison.traces), *((trace, [trace]) for trace in comparison.traces[::3])):
        page = Page(shown.html())
        ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
        assert len(set(ids)) == len(ids)
        for tag, attributes in page.elements:
            for name in ("src", "href", "xlink:href"):
                assert attributes.get(name, "#").startswith(("#", "data:")), (tag, attributes)
                if attributes.get(name, "").startswith("#"):
                    assert attributes[name][1:] in ids
        buttons = [attributes for tag, attributes in page.elements if tag == "button"]
        assert len(buttons) == 6 * len(traces) and all(button["aria-label"] for button in buttons)
        *datas, script = page.texts["script"]
        assert "addEventListener" in script
        for data, trace in zip(datas, traces, strict=True):
            bins = json.loads(data, parse_constant=pytest.fail)["bins"]
            assert [one["text"] for one in bins] == [
                text.strip("\n") for text in re.split(r"\n(?=bin )", trace.table().split("\n\n")[2])
            ]


def test_a_page_has_the_numbers_of_the_trace():
    trace = explain.roi(ramp(), (0, 0, 2, 2), output_size=2, sampling_ratio=2, aligned=True)
    page = Page(trace.html())
    assert page.texts["button"] == ["0.75", "1.625", "5.125", "6"]
    (data,) = (json.loads(text) for text in page.texts["script"][:1])
    first = data["bins"][0]
    assert first["area"] == list(bin_bounds(trace, 0, 0)) == [0, 0, 1, 1]
    assert first["cells"] == [[0, 0, "0.77"], [0, 1, "0.11"], [1, 0, "0.11"], [1, 1, "0.016"]]
    assert first["points"] == [[0.25, 0.25, True], [0.75, 0.25, True], [0.25, 0.75, True], [0.75, 0.75, True]]
    # where the first cell stands in the picture: as large there as its image is
    left, top, step = data["place"]
    (picture,) = [attributes for tag, attributes in page.elements if tag == "svg"]
    width, height = (float(part) for part in picture["viewbox"].split()[2:])
    assert 0 < left < left + 5 * step < width and 0 < top < top + 5 * step < height
