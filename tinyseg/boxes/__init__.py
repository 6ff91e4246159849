"""Boxes: anchors, coding, matching, sampling, pyramid levels and proposals. Plain arrays, no gradient.

A box is a row (x1, y1, x2, y2) in picture coordinates. Arrays are those of the host, and so is the work, whatever the
backend in use: boxes are few, and decisions are taken one after the other.
"""

from tinyseg.boxes.anchors import AnchorGenerator, cell_anchors, grid_anchors
from tinyseg.boxes.coding import clip_to_picture, decode, encode
from tinyseg.boxes.levels import level_of
from tinyseg.boxes.matching import BACKGROUND, IGNORED, match
from tinyseg.boxes.proposals import filter_proposals, remove_small_boxes
from tinyseg.boxes.sampling import balanced_sample

__all__ = [
    "BACKGROUND",
    "IGNORED",
    "AnchorGenerator",
    "balanced_sample",
    "cell_anchors",
    "clip_to_picture",
    "decode",
    "encode",
    "filter_proposals",
    "grid_anchors",
    "level_of",
    "match",
    "remove_small_boxes",
]
