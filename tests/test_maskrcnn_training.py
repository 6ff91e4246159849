"""maskrcnn_resnet50_fpn in training: targets, losses and gradients with torchvision's proposals and samples replayed.

Which anchors and proposals a step trains on is drawn at random, so torchvision's choice was recorded, and is put in the
place of ours. ``frozen_bn``: the normalisation works with its running statistics, scale and shift are trained still.
"""

from types import SimpleNamespace

import numpy as np
import pytest
from maskrcnn_reference import arrays, meta, nearest, network, unpacked

from tinyseg import boxes, nn
from tinyseg.models.roi_heads import mask_targets

pytestmark = pytest.mark.slow

MODES = ["frozen_bn", "batch_bn"]
PICTURES = [0, 1]
LOSSES = ["loss_classifier", "loss_box_reg", "loss_mask", "loss_objectness", "loss_rpn_box_reg"]


def truth(picture):
    """Return boxes, labels and masks of a training picture."""
    shape = arrays()[f"train_masks_shape{picture}"]
    return {
        "boxes": arrays()[f"train_target{picture}_boxes"],
        "labels": arrays()[f"train_target{picture}_labels"],
        "masks": unpacked(f"train_target{picture}_masks", shape),
    }


class Replay:
    """Puts recorded choices in the place of the network's own, and keeps what came in and out."""

    def __init__(self, model, mode):
        self.record = {key.removeprefix(f"{mode}/"): value for key, value in arrays().items() if key.startswith(mode)}
        self.labels, self.seen = {"rpn": [], "roi": []}, {}
        self._filter, self._select = model.rpn.filter_proposals, model.roi_heads.select_training_samples
        model.rpn.filter_proposals = self.proposals
        model.rpn.sampler, model.roi_heads.sampler = self.sampler("rpn"), self.sampler("roi")
        model.roi_heads.select_training_samples = self.select
        model.roi_heads.box_predictor.register_forward_hook(self.keep("class_logits", "box_regression"))
        model.roi_heads.mask_predictor.register_forward_hook(self.keep("mask_logits"))

    def proposals(self, *args):
        self.seen["proposals"], self.seen["proposal_scores"] = self._filter(*args)
        return tuple([self.record[f"rpn_{kind}{n}"] for n in PICTURES] for kind in ("proposals", "prop_scores"))

    def sampler(self, stage):
        def choose(labels, generator=None):
            picture = len(self.labels[stage])
            self.labels[stage].append(labels)
            return self.record[f"{stage}_pos{picture}"], self.record[f"{stage}_neg{picture}"]

        return choose

    def select(self, *args):
        self.seen["chosen"] = self._select(*args)
        return self.seen["chosen"]

    def keep(self, *names):
        def hook(module, args, output):
            self.seen |= dict(zip(names, output if isinstance(output, tuple) else (output,), strict=True))

        return hook


@pytest.fixture(scope="module", params=MODES)
def step(request):
    """One training step of either mode, up to the gradients."""
    mode = request.param
    model = network("A").train()
    if mode == "frozen_bn":
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
    replay = Replay(model, mode)
    losses = model([arrays()[f"train_image{n}"] for n in PICTURES], [truth(n) for n in PICTURES])
    sum(losses.values()).backward()
    gradients = {name: p.grad.array for name, p in model.named_parameters() if p.grad is not None}
    return SimpleNamespace(mode=mode, model=model, replay=replay, losses=losses, gradients=gradients)


def test_proposals(step):
    for n in PICTURES:
        # several levels may propose the same box, the whole picture, so a box is known by its score too
        found, wanted = (
            np.column_stack([corners, 200 * scores])
            for corners, scores in (
                (step.replay.seen["proposals"][n], step.replay.seen["proposal_scores"][n]),
                (step.replay.record[f"rpn_proposals{n}"], step.replay.record[f"rpn_prop_scores{n}"]),
            )
        )
        # of some thousand close decisions a few may go the other way in another order of sums
        assert abs(len(found) - len(wanted)) <= 0.01 * len(wanted)
        _, distance = nearest(found, wanted)
        assert (distance < 0.02).mean() > 0.99, "0.02 pixels, and 1e-4 of the score"


def test_labels_of_anchors_and_proposals(step):
    for stage in ("rpn", "roi"):
        for n in PICTURES:
            np.testing.assert_array_equal(step.replay.labels[stage][n], step.replay.record[f"{stage}_labels{n}"])


def test_chosen_proposals_and_what_they_match(step):
    for n in PICTURES:
        found = [part[n] for part in step.replay.seen["chosen"]]
        for name, array in zip(("props", "matched", "lab"), found, strict=True):
            np.testing.assert_array_equal(array, step.replay.record[f"roi_{name}{n}"], strict=True)


