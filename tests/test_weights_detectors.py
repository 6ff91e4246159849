"""Weights of detectors in the form of the files that torchvision published in 2019: old format, old names."""

import numpy as np
import pytest
from weights_files import REFERENCE

from tinyseg import models, nn, weights
from tinyseg.models import FeaturePyramidNetwork
from tinyseg.models.heads import FastRCNNPredictor, MaskRCNNHeads, MaskRCNNPredictor, TwoMLPHead
from tinyseg.models.rpn import RPNHead


class Parts(nn.Module):
    """Modules by name, without a computation."""

    def __init__(self, **parts):
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)


def tiny_detector(norm=nn.FrozenBatchNorm2d, num_classes=3):
    """Return the network of ``old_detector.pth``."""
    body = Parts(conv1=nn.Conv2d(3, 2, 7, bias=False), bn1=norm(2))
    heads = Parts(
        box_head=TwoMLPHead(4 * 7 * 7, 5),
        box_predictor=FastRCNNPredictor(5, num_classes),
        mask_head=MaskRCNNHeads(4, (4, 4)),
        mask_predictor=MaskRCNNPredictor(4, 4, num_classes),
    )
    backbone = Parts(body=body, fpn=FeaturePyramidNetwork((2, 3), 4))
    return Parts(backbone=backbone, rpn=Parts(head=RPNHead(4, 3)), roi_heads=heads)


def expected():
    with np.load(REFERENCE / "old_detector.npz") as stored:
        return dict(stored)


@pytest.fixture
def old():
    return weights.load(REFERENCE / "old_detector.pth")


def old_name(name):
    """Return the name of before 2022 of one of today."""
    parts = name.split(".")
    if name.startswith("rpn.head.conv."):
        return f"rpn.head.conv.{parts[-1]}"
    if name.startswith("roi_heads.mask_head."):
        return f"roi_heads.mask_head.mask_fcn{int(parts[2]) + 1}.{parts[-1]}"
    if ".fpn." in name:
        return ".".join([*parts[:4], parts[-1]])
    return name


def assert_holds(model, wanted):
    found = model.state_dict()
    assert {name for name in found if not name.endswith("num_batches_tracked")} == set(wanted)
    for name, array in wanted.items():
        np.testing.assert_array_equal(found[name].array, array, name, strict=True)


# ---- a small file that PyTorch wrote ---------------------------------------------------------------------------------


def test_the_stored_file_has_the_old_form(old):
    head = (REFERENCE / "old_detector.pth").read_bytes()[:2]
    assert head == b"\x80\x02", "a stream of pickles, no zip archive"
    assert set(old) == {old_name(name) for name in expected()} != set(expected())
    assert not any(name.endswith("num_batches_tracked") for name in old)


@pytest.mark.parametrize("norm", [nn.FrozenBatchNorm2d, nn.BatchNorm2d])
def test_loads_as_it_is(old, norm):
    model = tiny_detector(norm)
    loaded = model.load_state_dict(old)
    assert loaded == ([], [])
    assert_holds(model, expected())


@pytest.mark.parametrize("norm", [nn.FrozenBatchNorm2d, nn.BatchNorm2d])
def test_counts_of_batches_may_be_there(old, norm):
    model = tiny_detector(norm)
    model.load_state_dict({**old, "backbone.body.bn1.num_batches_tracked": np.array(7, np.int64)})
    assert_holds(model, expected())
    if norm is nn.BatchNorm2d:
        assert model.backbone.body.bn1.num_batches_tracked.item() == 7


def test_loads_under_the_names_of_today():
    model = tiny_detector()
    model.load_state_dict(expected())
    assert_holds(model, expected())


def test_loads_half_of_either_names(old):
    today = expected()
    mixed = {name if n % 2 else old_name(name): array for n, (name, array) in enumerate(today.items())}
    assert mixed.keys() & (old.keys() - today.keys()) and mixed.keys() & (today.keys() - old.keys())
    model = tiny_detector()
    model.load_state_dict(mixed)
    assert_holds(model, today)


def test_parts_load_by_themselves(old):
    model, prefix = tiny_detector(), "backbone.fpn."
    model.backbone.fpn.load_state_dict({k.removeprefix(prefix): v for k, v in old.items() if k.startswith(prefix)})
    found = model.backbone.fpn.state_dict()
    assert len(found) == 8
    for name, tensor in found.items():
        np.testing.assert_array_equal(tensor.array, expected()[prefix + name])


