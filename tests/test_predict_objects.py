"""``tinyseg predict`` with detectors: its files against what the network says, and every mistake in one line."""

import json
import sys
import tracemalloc
import warnings

import numpy as np
import pytest
import tifffile
from PIL import Image

from kernels.cpu import memory
from tinyseg import backend, draw, manual_seed, models, no_grad
from tinyseg import weights as weight_files
from tinyseg.cli import main
from tinyseg.cli.predict_objects import _Masks
from tinyseg.cli.predict_weights import COCO_CATEGORIES
from tinyseg.data import read_picture, shapes, write_picture
from tinyseg.training import load_model, save_model

SMALL = {
    "width": 4,
    "channels": 8,
    "returned_layers": [2, 3],
    "anchor_sizes": [[12], [24], [48]],
    "representation_size": 16,
    "rpn_post_nms_top_n_test": 40,
}


def small(kind="maskrcnn", num_classes=4, seed=0, **options):
    """Return a network of random weights that is sure enough of some things."""
    manual_seed(seed)
    extra = {"mask_channels": 4} if kind == "maskrcnn" else {}
    make = models.mask_rcnn if kind == "maskrcnn" else models.faster_rcnn
    model = make(num_classes, **SMALL, **extra, **options).eval()
    head = model.roi_heads.box_predictor.cls_score
    head.weight.array[...] *= 20
    if kind == "maskrcnn":
        model.roi_heads.mask_predictor.mask_fcn_logits.weight.array[...] *= 5
    return model


