"""The RoI lab without a browser: its numbers, what a front end is told, and the picture where there is none."""

import base64
import io
import json
import sys

import numpy as np
import pytest
from PIL import Image

import tinyseg
from tinyseg import Tensor, explain, ops

RAMP = np.arange(25, dtype=np.float32).reshape(5, 5)


def ops_numbers(lab):
    """Return output and gradient of both operators, computed by tinyseg.ops from the lab's attributes."""
    rois = np.array([[0, *lab.box]], lab.features.dtype)
    found = []
    for op, how in (
        (ops.roi_pool, {}),
        (ops.roi_align, {"sampling_ratio": lab.sampling_ratio, "aligned": lab.aligned}),
    ):
        x = Tensor(lab.features[None, None], requires_grad=True)
        y = op(x, rois, lab.output_size, lab.spatial_scale, **how)
        dy = np.ones(y.shape, lab.features.dtype)
        if lab.gradient_of == "cell":
            dy[:] = 0
            dy[(0, 0, *lab.cell)] = 1
        (y * Tensor(dy)).sum().backward()
        found.append((y.numpy()[0, 0], x.grad.numpy()[0, 0]))
    return found


def assert_is_what_ops_compute(lab):
    for part, (output, gradient) in zip(lab.result, ops_numbers(lab), strict=True):
        np.testing.assert_array_equal(part.output, output)
        np.testing.assert_array_equal(part.gradient, gradient)


# ---- the lab ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["naive", "cpu"])
def test_numbers_worked_by_hand(backend):
    with tinyseg.use_backend(backend):
        lab = explain.roi_lab(RAMP, (0, 0, 2, 2), aligned=True)
        assert lab.result.roi_align.output.tolist() == [[0.75, 1.625], [5.125, 6]]
        assert lab.result.roi_pool.output.tolist() == [[6, 7], [11, 12]]  # cells 0 to 2: bins overlap in cell 1
        lab.aligned = False
        assert lab.result.roi_align.output.tolist() == [[3, 4], [8, 9]]
        assert lab.result.roi_pool.gradient.sum() == lab.result.roi_align.gradient.sum() == 4


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_every_change_is_what_the_operators_compute(dtype, rng):
    lab = explain.roi_lab(
        rng.normal(size=(2, 3, 9, 12)).astype(dtype), (1, 3.3, 2.1, 30, 21.7), spatial_scale=0.4, channel=2
    )
    for name, value in [
        ("box", (1.7, 2.2, 19, 13)), ("output_size", (3, 5)), ("sampling_ratio", -1), ("aligned", False),
        ("gradient_of", "cell"), ("cell", (2, 4)), ("box", (-9, 1, 4, 40)), ("output_size", 1),
    ]:  # fmt: skip
        setattr(lab, name, value)
        assert_is_what_ops_compute(lab)
    assert (lab.output_size, lab.cell) == ((1, 1), (0, 0))  # the chosen output is gone with the others


def test_the_channel_and_picture_that_were_asked_for(rng):
    x = rng.normal(size=(2, 3, 5, 6))
    lab = explain.roi_lab(Tensor(x), (1, 0, 0, 4, 4), channel=2)
    np.testing.assert_array_equal(lab.features, x[1, 2])
    x[:] = 0
    assert lab.features.any()  # what changes afterwards is not shown


def test_a_lab_of_its_own():
    lab = explain.roi_lab()
    assert_is_what_ops_compute(lab)
    assert len(np.unique(lab.result.roi_pool.output)) == 4
    assert explain.roi_lab(np.zeros((2, 1, 20, 30)), spatial_scale=0.5).box[2] > 30


def test_what_no_operator_takes_changes_nothing():
    lab = explain.roi_lab(RAMP, (0, 0, 2, 2))
    before = lab.result
    for name, value, error in [
        ("box", (0, 0, np.nan, 2), "nan"), ("box", (0, 0, 2), "box is .*four numbers"), ("output_size", 0, "output"),
        ("cell", (2, 0), "cell is .*2 x 2"), ("gradient_of", "some", "gradient_of is 'some'; expected 'all' or 'cell'"),
    ]:  # fmt: skip
        with pytest.raises(ValueError, match=error):
            setattr(lab, name, value)
        assert lab.result is before and lab.box == (0, 0, 2, 2)
    with pytest.raises(TypeError, match="aligned"):
        lab.aligned = "yes"
    with pytest.raises(ValueError, match="channel is 1; expected a whole number from 0 to 0"):
        explain.roi_lab(RAMP, channel=1)


