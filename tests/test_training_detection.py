"""Training of detectors: that it learns, resumes bit for bit, scores, keeps its files, and names its mistakes."""

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from run_results import assert_same_state, rows_of, state_of

from tinyseg import Tensor, manual_seed, weights
from tinyseg.data import SyntheticShapes
from tinyseg.models import UNet, faster_rcnn, mask_rcnn
from tinyseg.training import DetectorOptions, Interrupted, checkpoint, fit, load_model, save_model
from tinyseg.training.recipe import falling
from tinyseg.training.start import IMAGENET, start_from

SETTINGS = {"steps": 4, "batch_size": 2, "steps_per_epoch": 2, "progress": False}
SMALL = {
    "width": 4,
    "channels": 8,
    "representation_size": 16,
    "anchor_sizes": [[8], [16], [24], [32], [48]],
    "rpn_post_nms_top_n_train": 50,
    "rpn_post_nms_top_n_test": 20,
    "box_batch_size_per_image": 32,
    "rpn_batch_size_per_image": 32,
}


@pytest.fixture(scope="module")
def shapes():
    return [*SyntheticShapes(4, 64, radius=(10, 20), count=(1, 3))]


def make_model(seed=0, num_classes=4, **options):
    manual_seed(seed)
    return mask_rcnn(num_classes, mask_channels=8, **{**SMALL, **options})


def make_boxes_model(seed=0, num_classes=4, **options):
    manual_seed(seed)
    return faster_rcnn(num_classes, **{**SMALL, **options})


def at_step(model, step, act):
    """Call ``act`` when the backbone has run ``step`` times in training mode."""
    count = [0]

    def hook(module, args, output):
        count[0] += model.training
        if count[0] == step and model.training:
            count[0] += 1
            act()

    return model.backbone.body.conv1.register_forward_hook(hook)


# ---- learning and files ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(shapes, tmp_path_factory):
    """A finished run, its model and its history."""
    folder, model = tmp_path_factory.mktemp("detector") / "run", make_model()
    return folder, model, fit(model, shapes[:3], shapes[3:], out=folder, **SETTINGS)


def test_what_a_run_leaves(run, shapes):
    folder, model, history = run
    assert {path.name for path in folder.iterdir()} == {
        "best.safetensors",
        "config.json",
        "curve.png",
        "last.safetensors",
        "metrics.csv",
    }
    rows = rows_of(folder)
    parts = ["loss_classifier", "loss_box_reg", "loss_mask", "loss_objectness", "loss_rpn_box_reg"]
    scores = [f"{kind}_{name}" for kind in ("mask", "box") for name in ("ap", "ap50", "ap75")]
    assert list(rows[0]) == ["epoch", "step", "loss", *parts, "learning_rate", *scores, "seconds"]
    assert [row["step"] for row in rows] == ["2", "4"]
    for row in rows:
        assert sum(float(row[name]) for name in parts) == pytest.approx(float(row["loss"]), rel=1e-4)
        assert all(0 <= float(row[name]) <= 1 for name in scores)
    assert sorted(history.parts) == sorted(parts) and all(len(values) == 4 for values in history.parts.values())
    assert history.losses[3] == pytest.approx(sum(values[3] for values in history.parts.values()), rel=1e-6)
    assert not model.training


def test_the_file_of_a_detector_needs_nothing_else(run, shapes):
    folder, model, history = run
    best, info = load_model(folder / "best.safetensors")
    assert info["kind"] == "maskrcnn" and info["config"] == model.config and not best.training
    assert info["normalisation"] == {"kind": "standardise"} and info["trained_on"] == ["0", "1", "2"]
    assert info["class_names"] == ["background", "disc", "rectangle", "triangle"]
    assert info["category_ids"] == [1, 2, 3] and info["step"] == history.best["step"]
    assert_same_state(checkpoint.load(folder / "last.safetensors")["model"], state_of(model))
    if history.best["step"] == 4:
        assert_same_state(state_of(best), state_of(model))


