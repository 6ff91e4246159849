"""Goals of the detectors for ``make accept``: accuracy on cell nuclei and on made-up shapes, memory on photos."""

import csv
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

#: Made-up pictures of 1 to 6 shapes, 12 to 60 pixels across, that may hide up to 30 % of each other.
SHAPES = {"size": 128, "count": (1, 6), "radius": (6, 30), "max_overlap": 0.3}


def find_nuclei(data, work, report, run, settings=("--width", 32, "--aligned")):
    """Train a Mask R-CNN on 276 pictures of cell nuclei in 323 steps of 4, and score it on the other 55."""
    folder = data / "nuclei_dsb256"
    goals = (
        "mask AP50 on 55 pictures of nuclei of at least 0.85",
        "mask AP on them of at least 0.45",
        "minutes for it of at most 10, compilation and scoring included",
    )
    if not folder.is_dir():
        for goal in goals:
            report.line(goal, f"no folder {folder}", None)
        return
    held_out = work / "held_out.txt"
    names = sorted(path.stem for path in (folder / "images").iterdir())
    held_out.write_text("\n".join(name for name in names if int(name[:2], 16) % 5 == 0))
    out = work / "nuclei"
    command = ["train", "maskrcnn", "--data", folder, "--val", f"@{held_out}", "--out", out]
    minutes = run(*command, "--steps", 323, "--batch", 4, *settings) / 60
    with open(out / "metrics.csv", encoding="utf-8") as file:
        best = max(csv.DictReader(file), key=lambda row: float(row["mask_ap"]))
    report.line(goals[0], f"{float(best['mask_ap50']):.3f}", float(best["mask_ap50"]) >= 0.85)
    report.line(goals[1], f"{float(best['mask_ap']):.3f}", float(best["mask_ap"]) >= 0.45)
    report.line(goals[2], f"{minutes:.1f}", minutes <= 10)
    pictures = [folder / "images" / f"{name}.png" for name in held_out.read_text().split()[:4]]
    run("predict", "--weights", out / "best.safetensors", "--out", work / "found", *pictures)


def find_shapes(report, steps=3000, pictures=2000):
    """Train a single-level Faster R-CNN, with RoIPool and 15 anchors a cell, on made-up shapes; score it on others."""
    from tinyseg import data, manual_seed, models
    from tinyseg.evaluation import evaluate_detector
    from tinyseg.training import fit

    start = time.perf_counter()
    manual_seed(0)
    model = models.faster_rcnn(
        4,
        fpn=False,
        returned_layers=[2],
        width=32,
        roi_op="pool",
        anchor_sizes=[[12, 20, 32, 48, 64]],
        representation_size=512,
        box_batch_size_per_image=64,
        rpn_pre_nms_top_n_train=600,
        rpn_post_nms_top_n_train=300,
        rpn_pre_nms_top_n_test=300,
        rpn_post_nms_top_n_test=100,
    )
    anchors = model.rpn.anchor_generator.num_anchors_per_location()
    shapes = list(data.SyntheticShapes(pictures, seed=1000, **SHAPES))
    fit(model, shapes, steps=steps, batch_size=8, learning_rate=2e-3, steps_per_epoch=steps)
    held_out = data.SyntheticShapes(200, seed=99, **SHAPES)
    score = evaluate_detector(model, held_out, normalisation="standardise").summary()["box"]["AP50"]
    minutes = (time.perf_counter() - start) / 60
    goal = f"box AP50 of at least 0.85 on 200 pictures of shapes; one map, RoIPool, anchors a cell: {anchors}"
    report.line(goal, f"{score:.3f}", score >= 0.85)
    report.line("minutes for it of at most 10", f"{minutes:.1f}", minutes <= 10)


_OURS = """
import sys, tinyseg
from tinyseg import models
from tinyseg.data import read_picture
model = models.maskrcnn_resnet50_fpn(weights=sys.argv[1]).eval()
with tinyseg.no_grad():
    for path in sys.argv[2:]:
        print(len(model([read_picture(path, 3)])[0]["scores"]), end=" ", file=sys.stderr)
"""
_THEIRS = """
import sys, numpy as np, torch, torchvision
from PIL import Image
torch.set_num_threads(2)
model = torchvision.models.detection.maskrcnn_resnet50_fpn(weights=None, weights_backbone=None).eval()
model.load_state_dict(torch.load(sys.argv[1]))
with torch.no_grad():
    for path in sys.argv[2:]:
        picture = torch.from_numpy(np.asarray(Image.open(path).convert("RGB")).transpose(2, 0, 1).copy()).float() / 255
        print(len(model([picture])[0]["scores"]), end=" ", file=sys.stderr)
"""
#: What a program is run under: prints its largest resident memory, in MiB.
_PEAK = "import resource; print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)"


def predict_photos(data, report, theirs=sys.executable):
    """Run a full-size maskrcnn_resnet50_fpn of random weights over the photos, here and in torchvision: peak memory."""
    goal = "peak memory over the photos, MiB, at most torchvision's"
    photos = sorted((data / "photos").glob("*.jpg")) if (data / "photos").is_dir() else []
    if not photos:
        report.line(goal, f"no photos in {data / 'photos'}", None)
        return
    if subprocess.run([theirs, "-c", "import torchvision"], capture_output=True).returncode:
        report.line(goal, f"{theirs} has no torchvision (--torchvision names one that has)", None)
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "weights.pth"
        _write_random_weights(path)
        ours = _peak(sys.executable, _OURS, path, photos)
        other = _peak(theirs, _THEIRS, path, photos)
    report.line(goal, f"{ours:.0f} against {other:.0f}", ours <= other)


def _write_random_weights(path):
    """Write random weights whose scores are far enough apart that some objects are found."""
    import tinyseg
    from tinyseg import models, weights

    tinyseg.manual_seed(0)
    model = models.maskrcnn_resnet50_fpn()
    model.roi_heads.box_predictor.cls_score.weight.array *= np.float32(20)
    weights.save(path, model.state_dict())


def _peak(python, program, weights, photos):
    """Return the largest resident memory, in MiB, of a program over the photos."""
    command = [python, "-c", program + _PEAK, str(weights), *map(str, photos)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