def test_what_one_operator_refuses_is_said_in_its_words():
    lab = explain.roi_lab(RAMP, (3, 3, 1, 1), sampling_ratio=-1)
    with pytest.raises(ValueError) as refusal:
        ops.roi_align(Tensor(RAMP[None, None]), np.float32([[0, 3, 3, 1, 1]]), 2, aligned=True)
    assert lab.result.roi_align == (None, None, None, str(refusal.value))
    assert lab.result.roi_pool.output.tolist() == [[18, 18], [18, 18]]
    assert str(refusal.value) in str(lab) and str(refusal.value) in lab.to_json()
    assert len(lab.figure().axes) < len(explain.roi_lab(RAMP, (1, 1, 3, 3)).figure().axes)


def test_nothing_else_changes():
    threads = tinyseg.get_num_threads()
    with tinyseg.no_grad():
        assert explain.roi_lab(RAMP).result.roi_align.gradient.any()
    assert tinyseg.get_num_threads() == threads


def test_text_and_json():
    lab = explain.roi_lab(RAMP, (0, 0, 2, 2), sampling_ratio=2)
    lines = str(lab).splitlines()
    assert lines[0] == "RoI lab: box (0, 0, 2, 2) in pixels, 1 cells per pixel, output 2 x 2"
    assert "  5.125      6" in lines and "RoIAlign, aligned, 2 x 2 samples per bin" in lines
    made = json.loads(lab.to_json())
    assert made["box"] == [0, 0, 2, 2] and made["roi_align"]["output"] == [[0.75, 1.625], [5.125, 6]]
    again = explain.RoITrace.from_json(json.dumps(made["roi_align"]["trace"]))
    assert again.output[0].tolist() == made["roi_align"]["output"]


# ---- what a front end is told ----------------------------------------------------------------------------------------


def ask(lab, **changes):
    """Ask as a front end does; return what the widget tells it."""
    widget = lab.widget
    settings = {**widget.settings, **{name: value for name, value in changes.items() if name != "box"}}
    widget.set_state({"box": changes.get("box", widget.box), "settings": settings})
    return widget.result


def test_a_question_is_answered_with_what_it_asked(rng):
    lab = explain.roi_lab(rng.normal(size=(8, 7)).astype(np.float32))
    for changes in (
        {"box": [1.25, 2, 5.5, 6]},
        {"output_size": [3, 2], "cell": [2, 1]},
        {"box": [0, 0, 7, 7], "gradient_of": "cell"},
    ):
        result = ask(lab, **changes)
        for name, value in changes.items():
            assert {"box": result["box"], **result["settings"]}[name] == value
        assert (result["box"], result["settings"]) == (lab.widget.box, lab.widget.settings)
        for op, (output, gradient) in zip(("roi_pool", "roi_align"), ops_numbers(lab), strict=True):
            np.testing.assert_array_equal(np.float32(result[op]["output"]), output)
            told = np.zeros_like(gradient)
            for y, x, value in result[op]["gradient"]["cells"]:
                told[y, x] = value
            np.testing.assert_array_equal(told, gradient)
            assert result[op]["gradient"]["sum"] == gradient.sum(dtype=np.float64)
        json.dumps(result, allow_nan=False)


def test_python_tells_the_front_end():
    lab = explain.roi_lab(RAMP, (0, 0, 2, 2))
    widget = lab.widget
    lab.box = (1, 1, 3, 3)
    assert widget.box == widget.result["box"] == [1, 1, 3, 3] and lab.widget is widget
    assert widget.result["roi_align"]["output"] == lab.result.roi_align.output.tolist()


def test_what_is_refused_goes_back():
    lab = explain.roi_lab(RAMP, (0, 0, 2, 2))
    ask(lab, box=[0, 0, 1e300, 2])  # infinite in float32
    assert lab.widget.box == [0, 0, 2, 2] and lab.box == (0, 0, 2, 2)


