"""``tinyseg explain detector``: a detector's run on one picture, stage by stage."""

from pathlib import Path

from tinyseg.cli.common import add_command, add_common, number
from tinyseg.cli.predict_weights import TORCHVISION_MODELS

_DESCRIPTION = """\
Run a Mask R-CNN or Faster R-CNN on a picture, and show every stage of the run: the maps of the
backbone and the pyramid, the anchors and their scores, the proposals before and after each
selection, what is pooled from them, classes, boxes, masks, and what is found. The stages are
printed as a table, and drawn on a page.

With --truth each stage says how many of the true objects some box still covers, and each object
where it was lost, and why."""

_EXAMPLE = """\
  tinyseg explain detector --weights runs/cells/best.safetensors cell.png --out cell.html
  tinyseg explain detector --weights runs/cells/best.safetensors cell.png --truth truth/cell.png
  tinyseg explain detector --model maskrcnn_resnet50_fpn --weights maskrcnn_resnet50_fpn_coco-bf2d0c1e.pth \\
      --frozen-bn-eps 0 val2017/000000000139.jpg --truth instances_val2017.json --out xray"""


def add_parser(subjects):
    """Add ``detector`` to the subjects."""
    summary = "what every stage of a Mask R-CNN or Faster R-CNN does with a picture"
    parser = add_command(subjects, "detector", run, summary, _DESCRIPTION, _EXAMPLE)
    parser.add_argument("picture", metavar="PICTURE", help="picture file")
    parser.add_argument(
        "--weights", required=True, metavar="FILE", help="best.safetensors of a training run, or see --model"
    )
    parser.add_argument(
        "--truth",
        metavar="FILE",
        help="the objects in the picture: a COCO json file that lists it, or a label picture of numbered objects, "
        "all of class 1",
    )
    parser.add_argument(
        "--out",
        default="xray.html",
        metavar="FILE|DIR",
        help="the page to write, or a folder for the page, a PNG file of each stage and all numbers as JSON "
        "(default: xray.html)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace what an earlier run wrote to --out")
    parser.add_argument(
        "--score",
        type=number(0, 1),
        metavar="X",
        help="leave out objects whose score, from 0 to 1, is not above this (default: as the network is set, "
        "usually 0.05)",
    )
    parser.add_argument(
        "--model",
        choices=TORCHVISION_MODELS,
        help="the network of torchvision whose plain state dict (.pth, .safetensors, .npz) --weights is",
    )
    parser.add_argument(
        "--frozen-bn-eps",
        type=number(0),
        metavar="X",
        help="with --model, for weights with frozen batch normalisation: its eps. 0 for those that torchvision "
        "published in 2019 (COCO_V1), else 1e-5",
    )
    add_common(parser)


def run(args):
    """Print and write the stages; return the exit code."""
    from tinyseg import explain
    from tinyseg.cli.predict_weights import load
    from tinyseg.data import read_picture, to_channels
    from tinyseg.data.normalise import normalise

    out = Path(args.out)
    if not args.overwrite and (out.is_file() or (out.is_dir() and any(out.iterdir()))):
        raise FileExistsError(f"{out} is there already; add --overwrite, or choose another --out")
    model, info = load(args.weights, args.model, args.frozen_bn_eps)
    if info["kind"] == "unet":
        raise ValueError(f"{args.weights} holds a U-Net; expected a Mask R-CNN or Faster R-CNN")
    if args.score is not None:
        model.roi_heads.score_thresh = args.score
    picture = to_channels(read_picture(args.picture), len(model.transform.image_mean), name=args.picture)
    target = None if args.truth is None else _target(args.truth, args.picture, picture, info)
    x = normalise(picture, info["normalisation"])
    xray = explain.detector(model, x, target, class_names=info["class_names"])
    print(xray)
    print(f"\nthe page is {xray.save(out)}")
    return 0


def _target(path, picture_path, picture, info):
    """Return the true objects of a picture, as for training."""
    from tinyseg.data.detection_batches import detection_target

    read = _from_coco if Path(path).suffix.lower() == ".json" else _from_labels
    return detection_target(read(path, picture_path, picture, info), masks=False)


def _from_labels(path, picture_path, picture, info):
    """Return the picture with the objects of a label picture."""
    import numpy as np

    from tinyseg.data import Sample
    from tinyseg.data.masks import check_same_size, read_instances
    from tinyseg.data.sample import boxes_of

    instances = read_instances(path)
    check_same_size(picture, instances, picture_path, path)
    count = int(instances.max(initial=0))
    return Sample(picture, name=picture_path, classes=np.ones(count, np.int64), boxes=boxes_of(instances, count))


def _from_coco(path, picture_path, picture, info):
    """Return the picture with the objects that a COCO file lists for its name."""
    import numpy as np

    from tinyseg.data import Sample
    from tinyseg.data.coco_json import read_coco

    truth, name = read_coco(path, masks=False), Path(picture_path).name
    same = [n for n, image in enumerate(truth.images) if Path(image["file_name"]).name == name]
    if len(same) != 1:
        raise ValueError(f"{path} lists {len(same)} pictures of the name {name}; expected one")
    image, objects = truth.images[same[0]], truth.objects[same[0]]
    size = image["height"], image["width"]
    if size != picture.shape[1:]:
        raise ValueError(
            f"{picture_path} is {picture.shape[1]} x {picture.shape[2]} (height x width); expected {size[0]} x "
            f"{size[1]}, as {path} says of it"
        )
    # torchvision's networks use the ids of COCO's categories as classes
    own = {number: k for k, number in enumerate(info["category_ids"], 1)}
    ids = [entry["category_id"] for entry in objects]
    unknown = [number for number in ids if own and number not in own]
    if unknown:
        raise ValueError(f"{path} has an object of category {unknown[0]}, which the network does not know")
    corners = np.array([entry["bbox"] for entry in objects], np.float32).reshape(-1, 4)
    corners[:, 2:] += corners[:, :2]
    return Sample(
        picture,
        name=picture_path,
        classes=np.array([own.get(number, number) for number in ids], np.int64),
        boxes=corners,
        crowd=np.array([entry.get("iscrowd", 0) for entry in objects], bool),
    )
