"""The x-ray's figures and page, and the command: every stage is drawn, with or without truth, also where nothing is."""

import json
import re

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from tinyseg import cli, explain, files, models, random
from tinyseg.data import shapes, write_mask, write_picture
from tinyseg.training import save_model

SMALL = {
    "width": 4, "channels": 8, "returned_layers": [2, 3], "anchor_sizes": [[12], [24], [48]], "representation_size": 16,
    "mask_channels": 4, "rpn_pre_nms_top_n_test": 60, "rpn_post_nms_top_n_test": 20, "box_score_thresh": 0.3,
}  # fmt: skip
NAMES = ["background", "disc", "rectangle", "triangle"]


def network(**options):
    random.manual_seed(0)
    model = models.mask_rcnn(4, **{**SMALL, **options})
    for layer in (model.rpn.head.cls_logits, model.rpn.head.bbox_pred, model.roi_heads.box_predictor.cls_score):
        layer.weight.array *= 50
    return model


@pytest.fixture(scope="module")
def sample():
    return shapes((64, 72), 1, radius=(8, 20))


def look(sample, truth=True, **options):
    target = {"boxes": sample.boxes, "labels": sample.classes} if truth else None
    return explain.detector(network(**options), sample.picture, target, class_names=NAMES)


def texts(figure):
    """Return all words of a figure, of its parts too."""
    from matplotlib.text import Text

    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


def pixels(figure):
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]


CASES = {
    "truth": {},
    "no truth": {"truth": False},
    "nothing found": {"box_score_thresh": 1.0},
    "no proposals": {"rpn_score_thresh": 1.5},
    "one map, no masks": {"fpn": False, "returned_layers": [2], "anchor_sizes": [[12, 24, 48]], "roi_op": "pool"},
    "resized and padded": {"min_size": 80, "truth": False},
}


@pytest.mark.parametrize("case", CASES)
def test_every_stage_is_drawn(sample, case):
    xray = look(sample, **CASES[case])
    for stage in xray.stages:
        figure = xray.figure(stage.name)
        assert f"{stage.title} · {stage.count} {stage.unit}" in texts(figure)
        if case != "truth":
            continue  # drawing takes a while
        drawn = pixels(figure)
        assert drawn.shape[:2] == (690, 960)
        assert (drawn != 255).any(axis=2).mean() > 0.005
        for text in figure.texts:  # nothing runs out of the figure
            box = text.get_window_extent()
            assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= 960 and box.y1 <= 690, (stage.name, text.get_text())


@pytest.mark.parametrize("case", ["truth", "no truth", "no proposals"])
def test_the_sheet_shows_the_stages_that_change_something(sample, case):
    xray = look(sample, **CASES[case])
    figure = xray.figure()
    words = texts(figure)
    numbered = [re.match(r"\d+ (\w+): (\d+) ", text) for text in words]
    shown = [(match[1], int(match[2])) for match in numbered if match]
    counts = {stage.name: stage.count for stage in xray.stages}
    assert shown == [(name, counts[name]) for name, _ in shown]
    left_out = set(counts) - {name for name, _ in shown}
    for name in left_out:  # only what lets all boxes pass
        assert xray[name].count == xray.before(xray[name]).count
    assert {"picture", "anchors", "top", "refined", "found"}.isdisjoint(left_out)
    assert ("true object" in words) == ("recall: share of objects covered" in words) == (xray.truth is not None)
    counted = [stage.count for stage in xray.stages if stage.boxes is not None and stage.name not in left_out]
    chart = next(axes for axes in figure.findobj(Axes) if axes.get_xlabel() == "boxes")
    assert [bar.get_x() + bar.get_width() for bar in chart.patches] == [max(count, 0.5) for count in counted]
    assert figure.get_figwidth() == 16.5 and figure.get_figheight() <= 13


def test_the_score_of_a_covering_box_decides_its_colour(sample):
    xray = look(sample)
    figure = xray.figure("top")
    words = " ".join(texts(figure))
    covers = int((explain.detectors.stages.overlaps(xray["top"], xray.truth) >= 0.5).any(axis=0).sum())
    assert f"covers an object (IoU 0.5): {covers}" in words
    assert f"covers none: {xray['top'].count - covers}" in words


def test_page_and_folder(sample, tmp_path):
    target = {"boxes": sample.boxes, "labels": sample.classes}
    xray = explain.detector(network(), sample.picture, target, class_names=["background", *["<i>&"] * 3])
    assert xray.save(tmp_path / "out") == tmp_path / "out" / "index.html"
    names = {path.name for path in (tmp_path / "out").iterdir()}
    drawings = {f"{number:02d}_{stage.name}.png" for number, stage in enumerate(xray.stages, 1)}
    assert names == {"index.html", "stages.json", "overview.png", *drawings}
    assert (tmp_path / "out" / "stages.json").read_text("utf-8") == xray.to_json()
    with Image.open(tmp_path / "out" / "09_large.png") as drawing:
        assert drawing.size == (960, 690)
    page = (tmp_path / "out" / "index.html").read_text("utf-8")
    ids = re.findall(r'<section id="(\w+)"', page)
    assert ids == ["overview", *(stage.name for stage in xray.stages)]
    assert page.count("<img alt=") == page.count('src="data:image/png;base64,') == len(ids)
    assert not re.findall(r'(?:src|href)="(?!data:|#)', page)  # it needs no other file
    assert all(f'href="#{name}"' in page for name in ids[1:])
    assert set(re.findall(r'href="#(\w+)"', page)) <= set(ids)
    assert page.count("<li>") == len(sample.boxes)
    assert "<i>" not in page and "&lt;i&gt;&amp;" in page  # names are escaped