def test_drawings_are_those_of_the_trace():
    lab = explain.roi_lab(RAMP, (0.6, 1, 2.4, 3), sampling_ratio=2)
    pool, align = (ask(lab, box=[0.5, 1, 2.25, 3], cell=[1, 0])[op] for op in ("roi_pool", "roi_align"))
    # RoIPool: 0.5 rounds to 1, 2.25 to 2, both cells included; rows 1 to 3 make bins of 1.5
    assert pool["box"] == [1, 1, 3, 4] and pool["bins"] == {"y": [[1, 3], [2, 4]], "x": [[1, 2], [2, 3]]}
    assert pool["detail"]["cells"] == [[2, 1], [3, 1]] and pool["maxima"] == [[2, 1], [2, 2], [3, 1], [3, 2]]
    assert "is 16: the largest of 2 cells (rows 2 to 3, column 1), at row 3, column 1" in pool["detail"]["text"]
    # RoIAlign draws half a cell from where it counts: the box lies where it is in the picture
    assert align["box"] == [0.5, 1, 2.25, 3]
    trace = lab.result.roi_align.trace
    assert align["samples"]["y"][1] == [[place + 0.5, True] for place in trace.rows.place[1].tolist()]
    listed = align["detail"]["samples"]
    assert [(y, x, value) for y, x, value, _ in listed] == [(s.y, s.x, s.value) for s in trace.samples(1, 0)]
    for _, _, value, cells in listed:
        assert sum(weight * cell for weight, cell in cells) == pytest.approx(value, rel=1e-6)
    assert align["detail"]["cells"] == np.argwhere(trace.weights(1, 0)).tolist()


def test_samples_off_the_map_and_too_many_to_draw():
    lab = explain.roi_lab(RAMP, (-4, 1, 2, 3))
    result = ask(lab, cell=[0, 0])["roi_align"]
    assert "of which 4 off the map count as 0" in result["detail"]["text"]
    assert [sample[3] for sample in result["detail"]["samples"]] == [[], [], [], []]
    result = ask(lab, sampling_ratio=60)["roi_align"]
    assert [len(bins) for bins in result["samples"]["y"]] == [60, 0] and "Too many" in result["detail"]["text"]
    assert result["detail"]["left_out"] == 3600 - 16 and len(result["detail"]["samples"]) == 16


def test_maps_that_are_not_finite():
    plane = RAMP.copy()
    plane[0, 0], plane[1, 1] = np.nan, np.inf
    lab = explain.roi_lab(plane, (0, 0, 2, 2))
    assert lab.widget.picture["values"][0][0] == "NaN" and lab.widget.picture["values"][1][1] == "Infinity"
    json.dumps([lab.widget.picture, lab.widget.result], allow_nan=False)


# ---- without a front end ---------------------------------------------------------------------------------------------


def displayed(lab, monkeypatch):
    """Return what a lab displays, bundle by bundle."""
    bundles = []
    monkeypatch.setattr("IPython.display.display", lambda data, **how: bundles.append(data))
    lab._ipython_display_()
    return bundles


def test_a_picture_stands_before_the_widget_which_hides_it(monkeypatch):
    lab = explain.roi_lab(RAMP)
    still, widget = displayed(lab, monkeypatch)
    assert widget.pop("application/vnd.jupyter.widget-view+json")["model_id"] == lab.widget.model_id
    assert widget == {"text/html": "<!-- the RoI lab's widget -->"}  # nothing to see twice
    assert still["text/plain"] == str(lab)
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(still["image/png"]))))
    assert picture.shape[1] > 500 and len(np.unique(picture.reshape(-1, 3), axis=0)) > 50
    assert 'class="tinyseg-roi-lab-still"' in still["text/html"] and still["image/png"] in still["text/html"]
    assert ".tinyseg-roi-lab-still { display: none; }" in lab.widget._css
    assert "anywidget" not in still["text/html"]


def test_without_anywidget_there_is_the_picture_and_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "anywidget", None)
    monkeypatch.delitem(sys.modules, "tinyseg.explain.rois.lab_widget", raising=False)
    lab = explain.roi_lab(RAMP)
    assert lab.widget is None
    (still,) = displayed(lab, monkeypatch)
    for kind in ("text/html", "text/plain"):
        assert "install anywidget: pip install" in still[kind]
    lab.box = (0, 0, 2, 2)
    assert lab.result.roi_align.output.tolist() == [[0.75, 1.625], [5.125, 6]]


def test_the_front_end_needs_no_network():
    text = explain.roi_lab(RAMP).widget
    for part in (text._esm, text._css):
        assert "import " not in part and "@import" not in part and "url(" not in part
        assert part.replace("http://www.w3.org/2000/svg", "").count("http") == 0
