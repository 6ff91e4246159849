"""The demo: its files, its page, which must need nothing else, and the numbers of its RoI pictures."""

import io
import re
import sys
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

import kernels
from tinyseg.cli import demo_rois, demo_shapes, main
from tinyseg.cli.demo_page import page
from tinyseg.data import shapes
from tinyseg.training import load_model

CELLS = {"picture", "truth", "probability", "mask", "errors"}
SHAPES = {"picture", "truth", "objects"}


class Page(HTMLParser):
    """Collects what a page refers to, and whether its elements are closed in order."""

    void = {"meta", "img", "br", "hr", "link", "input"}

    def __init__(self, text):
        super().__init__()
        self.sources, self.open, self.alts, self.text = [], [], [], ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.sources += [attributes[name] for name in ("src", "href", "srcset", "data") if name in attributes]
        if tag == "img":
            self.alts.append(attributes.get("alt"))
        if tag not in self.void:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module", autouse=True)
def few_pictures():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo_shapes, "TRAIN", 6)
        patch.setattr(demo_shapes, "TEST", 4)
        yield


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    out = tmp_path_factory.mktemp("demo") / "demo"
    assert main(["demo", "--steps", "2", "--out", str(out)]) == 0
    return out


def test_files(demo):
    assert sorted(path.name for path in demo.iterdir()) == [
        "demo.html",
        "maskrcnn.safetensors",
        "pictures",
        "unet.safetensors",
    ]
    names = {f"cells_{n}_{kind}.png" for n in range(1, 5) for kind in CELLS}
    names |= {f"shapes_{n}_{kind}.png" for n in range(1, 5) for kind in SHAPES}
    names |= {"roi_pool.png", "roi_align.png", "roi_slide.png"}
    assert {path.name for path in (demo / "pictures").iterdir()} == names
    assert load_model(demo / "unet.safetensors")[1]["step"] == 2
    info = load_model(demo / "maskrcnn.safetensors")[1]
    assert info["step"] == 2 and info["class_names"] == ["background", "disc", "rectangle", "triangle"]


def test_the_page_is_whole_and_needs_nothing_else(demo):
    text = (demo / "demo.html").read_text(encoding="utf-8")
    found = Page(text)
    # four pictures of each network, a curve each, and three drawings of RoIs
    assert found.open == [] and len(found.alts) == 4 * len(CELLS) + 4 * len(SHAPES) + 2 + 3 and all(found.alts)
    assert all(source.startswith("data:image/png;base64,") for source in found.sources)
    text = re.sub(r"base64,[A-Za-z0-9+/=]+", "", text)  # in which any four letters may occur
    assert len(text) < 40_000
    assert "http" not in text and "url(" not in text and "@import" not in text and "<script" not in text
    assert 'name="viewport"' in text


def test_the_page_says_what_the_files_say(demo):
    found = Page((demo / "demo.html").read_text(encoding="utf-8"))
    dice = load_model(demo / "unet.safetensors")[1]["scores"]["dice"]
    assert f"{dice:.3f}" in found.text
    for score in load_model(demo / "maskrcnn.safetensors")[1]["scores"].values():
        assert f"{score:.3f}" in found.text
    for word in ("probability", "found", "false alarm", "missed", "Dice", "IoU", "Pixel error", "AP50", "RoIAlign"):
        assert word in found.text


def test_predict_repeats_the_demo(demo, tmp_path):
    """The command that the page ends with works on the demo's files."""
    for kind, name in (("unet", "cells"), ("maskrcnn", "shapes")):
        command = ["predict", "--weights", demo / f"{kind}.safetensors", demo / "pictures" / f"{name}_1_picture.png"]
        assert main([str(part) for part in (*command, "--out", tmp_path / kind)]) == 0
    assert (tmp_path / "maskrcnn" / "detections.json").exists() and (tmp_path / "unet").is_dir()


def test_a_second_demo_replaces_the_first_but_nothing_else(demo, tmp_path, capsys):
    (tmp_path / "thesis.txt").write_text("precious")
    assert main(["demo", "--steps", "1", "--out", str(tmp_path)]) == 2
    assert "holds other files; choose another folder with --out" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
    assert main(["demo", "--steps", "1", "--out", str(demo)]) == 0
    assert load_model(demo / "unet.safetensors")[1]["step"] == 1