@pytest.mark.parametrize("mode", MODES)
def test_box_targets(mode):
    for n in PICTURES:
        chosen, matches = arrays()[f"{mode}/roi_props{n}"], arrays()[f"{mode}/roi_matched{n}"]
        found = boxes.encode(truth(n)["boxes"][matches], chosen, (10.0, 10.0, 5.0, 5.0))
        # the logarithm differs in the last digit between libraries
        np.testing.assert_allclose(found, arrays()[f"{mode}/roi_regt{n}"], rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("mode", MODES)
def test_mask_targets(mode):
    targets = []
    for n in PICTURES:
        objects = arrays()[f"{mode}/roi_lab{n}"] > 0
        chosen, matches = arrays()[f"{mode}/roi_props{n}"][objects], arrays()[f"{mode}/roi_matched{n}"][objects]
        targets.append(mask_targets(chosen, matches, truth(n)["masks"], 28))
    stored = arrays()[f"{mode}/mask_targets" + ("" if mode == "frozen_bn" else "_first12")]
    np.testing.assert_allclose(np.concatenate(targets)[: len(stored)], stored, rtol=0, atol=2e-5)


def test_predictions(step):
    record, seen = step.replay.record, step.replay.seen
    names = ["class_logits", "box_regression", "mask_logits"]
    wanted = [record[names[0]], record[names[1]], record.get(names[2], record.get("mask_logits_first12"))]
    for name, array in zip(names, wanted, strict=True):
        found = seen[name].array[: len(array)]
        # as in evaluation, where meta has the differences of float32 and float64, 1e-3 at most
        np.testing.assert_allclose(found, array, rtol=0, atol=2e-4 * np.abs(array).max(), err_msg=name)


def test_losses(step):
    assert sorted(step.losses) == sorted(LOSSES)
    for name, loss in step.losses.items():
        assert abs(loss.item() - float(step.replay.record[name])) < 1e-4, name


def test_every_parameter_has_a_gradient_of_the_right_norm(step):
    names = meta()[step.mode]["grad_names"]
    assert list(step.gradients) == names
    norms = [np.linalg.norm(step.gradients[name]) for name in names]
    np.testing.assert_allclose(norms, step.replay.record["grad_norms"], rtol=3e-2)


def relative(found, wanted):
    return np.linalg.norm(found.astype(np.float64) - wanted) / np.linalg.norm(wanted)


def test_small_gradients_in_full(step):
    for name, wanted in step.replay.record.items():
        if name.startswith("grad/"):
            found = step.gradients[name.removeprefix("grad/")]
            assert found.shape == wanted.shape
            assert relative(found, wanted) < 3e-2, name


def test_samples_of_every_gradient(step):
    names = meta()[step.mode]["grad_names"]
    places, samples = step.replay.record["grad_sample_pos"], step.replay.record["grad_sample"]
    for name, where, wanted in zip(names, places, samples, strict=True):
        assert relative(step.gradients[name].reshape(-1)[where], wanted) < 3e-2, name


def test_running_statistics(step):
    norm = step.model.backbone.body.bn1
    if step.mode == "batch_bn":
        np.testing.assert_allclose(norm.running_mean.array, arrays()["batch_bn/after_bn1_running_mean"], atol=1e-6)
        np.testing.assert_allclose(norm.running_var.array, arrays()["batch_bn/after_bn1_running_var"], atol=1e-6)
        assert norm.num_batches_tracked.item() == arrays()["state/backbone.body.bn1.num_batches_tracked"] + 1
    else:
        np.testing.assert_array_equal(norm.running_mean.array, arrays()["state/backbone.body.bn1.running_mean"])
        np.testing.assert_array_equal(norm.running_var.array, arrays()["state/backbone.body.bn1.running_var"])


def test_frozen_layers_give_the_same_gradients_to_all_others():
    model = network("A", norm="frozen", frozen_bn_eps=1e-5, trainable_backbone_layers=5).train()
    replay = Replay(model, "frozen_bn")
    losses = model([arrays()[f"train_image{n}"] for n in PICTURES], [truth(n) for n in PICTURES])
    sum(losses.values()).backward()
    for name in LOSSES:
        assert abs(losses[name].item() - float(replay.record[name])) < 1e-4, name
    gradients = {name: p.grad.array for name, p in model.named_parameters() if p.grad is not None}
    buffers = {name for name, _ in model.named_buffers()}
    names = meta()["frozen_bn"]["grad_names"]
    assert sorted(gradients) == sorted(set(names) - buffers)
    for name, where, wanted in zip(names, replay.record["grad_sample_pos"], replay.record["grad_sample"], strict=True):
        if name in gradients:
            assert relative(gradients[name].reshape(-1)[where], wanted) < 3e-2, name