def test_it_learns(shapes):
    model = make_boxes_model()
    settings = {**SETTINGS, "steps": 30, "steps_per_epoch": 30, "augment": "none", "learning_rate": 5e-3}
    history = fit(model, shapes[:2], **settings)
    assert np.mean(history.losses[-5:]) < 0.8 * np.mean(history.losses[:5])
    assert "loss_mask" not in history.parts and history.best["box_ap"] is None and "mask_ap" not in history.best


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(shapes):
    states = []
    for seed in (1, 1, 2):
        model = make_boxes_model()
        fit(model, shapes[:3], **{**SETTINGS, "steps": 2, "augment": "none"}, seed=seed)
        states.append(state_of(model))
    assert_same_state(states[0], states[1])
    name = "roi_heads.box_head.fc6.weight"
    assert (states[0][name] != states[2][name]).any()


def test_a_step_draws_from_a_generator_of_its_own(shapes):
    """The random choices of step 3 do not depend on what was drawn before it."""
    model, seen = make_boxes_model(), []
    sampler = model.rpn.sampler

    def spy(labels, generator):
        seen.append(generator.bit_generator.state["state"]["state"])
        return sampler(labels, generator=generator)

    model.rpn.sampler = spy
    fit(model, shapes[:3], **SETTINGS, seed=5)
    again, first = make_boxes_model(), seen.copy()
    seen.clear()
    again.rpn.sampler = spy
    manual_seed(123)  # what tinyseg itself draws from does not matter
    fit(again, shapes[:3], **SETTINGS, seed=5)
    assert seen == first and len({*seen}) >= 4  # two pictures a step draw from one generator
    assert model.generator is None


# ---- stopping and resuming -------------------------------------------------------------------------------------------


def test_ctrl_c_saves_and_resumes_bit_for_bit(run, shapes, tmp_path):
    _, whole, history = run
    model = make_model()
    at_step(model, 3, lambda: signal.raise_signal(signal.SIGINT))
    with pytest.raises(Interrupted, match=r"stopped after step 3 of 4, saved in .*last.safetensors"):
        fit(model, shapes[:3], shapes[3:], out=tmp_path, **SETTINGS)
    resumed = make_model(9)
    again = fit(resumed, shapes[:3], shapes[3:], out=tmp_path, resume=True, **SETTINGS)
    assert_same_state(state_of(resumed), state_of(whole))
    assert again.losses == history.losses and again.parts == history.parts
    assert again.best["box_ap"] == history.best["box_ap"] and len(rows_of(tmp_path)) == 2


@pytest.mark.slow
def test_killed_at_any_moment_it_ends_in_the_same_weights(tmp_path):
    script = Path(__file__).with_name("killed_training.py")
    environment = {**os.environ, "PYTHONPATH": str(script.parents[1]), "MPLBACKEND": "Agg"}

    def train(run, event, number):
        command = [sys.executable, str(script), str(tmp_path / run), event, str(number), "detector"]
        return subprocess.run(command, env=environment, capture_output=True, text=True)

    done = train("whole", "never", 1)
    assert done.returncode == 0, done.stderr
    for event, number in (("step", 1), ("step", 3), ("write", 2), ("renamed", 3), ("rename", 2)):
        assert train("killed", event, number).returncode == 137, (event, number)
    done = train("killed", "never", 1)
    assert done.returncode == 0, done.stderr
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    a, b = (checkpoint.load(run / "last.safetensors") for run in (whole, killed))
    assert_same_state(a["model"], b["model"])
    assert_same_state(a["history"]["parts"], b["history"]["parts"])
    assert_same_state(*(weights.load(run / "best.safetensors") for run in (whole, killed)))
    scores = [[{k: v for k, v in row.items() if k != "seconds"} for row in rows_of(run)] for run in (whole, killed)]
    assert scores[0] == scores[1] and len(scores[0]) == 3