def test_without_pycocotools_there_is_a_page_that_says_how_to_get_the_score(demo, monkeypatch):
    from tinyseg.training import History

    monkeypatch.setitem(sys.modules, "pycocotools", None)
    model, info = load_model(demo / "maskrcnn.safetensors")
    samples = [shapes(64, i, radius=(8, 20)) for i in range(5)]
    shown, summary = demo_shapes.look(model, samples, info["normalisation"], score=0, progress=False)
    assert summary is None and len(shown) == 4
    png = demo_rois.draw("roi_pool")
    history = History(step=2, losses=[1.0, 0.5], rows=[{"step": 2}], seconds=200)
    settings = {"parameters": 10, "batch_size": 1, "crop": 2, "picture_size": 3}
    mean = {"dice": 0.9, "iou": 0.8, "pixel_error": 0.1}
    cells = {"shown": [], "summary": {"mean": mean}, "history": history, "settings": settings}
    drawn = [{**item, "drawings": dict.fromkeys(SHAPES, png)} for item in shown]
    found = {"shown": drawn, "summary": None, "history": history, "settings": settings}
    text = page(cells, found, dict.fromkeys(("pool", "align", "slide"), png))
    assert "pip install 'tinyseg[coco]'" in text and "AP50" not in text and "Seven minutes ago" in text
    assert f"of {sum(item['objects'] for item in shown)} found" in text


# ---- objects found -------------------------------------------------------------------------------------------------


def test_objects_count_as_found_once_and_in_their_class():
    sample = shapes(96, 7, count=(3, 3), radius=(10, 16), max_overlap=0)
    masks = sample.instance_masks[:, None].astype(np.float32)
    found = {"labels": sample.classes, "masks": masks}
    assert len(masks) == 3 and demo_shapes._found(sample, found) == 3
    assert demo_shapes._found(sample, {"labels": sample.classes % 3 + 1, "masks": masks}) < 3
    twice = {"labels": np.repeat(sample.classes[:1], 2), "masks": np.repeat(masks[:1], 2, axis=0)}
    assert demo_shapes._found(sample, twice) == 1
    assert demo_shapes._found(sample, {"labels": sample.classes, "masks": np.roll(masks, 40, axis=2)}) == 0
    assert demo_shapes._found(sample, {"labels": sample.classes[:0], "masks": masks[:0]}) == 0


# ---- RoIPool and RoIAlign ------------------------------------------------------------------------------------------


def test_pooled_numbers_are_those_that_the_drawing_shows():
    ramp = demo_rois.feature_map()[0, 0]
    pool, align = map(demo_rois.trace, ("roi_pool", "roi_align"))
    assert pool.box == (1, 1, 4, 4)  # both end cells belong to the box: four of each axis, two to a bin
    expected = ramp[1:5, 1:5].reshape(2, 2, 2, 2).max((1, 3))
    np.testing.assert_array_equal(pool.output[0], expected)
    # the ramp is linear: between the cells' centres, row 8 and column 1 apart, it is 8 y + x; a point in cells counts
    # from the corner of the first cell, half a cell before its centre
    (x1, y1, x2, y2), bins = (np.array(demo_rois.BOX) - 0.5), (np.arange(2) + 0.5) / 2
    xs, ys = x1 + bins * (x2 - x1), y1 + bins * (y2 - y1)  # the points lie evenly around the middle of each bin
    np.testing.assert_allclose(align.output[0], ramp.shape[1] * ys[:, None] + xs, rtol=1e-12)
    cpu, rois = kernels.get("cpu"), np.array([[0, *demo_rois.BOX]])
    y, _ = cpu.roi_pool_forward(demo_rois.feature_map(), rois, demo_rois.BINS)
    np.testing.assert_array_equal(pool.output, y[0])
    y = cpu.roi_align_forward(demo_rois.feature_map(), rois, demo_rois.BINS, 1.0, demo_rois.SAMPLES, aligned=True)
    np.testing.assert_allclose(align.output, y[0], rtol=1e-12)


def test_sliding_makes_one_jump_and_the_other_slide():
    shifts = np.linspace(0, demo_rois.SLIDE, 101)
    pool = np.array([demo_rois.trace("roi_pool", shift).output.ravel()[0] for shift in shifts])
    align = np.array([demo_rois.trace("roi_align", shift).output.ravel()[0] for shift in shifts])
    np.testing.assert_allclose(align - align[0], shifts, atol=1e-9)
    steps = np.diff(pool)
    assert set(steps) == {0, 1} and (steps == 1).sum() == 3


@pytest.mark.parametrize("drawing", ["roi_pool", "roi_align", "slide"])
def test_drawings_are_pictures(drawing):
    png = demo_rois.draw_slide() if drawing == "slide" else demo_rois.draw(drawing)
    picture = np.asarray(Image.open(io.BytesIO(png)))
    assert min(picture.shape[:2]) > 400 and np.ptp(picture[..., :3]) == 255