def unchanged(model, state, error, message, **options):
    before = {name: tensor.array.copy() for name, tensor in model.state_dict().items()}
    with pytest.raises(error, match=message):
        model.load_state_dict(state, **options)
    for name, tensor in model.state_dict().items():
        np.testing.assert_array_equal(tensor.array, before[name], name)


@pytest.mark.parametrize("strict", [True, False])
def test_the_same_value_twice_is_refused(old, strict):
    twice = {**old, "rpn.head.conv.0.0.bias": old["rpn.head.conv.bias"]}
    message = r"^the state dict has both 'rpn.head.conv.0.0.bias' and 'rpn.head.conv.bias', which is its old name$"
    unchanged(tiny_detector(), twice, KeyError, message, strict=strict)


def test_missing_and_unexpected_values_are_named_as_today(old):
    del old["roi_heads.mask_head.mask_fcn2.weight"]
    message = "missing 'roi_heads.mask_head.1.0.weight'"
    unchanged(tiny_detector(), old, KeyError, message)
    old["roi_heads.mask_head.mask_fcn3.weight"] = np.zeros(1, np.float32)
    unchanged(tiny_detector(), old, KeyError, f"{message}.*; unexpected 'roi_heads.mask_head.mask_fcn3.weight'")
    loaded = tiny_detector().load_state_dict(old, strict=False)
    assert loaded.missing_keys == ["roi_heads.mask_head.1.0.weight"]
    assert loaded.unexpected_keys == ["roi_heads.mask_head.mask_fcn3.weight"]


@pytest.mark.parametrize("strict", [True, False])
def test_another_number_of_classes_names_every_layer_that_differs(old, strict):
    message = (
        r"^the state dict does not fit: 'roi_heads.box_predictor.cls_score.weight' has shape \(3, 5\); expected "
        r"\(2, 5\); 'roi_heads.box_predictor.cls_score.bias' has shape \(3,\); expected \(2,\); "
        r"'roi_heads.box_predictor.bbox_pred.weight' has shape \(12, 5\); expected \(8, 5\); "
        r"'roi_heads.box_predictor.bbox_pred.bias' has shape \(12,\); expected \(8,\); "
        r"'roi_heads.mask_predictor.mask_fcn_logits.weight' has shape \(3, 4, 1, 1\); expected \(2, 4, 1, 1\); "
        r"and 1 more of other shapes$"
    )
    unchanged(tiny_detector(num_classes=2), old, ValueError, message, strict=strict)


# ---- full-size files -------------------------------------------------------------------------------------------------


def old_file(path, model, rng, versions):
    """Write random weights for a network with PyTorch, as in 2019; return them by the names of today."""
    from collections import OrderedDict

    import torch

    today, old = {}, OrderedDict()
    for name, tensor in model.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            today[name] = rng.random(tensor.shape, np.float32) - np.float32(0.5)
            old[old_name(name)] = torch.from_numpy(today[name])
    if versions:  # as torch.save leaves them beside a state dict
        old._metadata = OrderedDict({"": {"version": 1}, "backbone.fpn": {"version": 1}, "rpn.head": {"version": 1}})
    torch.save(old, path, _use_new_zipfile_serialization=False)
    return today


@pytest.mark.torch
@pytest.mark.parametrize("versions", [True, False])
@pytest.mark.parametrize("kind", ["maskrcnn", "fasterrcnn"])
def test_a_file_of_full_size_that_pytorch_writes(tmp_path, rng, kind, versions):
    make = getattr(models, f"{kind}_resnet50_fpn")
    model = make(norm="frozen", frozen_bn_eps=0.0)
    today = old_file(tmp_path / "published.pth", model, rng, versions)
    # 53 convolutions with 4 values of normalisation, then 8 convolutions of the pyramid with bias, and the heads
    assert len(today) == 53 * 5 + 8 * 2 + {"maskrcnn": 13, "fasterrcnn": 7}[kind] * 2
    model.load_state_dict(weights.load(tmp_path / "published.pth"))
    assert_holds(model, today)
    # plain normalisation takes them too, as torchvision's does
    model = make(weights=tmp_path / "published.pth")
    assert_holds(model, today)
    with pytest.raises(ValueError, match=r"cls_score.weight' has shape \(91, 1024\); expected \(3, 1024\)") as refusal:
        make(3, weights=tmp_path / "published.pth")
    assert "\n" not in str(refusal.value)
