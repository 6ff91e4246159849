"""Detectors on the device: they give what they give on the host, and copy what `tinyseg.models.detectors` lists."""

import numpy as np
import pytest

import tinyseg
from kernels import cuda
from tinyseg import Tensor, boxes, models, nn, ops, optim
from tinyseg.backend import host_work
from tinyseg.models.fpn import FeaturePyramidNetwork
from tinyseg.models.heads import MaskRCNNHeads

pytestmark = pytest.mark.cuda

SIZE = 32


class Backbone(nn.Module):
    """Two maps, with strides of 4 and 8, and a pyramid on top of them."""

    out_channels, pooled_names = 2, ("0", "1")

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 2, 3, stride=4, padding=1), nn.BatchNorm2d(2), nn.ReLU())
        self.next = nn.Sequential(nn.Conv2d(2, 2, 3, stride=2, padding=1), nn.ReLU())
        self.fpn = FeaturePyramidNetwork([2, 2], 2)

    def forward(self, x):
        x = self.stem(x)
        return self.fpn({"0": x, "1": self.next(x)})


def detector(kind, roi_op, dtype=np.float64, **options):
    """Return a detector on the host; the same one every time."""
    tinyseg.manual_seed(1)

    def pooling():  # objects of 12 pixels and more from the coarser map
        return models.MultiScaleRoIPooling(("0", "1"), 2, 2, roi_op=roi_op, canonical_scale=12, canonical_level=3)

    options = {
        "min_size": None,
        "max_size": None,
        "size_divisible": 16,
        "rpn_anchor_generator": boxes.AnchorGenerator(((6,), (12,), (24,)), (1.0,)),
        "rpn_pre_nms_top_n_train": 20,
        "rpn_post_nms_top_n_train": 10,
        "rpn_pre_nms_top_n_test": 8,
        "rpn_post_nms_top_n_test": 5,
        "rpn_batch_size_per_image": 8,
        "box_batch_size_per_image": 6,
        "box_positive_fraction": 0.5,
        "box_score_thresh": 0.0,
        "box_detections_per_img": 4,
        "representation_size": 4,
        **options,
    }
    if kind == "mask":
        heads = {"mask_roi_pool": pooling(), "mask_head": MaskRCNNHeads(2, (2,)), "mask_channels": 2}
        model = models.MaskRCNN(Backbone(), 3, box_roi_pool=pooling(), **heads, **options)
    else:
        model = models.FasterRCNN(Backbone(), 3, box_roi_pool=pooling(), **options)
    model.generator = np.random.default_rng(2)
    return model.to(dtype)


def picture(dtype=np.float64, height=SIZE, width=SIZE):
    return np.random.default_rng(height).random((3, height, width)).astype(dtype)


def truth(count=2):
    masks = np.zeros((2, SIZE, SIZE), np.uint8)
    masks[0, 2:12, 3:13] = masks[1, 8:30, 6:31] = 1
    both = {"boxes": np.array([[3, 2, 13, 12], [6, 8, 31, 30]]), "labels": np.array([1, 2]), "masks": masks}
    return {key: value[:count] for key, value in both.items()}


def on_host(work, *arguments):
    """Return what ``work`` gives with the naive kernels, which compile in a fifth of the time of the fast ones."""
    with tinyseg.use_backend("naive"):
        return work(*arguments)


def step_of(model, images, targets):
    """Take a training step and return its losses."""
    optimiser = optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    losses = model(images, targets)
    optimiser.zero_grad()
    sum(losses.values()).backward()
    optimiser.step()
    return losses


def copies(before):
    """Return how many arrays were copied since then: to the device, and to the host."""
    after = cuda.transfers()
    return after.to_device - before.to_device, after.to_host - before.to_host


def assert_equal(host, device, losses, expected, rtol, atol):
    """Compare losses, gradients, parameters and statistics after a step."""
    assert list(losses) == list(expected)
    for name, loss in losses.items():
        assert loss.device == "cuda"
        np.testing.assert_allclose(loss.item(), expected[name].item(), rtol, err_msg=name)
    for (name, here), (_, there) in zip(host.named_parameters(), device.named_parameters(), strict=True):
        np.testing.assert_allclose(there.grad.to("cpu").numpy(), here.grad.numpy(), rtol, atol, err_msg=name)
    for (name, here), there in zip(host.state_dict().items(), device.state_dict().values(), strict=True):
        np.testing.assert_allclose(there.numpy(), here.numpy(), rtol, atol, err_msg=name)