def test_resuming_with_another_detector_or_other_truth_is_refused(run, shapes):
    folder, *_ = run
    settings = {"out": folder, "resume": True, **SETTINGS}
    with pytest.raises(ValueError, match="roi_op was not set and is pool"):
        fit(make_model(roi_op="pool"), shapes[:3], shapes[3:], **settings)
    with pytest.raises(ValueError, match="schedule was cosine and is linear; warm_up was 20 and is 3"):
        fit(make_model(), shapes[:3], shapes[3:], schedule="linear", warm_up=3, **settings)
    moved = replace(shapes[1], boxes=shapes[1].boxes + 1)
    with pytest.raises(ValueError, match=r"training pictures was 3 pictures \(checksum \w+\) and is 3 pictures"):
        fit(make_model(), [shapes[0], moved, shapes[2]], shapes[3:], **settings)
    with pytest.raises(ValueError, match="kind was maskrcnn"):
        fit(make_boxes_model(), shapes[:3], shapes[3:], **settings)


# ---- NaN -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "layer",
    ["backbone.body.layer2.0.conv1", "rpn.head.cls_logits", "roi_heads.box_head.fc6", "backbone.fpn.layer_blocks.0.0"],
)
def test_a_nan_names_the_first_layer_and_keeps_the_last_good_checkpoint(shapes, tmp_path, layer):
    model = make_model()

    def spoil():
        dict(model.named_modules())[layer].weight.array[0] = np.nan

    at_step(model, 3, spoil)
    with (
        np.errstate(all="ignore"),
        pytest.raises(FloatingPointError, match=f"has it is {layer} .*because its weight has it already") as caught,
    ):
        fit(model, shapes[:3], out=tmp_path, **SETTINGS)
    assert "step 3" in str(caught.value) and "A lower learning rate" in str(caught.value)
    kept = checkpoint.load(tmp_path / "last.safetensors")
    assert kept["history"]["step"] == 2 and all(np.isfinite(value).all() for value in kept["model"].values())


# ---- options and data that do not fit --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options, error, words",
    [
        ({"warm_up": -1}, ValueError, "warm_up is -1; expected at least 0"),
        ({"schedule": "wavy"}, ValueError, "schedule is 'wavy'; expected one of 'cosine', 'linear'"),
        ({"crop": 64}, TypeError, "crop"),
        ({"batch_size": 0}, ValueError, "batch_size is 0"),
    ],
)
def test_wrong_options_are_named(options, error, words):
    with pytest.raises(error, match=words):
        DetectorOptions(**options)


def test_the_rate_rises_then_falls():
    cosine, linear = falling("cosine", 100, 20), falling("linear", 100, 20)
    assert cosine(0) == pytest.approx(1 / 21) and cosine(19) == pytest.approx(20 / 21) and cosine(20) == 1
    assert cosine(60) == pytest.approx(0.5) and linear(60) == pytest.approx(0.5) and linear(40) == pytest.approx(0.75)
    assert cosine(40) == pytest.approx((1 + np.cos(np.pi / 4)) / 2)
    assert 0 < cosine(99) < 1e-3 and linear(99) == pytest.approx(1 / 80)
    short = falling("linear", 5, 20)
    assert [short(step) for step in range(5)] == [0.5, 1, 0.75, 0.5, 0.25]
    assert falling("cosine", 1, 20)(0) == 1


