"""How ``old_detector.pth`` was made: by PyTorch 2.13, in the form of torchvision's detector files of 2019.

Run in this folder: ``python make_old_detector.py``. The names are those of before 2022, the format is that of before
PyTorch 1.6, and the frozen normalisation has no ``num_batches_tracked``. The net is a tiny one; ``old_detector.npz``
holds the same arrays under the names of today.
"""

from collections import OrderedDict

import numpy as np
import torch

#: old name, name of today (None: the same), shape
CONVOLUTIONS = [
    ("backbone.body.conv1", None, (2, 3, 7, 7)),
    *((f"backbone.fpn.inner_blocks.{i}", f"backbone.fpn.inner_blocks.{i}.0", (4, 2 + i, 1, 1)) for i in range(2)),
    *((f"backbone.fpn.layer_blocks.{i}", f"backbone.fpn.layer_blocks.{i}.0", (4, 4, 3, 3)) for i in range(2)),
    ("rpn.head.conv", "rpn.head.conv.0.0", (4, 4, 3, 3)),
    ("rpn.head.cls_logits", None, (3, 4, 1, 1)),
    ("rpn.head.bbox_pred", None, (12, 4, 1, 1)),
    ("roi_heads.box_head.fc6", None, (5, 4 * 7 * 7)),
    ("roi_heads.box_head.fc7", None, (5, 5)),
    ("roi_heads.box_predictor.cls_score", None, (3, 5)),
    ("roi_heads.box_predictor.bbox_pred", None, (12, 5)),
    *((f"roi_heads.mask_head.mask_fcn{i + 1}", f"roi_heads.mask_head.{i}.0", (4, 4, 3, 3)) for i in range(2)),
    ("roi_heads.mask_predictor.conv5_mask", None, (4, 4, 2, 2)),
    ("roi_heads.mask_predictor.mask_fcn_logits", None, (3, 4, 1, 1)),
]


def main():
    """Write the files."""
    rng = np.random.RandomState(0)
    old, today = OrderedDict(), {}

    def add(name, new_name, shape):
        today[new_name] = rng.standard_normal(shape).astype(np.float32)
        old[name] = torch.from_numpy(today[new_name].copy())

    for name, new_name, shape in CONVOLUTIONS:
        new_name = new_name or name
        add(f"{name}.weight", f"{new_name}.weight", shape)
        if name == "backbone.body.conv1":
            for kind in ("weight", "bias", "running_mean", "running_var"):
                add(f"backbone.body.bn1.{kind}", f"backbone.body.bn1.{kind}", shape[:1])
        else:
            outputs = shape[1] if "conv5" in name else shape[0]
            add(f"{name}.bias", f"{new_name}.bias", (outputs,))
    torch.save(old, "old_detector.pth", _use_new_zipfile_serialization=False)
    np.savez_compressed("old_detector.npz", **today)


if __name__ == "__main__":
    main()