@pytest.fixture(autouse=True)
def same_backend_afterwards():
    before = backend.current_backend()
    yield
    backend.use_backend(before)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two pictures, and a file of weights for each kind of network."""
    root = tmp_path_factory.mktemp("objects")
    (root / "new").mkdir()
    for i, size in enumerate([(70, 90), (64, 50)]):
        write_picture(root / "new" / f"{'ab'[i]}.png", shapes(size, i, radius=(8, 20)).picture)
    names = ["background", "disc", "rectangle", "triangle"]
    for kind in ("maskrcnn", "fasterrcnn"):
        save_model(root / f"{kind}.safetensors", small(kind), {"normalisation": {"kind": "none"}, "class_names": names})
    return root


@pytest.fixture
def fails(capsys):
    """A function that runs a command, which must end with one line, and returns that line."""

    def run(*arguments):
        assert main([str(argument) for argument in arguments]) == 2
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1 and lines[0].startswith("tinyseg: error: ")
        return lines[0]

    return run


def decoded(entries):
    """Return the masks of detections, (K, H, W) bool."""
    from pycocotools import mask as tools

    with warnings.catch_warnings():  # pycocotools 2.0.10 calls NumPy in a way that NumPy 2 warns of
        warnings.simplefilter("ignore", DeprecationWarning)
        return np.array([tools.decode(entry["segmentation"]) for entry in entries], bool)


def command(*arguments):
    return main([str(argument) for argument in ("predict", *arguments)])


def expected(folder, kind, name, score):
    """Return what the network says of a picture, as arrays."""
    model, _ = load_model(folder / f"{kind}.safetensors")
    model.roi_heads.score_thresh = score
    with no_grad():
        (found,) = model([read_picture(folder / "new" / name)])
    return {key: value.numpy() for key, value in found.items()}


def test_files_of_a_mask_rcnn_say_what_the_network_says(folder, tmp_path, capsys):
    assert command("--weights", folder / "maskrcnn.safetensors", folder / "new", "--out", tmp_path, "--score", 0.4) == 0
    assert {path.name for path in tmp_path.iterdir()} == {
        "a_overlay.png",
        "a_instances.png",
        "b_overlay.png",
        "b_instances.png",
        "detections.json",
    }
    entries = json.loads((tmp_path / "detections.json").read_text())
    said = capsys.readouterr().out
    for image_id, name in enumerate(("a.png", "b.png"), 1):
        found = expected(folder, "maskrcnn", name, 0.4)
        ours = [entry for entry in entries if entry["image_id"] == image_id]
        count = len(found["scores"])
        assert len(ours) == count > 3 and f"{count} objects" in said
        assert {entry["file_name"] for entry in ours} == {name}
        assert [entry["score"] for entry in ours] == found["scores"].tolist()
        assert [entry["category_id"] for entry in ours] == found["labels"].tolist()
        assert {entry["category"] for entry in ours} <= {"disc", "rectangle", "triangle"}
        corners = np.array([entry["bbox"] for entry in ours])
        corners[:, 2:] += corners[:, :2]
        np.testing.assert_allclose(corners, found["boxes"], rtol=0, atol=1e-4)
        assert [entry["object"] for entry in ours] == list(range(count, 0, -1))
        masks = found["masks"][:, 0] >= 0.5
        assert masks.any()
        np.testing.assert_array_equal(decoded(ours), masks)
        numbers = np.asarray(Image.open(tmp_path / f"{name[0]}_instances.png"))
        painted = np.zeros(masks.shape[1:], int)
        for number, mask in enumerate(masks[::-1], 1):
            painted[mask] = number
        np.testing.assert_array_equal(numbers, painted)
        overlay = np.asarray(Image.open(tmp_path / f"{name[0]}_overlay.png"))
        turned = {key: value[::-1] for key, value in found.items()}
        names = ("", "disc", "rectangle", "triangle")
        picture = read_picture(folder / "new" / name)
        np.testing.assert_array_equal(overlay, draw.detections(picture, **turned, class_names=names))


def test_score_and_number_of_objects_are_options(folder, tmp_path):
    base = ["--weights", folder / "maskrcnn.safetensors", folder / "new" / "a.png", "--overwrite", "--out", tmp_path]
    counts = {}
    for options in (("--score", "0.4"), ("--score", "0.4", "--max-objects", "2"), ("--score", "1"), ()):
        assert command(*base, *options) == 0
        counts[options] = [entry["score"] for entry in json.loads((tmp_path / "detections.json").read_text())]
    all_scores, best, none, by_default = counts.values()
    assert best == all_scores[:2] and len(all_scores) > 2 and none == []
    assert by_default == [score for score in all_scores if score > 0.5] != all_scores
    assert not np.asarray(Image.open(tmp_path / "a_instances.png"))[0, 0] > len(by_default)


def test_a_faster_rcnn_has_boxes_only_and_needs_no_pycocotools(folder, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    assert command("--weights", folder / "fasterrcnn.safetensors", folder / "new", "--out", tmp_path, "--score", 0) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"a_overlay.png", "b_overlay.png", "detections.json"}
    entries = json.loads((tmp_path / "detections.json").read_text())
    found = expected(folder, "fasterrcnn", "a.png", 0)
    assert [entry["score"] for entry in entries if entry["image_id"] == 1] == found["scores"].tolist()
    assert not any("segmentation" in entry for entry in entries)


def test_without_pycocotools_a_mask_rcnn_says_how_to_get_it(folder, tmp_path, monkeypatch, fails):
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    line = fails("predict", "--weights", folder / "maskrcnn.safetensors", folder / "new", "--out", tmp_path / "out")
    assert "pip install 'tinyseg[coco]'" in line and not (tmp_path / "out").exists()


def test_the_results_can_be_scored(folder, tmp_path):
    """The file goes through the reader of results, with every entry as it was written."""
    from tinyseg.evaluation.coco_results import read_results

    base = ["--weights", folder / "maskrcnn.safetensors", folder / "new", "--out", tmp_path]
    assert command(*base, "--score", 0.4, "--threshold", 0.3) == 0
    read = read_results(tmp_path / "detections.json")
    written = json.loads((tmp_path / "detections.json").read_text())
    assert [entry["segmentation"] for entry in read] == [entry["segmentation"] for entry in written]
    masks = expected(folder, "maskrcnn", "a.png", 0.4)["masks"][:, 0] >= np.float32(0.3)
    np.testing.assert_array_equal(decoded(entry for entry in read if entry["image_id"] == 1), masks)


def test_what_failed_is_named_and_the_rest_is_written(folder, tmp_path, capsys):
    (tmp_path / "torn.png").write_bytes((folder / "new" / "a.png").read_bytes()[:200])
    pictures = [tmp_path / "torn.png", folder / "new" / "b.png"]
    assert command("--weights", folder / "maskrcnn.safetensors", *pictures, "--out", tmp_path / "out") == 1
    captured = capsys.readouterr()
    assert "1 of 2 pictures done" in captured.out and "torn.png is truncated" in captured.err
    assert (tmp_path / "out" / "detections.json").exists()


def test_pages_of_a_file_are_told_apart(folder, tmp_path, rng):
    tifffile.imwrite(tmp_path / "stack.tif", rng.integers(0, 255, (2, 40, 50, 3), np.uint8), photometric="rgb")
    weights = folder / "fasterrcnn.safetensors"
    assert command("--weights", weights, tmp_path / "stack.tif", "--out", tmp_path / "out", "--score", 0) == 0
    entries = json.loads((tmp_path / "out" / "detections.json").read_text())
    assert {(entry["image_id"], entry["file_name"], entry["page"]) for entry in entries} == {
        (1, "stack.tif", 0),
        (2, "stack.tif", 1),
    }


def test_masks_of_a_large_picture_take_little_memory(rng):
    """20 masks of 3 megapixels would be 240 million bytes as floats."""
    boxes = np.float32([[10, 20, 1900, 1400]]) + rng.integers(0, 50, (20, 4)).astype(np.float32)
    masks = _Masks(rng.random((20, 1, 28, 28), np.float32), boxes, (1500, 2000), 0.5)
    memory.release()
    held = memory._pool.touched  # the kernels' own memory is not traced
    tracemalloc.start()
    try:
        drawn = draw.detections(np.zeros((1500, 2000), np.uint8), boxes, masks=masks)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak + memory._pool.touched - held < 80e6 and drawn.any()


def test_nothing_is_written_over_unasked(folder, tmp_path, fails):
    base = ["predict", "--weights", folder / "fasterrcnn.safetensors", folder / "new", "--out", tmp_path]
    (tmp_path / "detections.json").write_text("precious")
    assert "detections.json is there already; add --overwrite" in fails(*base)
    assert (tmp_path / "detections.json").read_text() == "precious"
    assert main([str(part) for part in (*base, "--overwrite")]) == 0


def test_grey_pictures_become_colour(folder, tmp_path, capsys):
    write_picture(tmp_path / "grey.png", read_picture(folder / "new" / "a.png", 1))
    assert (
        command("--weights", folder / "fasterrcnn.safetensors", tmp_path / "grey.png", "--out", tmp_path / "out") == 0
    )
    assert "grey.png (grey as red, green and blue)" in capsys.readouterr().out


def test_options_of_other_networks_are_refused(folder, tmp_path, fails):
    save_model(tmp_path / "unet.safetensors", models.UNet(1, 1, (2, 4)))
    picture = folder / "new" / "a.png"
    for option in ("--score", "--max-objects"):
        line = fails("predict", "--weights", tmp_path / "unet.safetensors", picture, option, "1")
        assert f"{option} is for networks that find objects; this is a U-Net" in line
    line = fails("predict", "--weights", folder / "maskrcnn.safetensors", picture, "--tile", "64")
    assert "--tile is for U-Nets" in line
    with pytest.raises(SystemExit):
        command("--weights", folder / "maskrcnn.safetensors", picture, "--max-objects", "70000")


# ---- weights of torchvision ----------------------------------------------------------------------------------------


@pytest.fixture
def stand_in(monkeypatch):
    """Small networks under the names of the large ones; returns the options they were last built with."""
    built = {}

    def make(kind):
        def build(num_classes, **options):
            built.update(kind=kind, num_classes=num_classes, **options)
            return small(kind, num_classes, **options)

        return build

    monkeypatch.setattr(models, "maskrcnn_resnet50_fpn", make("maskrcnn"))
    monkeypatch.setattr(models, "fasterrcnn_resnet50_fpn", make("fasterrcnn"))
    return built


def test_plain_state_dicts_run_by_name(folder, tmp_path, stand_in, capsys):
    model = small(num_classes=91, seed=3)
    weight_files.save(tmp_path / "w.pth", model.state_dict())
    base = ["--model", "maskrcnn_resnet50_fpn", "--weights", tmp_path / "w.pth", folder / "new" / "a.png"]
    assert command(*base, "--out", tmp_path / "out", "--score", 0.02) == 0
    assert stand_in == {"kind": "maskrcnn", "num_classes": 91, "norm": "batch"}
    entries = json.loads((tmp_path / "out" / "detections.json").read_text())
    model.roi_heads.score_thresh = 0.02
    with no_grad():
        (found,) = model.eval()([read_picture(folder / "new" / "a.png")])
    assert [entry["category_id"] for entry in entries] == found["labels"].numpy().tolist() != []
    names = [COCO_CATEGORIES[entry["category_id"]] or f"class {entry['category_id']}" for entry in entries]
    assert [entry["category"] for entry in entries] == names


def test_frozen_normalisation_needs_its_eps(folder, tmp_path, stand_in, fails):
    state = small("fasterrcnn", 3, norm="frozen").state_dict()
    weight_files.save(tmp_path / "w.safetensors", state)
    base = ["predict", "--weights", tmp_path / "w.safetensors", "--model", "fasterrcnn_resnet50_fpn"]
    base += [folder / "new" / "a.png", "--out", tmp_path / "out"]
    line = fails(*base)
    assert "add --frozen-bn-eps 0 for the weights that torchvision published in 2019" in line
    assert main([str(part) for part in (*base, "--frozen-bn-eps", "0")]) == 0
    assert stand_in == {"kind": "fasterrcnn", "num_classes": 3, "norm": "frozen", "frozen_bn_eps": 0}
    weight_files.save(tmp_path / "w.safetensors", small("fasterrcnn", 3).state_dict())
    assert "is not frozen; leave out --frozen-bn-eps" in fails(*base, "--frozen-bn-eps", "0")


def test_weights_that_do_not_fit_are_one_line(folder, tmp_path, stand_in, fails):
    picture = folder / "new" / "a.png"
    weight_files.save(tmp_path / "w.pth", small().state_dict())
    line = fails("predict", "--weights", tmp_path / "w.pth", picture)
    assert "holds the weights of a detector, but not which; add --model" in line
    line = fails("predict", "--weights", tmp_path / "w.pth", "--frozen-bn-eps", "0", picture)
    assert "--frozen-bn-eps goes with --model" in line
    with_model = ["--model", "fasterrcnn_resnet50_fpn", picture]
    assert "w.pth: " in fails("predict", "--weights", tmp_path / "w.pth", *with_model)  # it has masks
    line = fails("predict", "--weights", folder / "maskrcnn.safetensors", *with_model)
    assert "says itself what it holds; leave out --model" in line
    weight_files.save(tmp_path / "u.npz", models.UNet(1, 1, (2, 4)).state_dict())
    assert "does not hold the weights of fasterrcnn_resnet50_fpn" in fails(
        "predict", "--weights", tmp_path / "u.npz", *with_model
    )


def test_categories_of_coco():
    assert len(COCO_CATEGORIES) == 91 and sum(map(bool, COCO_CATEGORIES)) == 81
    assert COCO_CATEGORIES.index("stop sign") == 13 and COCO_CATEGORIES.index("toothbrush") == 90
    assert [i for i, name in enumerate(COCO_CATEGORIES) if not name] == [12, 26, 29, 30, 45, 66, 68, 69, 71, 83]