def test_data_that_do_not_fit_are_named(shapes):
    bare = replace(shapes[0], boxes=None, classes=None, instances=None)
    with pytest.raises(ValueError, match="training picture 0 has no objects"):
        fit(make_model(), [bare], **SETTINGS)
    with pytest.raises(ValueError, match="validation picture 0 has boxes but no masks"):
        fit(make_model(), shapes, [replace(shapes[0], instances=None)], **SETTINGS)
    with pytest.raises(ValueError, match="training pictures have 3 classes of objects; the model has 1"):
        fit(make_model(num_classes=2), shapes, **SETTINGS)
    with pytest.raises(ValueError, match="training set is empty"):
        fit(make_model(), [], **SETTINGS)
    with pytest.raises(ValueError, match="tile is 64, but a detector sees pictures whole"):
        fit(make_model(), shapes, tile=64, **SETTINGS)
    with pytest.raises(TypeError, match="model is a Linear; expected a UNet, or a detector"):
        from tinyseg.nn import Linear

        fit(Linear(1, 1), shapes, **SETTINGS)


def test_a_wrong_class_later_on_names_the_pictures(shapes):
    wrong = replace(shapes[1], classes=shapes[1].classes + 7, name="odd", class_names=())
    with pytest.raises(ValueError, match=r"expected a class from 1 to 3 \(the pictures of this step, from 0: "):
        fit(make_model(), [shapes[0], wrong], **SETTINGS)


def test_pictures_without_objects_can_be_trained_on(shapes):
    nothing = np.zeros((64, 64), np.int32)
    empty = replace(
        shapes[0], instances=nothing, mask=nothing, classes=np.zeros(0, np.int64), boxes=np.zeros((0, 4), np.float32)
    )
    history = fit(make_model(), [empty], [empty], **{**SETTINGS, "steps": 2})
    assert history.parts["loss_mask"] == [0, 0] and history.parts["loss_box_reg"] == [0, 0]
    assert history.best["step"] == 2 and history.best["mask_ap"] is None


# ---- files -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["safetensors", "npz"])
def test_a_detector_is_read_back(tmp_path, rng, ending):
    model = make_model(norm="frozen", frozen_bn_eps=0.0).eval()
    save_model(tmp_path / f"m.{ending}", model, {"category_ids": [7, 8, 90]})
    read, info = load_model(tmp_path / f"m.{ending}")
    assert info["category_ids"] == [7, 8, 90] and info["class_names"] == []
    assert_same_state(state_of(read), state_of(model))
    picture = rng.random((3, 48, 56), np.float32)
    (a,), (b,) = model([picture]), read([picture])
    assert a.keys() == b.keys()
    for key in a:
        np.testing.assert_array_equal(a[key].numpy(), b[key].numpy())


def test_a_file_of_another_kind_is_one_line(tmp_path):
    save_model(tmp_path / "m.npz", make_boxes_model())
    save_model(tmp_path / "u.npz", UNet(1, 1, (2, 4)))
    assert load_model(tmp_path / "u.npz", ("unet",))[1]["kind"] == "unet"
    with pytest.raises(ValueError, match=r"m.npz holds a Faster R-CNN; expected a U-Net$"):
        load_model(tmp_path / "m.npz", ("unet",))
    with pytest.raises(ValueError, match=r"u.npz holds a U-Net; expected a Mask R-CNN or a Faster R-CNN$"):
        load_model(tmp_path / "u.npz", ("maskrcnn", "fasterrcnn"))


@pytest.mark.parametrize(
    "change", [{"config": {"kind": "maskrcnn"}}, {"category_ids": [1]}, {"class_names": ["a"]}, {"threshold": 2}]
)
def test_damaged_descriptions_are_one_line(tmp_path, change):
    save_model(tmp_path / "m.npz", make_boxes_model(), change)
    with pytest.raises(ValueError, match=r"m.npz.*(damaged|config)"):
        load_model(tmp_path / "m.npz")


# ---- starting from other weights -------------------------------------------------------------------------------------


def test_starting_from_a_network_for_other_classes(tmp_path):
    source = make_model(seed=1, num_classes=6)
    save_model(tmp_path / "m.npz", source, {"normalisation": {"kind": "none"}})
    model = make_model(seed=2)
    before = state_of(model)
    normalisation, new = start_from(model, tmp_path / "m.npz")
    assert normalisation == {"kind": "none"}
    assert new == [
        "roi_heads.box_predictor.bbox_pred",
        "roi_heads.box_predictor.cls_score",
        "roi_heads.mask_predictor.mask_fcn_logits",
    ]
    after, given = state_of(model), state_of(source)
    for name in after:
        expected = before if name.startswith(tuple(new)) else given
        np.testing.assert_array_equal(after[name], expected[name], err_msg=name)