#: What a step on one picture copies to the device, and why.
OF_PICTURE = {"the picture": 1, "mean and deviation of its channels": 1}
OF_PROPOSALS = {"which anchors count": 2, "where objects are, from them": 1, "which of them are objects": 1}
OF_BOXES = {
    "boxes for each of two maps, forward and backward": 4,
    "which boxes these are": 2,
    "which codes count": 1,
    "where objects are, from the boxes": 1,
    "classes": 1,
}
OF_MASKS = {
    "boxes of objects for each of two maps, forward and backward": 4,
    "which boxes these are": 2,
    "which masks count": 1,
    "true masks, seen through the boxes": 1,
}
OF_OPTIMISER = {"where parameters lie": 1}
#: And to the host.
BACK = {"logits and codes of the anchors": 2, "whether classes are classes, forward and backward": 2}
BACK_FROM_POOL = {"whether maxima lie on the map: boxes and masks, two maps": 4}


def count(*reasons):
    return sum(sum(each.values()) for each in reasons)


@pytest.mark.parametrize("roi_op", ["align", "pool"])
def test_a_training_step_of_mask_rcnn_equals_the_hosts(roi_op):
    host, device = detector("mask", roi_op), detector("mask", roi_op).to("cuda")
    expected = on_host(step_of, host, [picture()], [truth()])
    before = cuda.transfers()
    losses = step_of(device, [picture()], [truth()])
    there = count(OF_PICTURE, OF_PROPOSALS, OF_BOXES, OF_MASKS, OF_OPTIMISER)
    assert copies(before) == (there, count(BACK) + (count(BACK_FROM_POOL) if roi_op == "pool" else 0))
    assert_equal(host, device, losses, expected, 1e-9, 1e-12)


def test_a_training_step_of_faster_rcnn_in_float32_all_on_the_device():
    model, pair = detector("faster", "align", np.float32), detector("faster", "align", np.float32)
    expected = on_host(step_of, model, [picture(np.float32)], [truth()])
    with tinyseg.use_backend("cuda"):
        device = pair.to("cuda")
        image, target = Tensor(picture(np.float32)), {key: Tensor(value) for key, value in truth().items()}
        before = cuda.transfers()
        losses = step_of(device, [image], [target])
    # the picture is there already, and its truth has to come back: boxes and classes
    there = count(OF_PICTURE, OF_PROPOSALS, OF_BOXES, OF_OPTIMISER) - 1
    assert copies(before) == (there, count(BACK) + 2)
    assert_equal(model, device, losses, expected, 1e-3, 1e-5)


def test_a_picture_without_objects():
    host, device = detector("mask", "align"), detector("mask", "align").to("cuda")
    expected = on_host(step_of, host, [picture()], [truth(0)])
    losses = step_of(device, [picture()], [truth(0)])
    assert losses["loss_mask"].item() == losses["loss_box_reg"].item() == 0
    assert_equal(host, device, losses, expected, 1e-9, 1e-12)


def test_what_is_found_equals_the_hosts():
    model, images = detector("mask", "align").eval(), [picture(), picture(height=24, width=28)]
    before_moving = {key: value.numpy().copy() for key, value in model.state_dict().items()}
    with tinyseg.no_grad():
        expected = on_host(model, images)
        model.to("cuda")
        before = cuda.transfers()
        found = model(images)
        # for each picture: itself, mean and deviation; boxes, labels and scores of what was found. Boxes to pool from,
        # twice: all are small, and belong to the finer map. Which masks to show
        # and back: logits and codes, of anchors and of proposals; for each picture whether boxes can be pasted
        assert copies(before) == (2 * (2 + 3) + 2 + 1, 2 + 2 + 2)
        again = on_host(model.to("cpu"), images)
    for here, there, back in zip(expected, found, again, strict=True):
        assert list(there) == list(here) == ["boxes", "labels", "scores", "masks"] and len(here["scores"]) == 4
        for key, value in here.items():
            assert there[key].device == "cuda" and there[key].dtype == value.dtype
            np.testing.assert_allclose(there[key].to("cpu").numpy(), value.numpy(), 1e-10, 1e-12, err_msg=key)
            assert np.array_equal(back[key].numpy(), value.numpy())
    after_moving = model.state_dict()
    assert all(np.array_equal(after_moving[key].numpy(), value) for key, value in before_moving.items())