# ---- the command -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory, sample):
    """A picture, its objects as label picture and COCO file, and files of weights."""
    root = tmp_path_factory.mktemp("xray")
    write_picture(root / "a.png", sample.picture)
    write_mask(root / "labels.png", sample.instances, 255)
    save_model(root / "model.safetensors", network(), {"class_names": NAMES, "category_ids": [4, 5, 9]})
    save_model(root / "unet.safetensors", models.UNet(widths=(4, 8)))
    boxes = [[x1, y1, x2 - x1, y2 - y1] for x1, y1, x2, y2 in sample.boxes.tolist()]
    entries = [
        {"id": n, "image_id": 7, "bbox": box, "category_id": [4, 5, 9][label - 1], "area": 9.0, "iscrowd": 0}
        for n, (box, label) in enumerate(zip(boxes, sample.classes.tolist(), strict=True), 1)
    ]
    coco = {
        "images": [{"id": 7, "file_name": "a.png", "height": 64, "width": 72},
                   {"id": 8, "file_name": "gone.png", "height": 5, "width": 5}],
        "categories": [{"id": number, "name": name} for number, name in zip([4, 5, 9], NAMES[1:], strict=True)],
        "annotations": entries,
    }  # fmt: skip
    files.write_text(root / "coco.json", json.dumps(coco))
    coco["categories"].append({"id": 11, "name": "star"})
    entries[0]["category_id"] = 11
    files.write_text(root / "other.json", json.dumps(coco))
    coco["images"][0]["height"] = 65
    files.write_text(root / "taller.json", json.dumps(coco))
    return root


def run(folder, capsys, *arguments, picture="a.png", weights="model.safetensors"):
    places = [str(folder / picture), "--weights", str(folder / weights)]
    code = cli.main(["explain", "detector", *places, *map(str, arguments)])
    return code, *capsys.readouterr()


def test_command_without_truth(folder, capsys, tmp_path):
    code, out, err = run(folder, capsys, "--out", tmp_path / "page.html")
    assert (code, err) == (0, "")
    assert out.startswith("stage ") and f"the page is {tmp_path / 'page.html'}" in out and "object 0" not in out
    page = re.sub('base64,[^"]*', "", (tmp_path / "page.html").read_text("utf-8"))
    assert "threshold" in page and "What became" not in page and "IoU" not in page


def test_what_is_there_is_not_written_over(folder, capsys, tmp_path, monkeypatch):
    saved = []
    monkeypatch.setattr(explain.DetectorXRay, "save", lambda xray, path: saved.append((xray["threshold"].count, path)))
    for there in (tmp_path / "page.html", tmp_path):
        files.write_text(tmp_path / "page.html", "mine")
        code, _, err = run(folder, capsys, "--out", there)
        assert code == 2 and err.count("\n") == 1 and f"{there} is there already; add --overwrite" in err
        assert run(folder, capsys, "--out", there, "--overwrite", "--score", "1")[0] == 0
    assert saved == [(0, tmp_path / "page.html"), (0, tmp_path)]


@pytest.mark.parametrize("truth", ["coco.json", "labels.png"])
def test_command_with_truth(folder, sample, capsys, tmp_path, monkeypatch, truth):
    saved = []
    monkeypatch.setattr(explain.DetectorXRay, "save", lambda xray, path: saved.append(xray))
    code, out, err = run(folder, capsys, "--truth", folder / truth, "--out", tmp_path / "out", "--score", "0.2")
    assert (code, err) == (0, "")
    (xray,) = saved
    np.testing.assert_array_equal(xray.truth["boxes"], sample.boxes)
    labels = sample.classes if truth == "coco.json" else np.ones(len(sample.classes))
    np.testing.assert_array_equal(xray.truth["labels"], labels)
    assert list(xray.class_names) == NAMES
    assert "0.2 or less" in xray["threshold"].text and xray["threshold"].scores.min() > 0.2
    assert out.count("\nobject ") == len(sample.boxes)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"weights": "unet.safetensors"}, "unet.safetensors holds a U-Net; expected a Mask R-CNN or Faster R-CNN"),
        ({"weights": "gone.safetensors"}, "gone.safetensors: no such file"),
        ({"picture": "gone.png"}, "gone.png"),
        ({"truth": "other.json"}, "has an object of category 11, which the network does not know"),
        ({"truth": "taller.json"}, "a.png is 64 x 72 (height x width); expected 65 x 72, as"),
        ({"truth": "coco.json", "picture": "labels.png"}, "lists 0 pictures of the name labels.png; expected one"),
        ({"truth": "gone.json"}, "gone.json does not exist"),
    ],
)
def test_mistakes_are_one_line(folder, capsys, tmp_path, arguments, words):
    truth = arguments.pop("truth", None)
    more = [] if truth is None else ["--truth", folder / truth]
    code, out, err = run(folder, capsys, *more, "--out", tmp_path / "x.html", **arguments)
    assert code == 2 and out == "" and err.count("\n") == 1
    assert err.startswith("tinyseg: error: ") and words in err
    assert not (tmp_path / "x.html").exists()