def test_starting_from_a_faster_rcnn_or_a_classifier(tmp_path):
    source = make_boxes_model(seed=1)
    weights.save(tmp_path / "f.npz", source.state_dict())
    assert start_from(make_model(seed=2), tmp_path / "f.npz") == (IMAGENET, ["mask head", "masks"])
    body = source.backbone.body.state_dict()
    weights.save(tmp_path / "r.npz", {**body, "fc.weight": np.zeros((10, 4), np.float32), "fc.bias": np.zeros(10)})
    model = make_model(seed=2)
    _, new = start_from(model, tmp_path / "r.npz")
    assert "feature pyramid" in new and "backbone" not in new
    assert_same_state(state_of(model.backbone.body), state_of(source.backbone.body))


def test_starting_from_what_does_not_fit_is_one_line(run, tmp_path):
    folder, *_ = run
    weights.save(tmp_path / "wide.npz", make_boxes_model(width=8).state_dict())
    with pytest.raises(ValueError, match=r"wide.npz is of another network: 'backbone.body.* has shape \(.*; expected"):
        start_from(make_model(), tmp_path / "wide.npz")
    weights.save(tmp_path / "deep.npz", make_model().state_dict())
    with pytest.raises(ValueError, match="deep.npz is of another network: it has no 'backbone.body.layer1.2"):
        start_from(make_model(backbone="resnet34"), tmp_path / "deep.npz")
    weights.save(tmp_path / "unet.npz", UNet(1, 1, (2, 4)).state_dict())
    with pytest.raises(ValueError, match="unet.npz holds nothing of this network"):
        start_from(make_model(), tmp_path / "unet.npz")
    with pytest.raises(ValueError, match="is a training checkpoint; expected the best.safetensors"):
        start_from(make_model(), folder / "last.safetensors")


def test_progress_shows_the_named_losses(shapes, capsys):
    fit(make_boxes_model(), shapes[:3], shapes[3:], **{**SETTINGS, "steps": 2, "progress": True})
    out, err = capsys.readouterr()
    assert "epoch   1  step     2  loss" in out and "  box AP 0." in out and "  AP50 0." in out and "mask" not in out
    assert all(f"{word}=" in err for word in ("loss", "rate", "class", "box", "object", "proposal"))


def test_numbers_of_the_batch_are_those_of_the_model(shapes):
    """The first losses are those of batch 0 under the first weights, computed here without the loop."""
    from tinyseg.data import DetectionBatches, detection_augmentation

    model = make_model()
    history = fit(model, shapes, **{**SETTINGS, "steps": 1})
    batches = DetectionBatches(shapes, 2, 0, detection_augmentation("turns"), "standardise")
    other = make_model()
    other.generator = np.random.default_rng([0, 11, 0])
    losses = other.train()(*batches[0])
    for name, values in history.parts.items():
        assert isinstance(losses[name], Tensor) and values == [losses[name].item()]


def test_the_curve_shows_losses_and_scores():
    from tinyseg.training.curve import draw_curve

    row = {"step": 2, **{f"{kind}_{name}": 0.5 for kind in ("mask", "box") for name in ("ap", "ap50", "ap75")}}
    whole = draw_curve([2.0, 1.0], [row], {"class": [1.0, 0.5], "mask": [1.0, 0.5]})
    without = draw_curve([2.0, 1.0], [{**row, "mask_ap": None}], {"class": [1.0, 0.5]})
    assert whole.startswith(b"\x89PNG") and without.startswith(b"\x89PNG") and whole != without