def test_nothing_found():
    model = detector("mask", "pool", box_score_thresh=1.0).to("cuda").eval()
    with tinyseg.no_grad():
        (found,) = model([picture()])
    assert [found[key].shape for key in found] == [(0, 4), (0,), (0,), (0, 1, SIZE, SIZE)]
    assert {value.device for value in found.values()} == {"cuda"}


def test_pictures_are_resized_on_the_device():
    options = {"min_size": 24, "max_size": 40, "image_mean": (0.4, 0.5, 0.6), "image_std": (0.2, 0.3, 0.4)}
    transform = detector("mask", "align", **options).transform
    images, target = [picture(), picture(height=20, width=36)], truth()
    none = {"boxes": np.zeros((0, 4)), "masks": np.zeros((0, 20, 36), np.uint8)}
    expected, wanted = on_host(transform, images, [target, none])
    there = [cuda.to_device(image) for image in images]
    before = cuda.transfers()
    with tinyseg.use_backend("cuda"):
        got, moved = transform(there, [target, none])
    assert copies(before) == (2, 0)  # mean and deviation of the channels, for each
    assert got.tensors.device == "cuda" and got.image_sizes == expected.image_sizes == [(24, 24), (22, 40)]
    np.testing.assert_allclose(got.tensors.to("cpu").numpy(), expected.tensors.numpy(), 1e-12, 1e-14)
    for one, other in zip(moved, wanted, strict=True):
        assert all(np.array_equal(one[key], other[key]) for key in other)


def test_pictures_that_do_not_fit():
    model = detector("faster", "pool").to("cuda").eval()
    with pytest.raises(FloatingPointError, match="the region proposal network gives NaN or infinity"):
        model([np.full((3, SIZE, SIZE), np.nan)])
    with pytest.raises(ValueError, match=r"a picture has shape \(1, 8, 8\); expected \(3, H, W\)"):
        model([Tensor(np.zeros((1, 8, 8))).to("cuda")])


def test_boxes_to_pool_from_may_lie_on_the_device(rng):
    maps = [rng.standard_normal((2, 2, size, size)) for size in (6, 3)]
    of_pictures = [np.array([[0, 0, 9.5, 8]]), np.array([[3.0, 2, 20, 21], [1, 1, 7, 5]])]
    levels = np.array([0, 1, 0])

    def pooled(place):
        there = [place(x).requires_grad_() for x in maps]
        y = ops.multi_scale_roi(there, [place(each) for each in of_pictures], 2, [0.25, 0.125], levels)
        (y * y).sum().backward()
        return y, ops.roi_pool(there[0], [place(each) for each in of_pictures], 2, 0.25), *(x.grad for x in there)

    expected = on_host(pooled, Tensor)
    for here, there in zip(expected, pooled(lambda x: Tensor(x).to("cuda")), strict=True):
        assert there.device == "cuda"
        np.testing.assert_allclose(there.to("cpu").numpy(), here.numpy(), 1e-12, 1e-14)


def test_what_is_left_to_the_host_stays_there(rng):
    corners = rng.uniform(0, 9, (5, 2))
    found, scores = np.hstack([corners, corners + 3]), rng.standard_normal(5)
    arguments = found, scores, [3, 2], (10, 10), 3, 4
    expected = boxes.filter_proposals(*arguments, logits=True)
    before = cuda.transfers()
    with tinyseg.use_backend("cuda"):
        kept = boxes.filter_proposals(*arguments, logits=True)
        with host_work(), host_work():
            pass
        assert tinyseg.current_backend() == "cuda"
        with host_work():
            assert tinyseg.current_backend() == "cpu" and Tensor([1.0]).device == "cpu"
    assert cuda.transfers() == before
    assert all(np.array_equal(a, b) for a, b in zip(kept, expected, strict=True))
    with tinyseg.use_backend("naive"), host_work():
        assert tinyseg.current_backend() == "naive"
