"""maskrcnn_resnet50_fpn in evaluation: every stage from its stored inputs, then both pictures end to end."""

from types import SimpleNamespace

import numpy as np
import pytest
from maskrcnn_reference import arrays, check, meta, nearest, network, unpacked

import tinyseg
from tinyseg import Tensor, boxes, no_grad, ops
from tinyseg.models import ImageList
from tinyseg.models.transform import resize_boxes

pytestmark = pytest.mark.slow

PICTURES = ["A", "B"]
LEVELS = ["0", "1", "2", "3", "pool"]


def stored(picture, name):
    return arrays()[name if picture == "A" else f"B/{name}"]


def picture_sizes(picture):
    return [tuple(int(n) for n in stored(picture, "image_sizes")[0])]


@pytest.fixture(scope="module", params=PICTURES)
def run(request):
    """The network of one picture, and what comes out of its first stages."""
    picture = request.param
    model = network(picture).eval()
    with no_grad():
        batch, _ = model.transform([stored(picture, "input_image")])
        body = model.backbone.body(batch.tensors)
        features = model.backbone.fpn(body)
    return SimpleNamespace(picture=picture, model=model, batch=batch, body=body, features=features)


@pytest.fixture
def features(run):
    """The maps that the rest of the network works on: for picture A the stored ones."""
    if run.picture == "A":
        return {level: Tensor(arrays()[f"fpn_{level}"]) for level in LEVELS}
    return run.features


@pytest.fixture(params=["cpu", "naive"])
def backend(request):
    with tinyseg.use_backend(request.param):
        yield request.param


def test_transform(run):
    assert run.batch.image_sizes == picture_sizes(run.picture)
    if run.picture == "B":
        check("B", "image", run.batch.tensors)
        whole = run.batch.tensors.array
        np.testing.assert_allclose([whole.mean(), whole.std()], arrays()["B/image_mean_std"], rtol=1e-5)
    else:  # this picture keeps its size, so that only its values change
        mean, deviation = (np.array(v, "f4")[:, None, None] for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
        assert run.batch.tensors.shape == (1, 3, 96, 128)
        np.testing.assert_allclose(run.batch.tensors.array[0] * deviation + mean, arrays()["input_image"], atol=1e-6)


def test_body(run):
    assert list(run.body) == ["0", "1", "2", "3"]
    for name, maps in run.body.items():
        check(run.picture, f"body_{name}", maps)


def test_feature_pyramid(run):
    assert list(run.features) == LEVELS
    for name, maps in run.features.items():
        check(run.picture, f"fpn_{name}", maps)


def test_feature_pyramid_from_the_stored_maps_of_the_body():
    model = network("A").eval()
    with no_grad():
        found = model.backbone.fpn({str(n): Tensor(arrays()[f"body_{n}"]) for n in range(4)})
    for name, maps in found.items():
        check("A", f"fpn_{name}", maps)


def test_proposal_head(run, features):
    with no_grad():
        logits, codes = run.model.rpn.head(list(features.values()))
    for level in range(5):
        check(run.picture, f"rpn_obj_{level}", logits[level])
        check(run.picture, f"rpn_delta_{level}", codes[level])


def by_anchor(picture, name, values):
    """Return stored maps of all levels as rows of ``values`` numbers, in the order of the anchors."""
    rows = []
    for level in range(5):
        maps = stored(picture, f"{name}_{level}")[0]
        rows.append(maps.reshape(-1, values, *maps.shape[1:]).transpose(2, 3, 0, 1).reshape(-1, values))
    return np.concatenate(rows)


def level_sizes(picture):
    return [stored(picture, f"rpn_obj_{level}").size for level in range(5)]


def decoded(picture, model):
    """Return all anchors, moved by the stored codes."""
    maps = [SimpleNamespace(shape=stored(picture, f"rpn_obj_{n}").shape, dtype=np.dtype("f4")) for n in range(5)]
    height, width = (-(-side // 32) * 32 for side in picture_sizes(picture)[0])
    batch = ImageList(SimpleNamespace(shape=(1, 3, height, width)), picture_sizes(picture))
    anchors = model.rpn.anchors(batch, maps)
    check(picture, "anchors", anchors, 0)
    return boxes.decode(by_anchor(picture, "rpn_delta", 4), anchors)[:, 0]


def test_anchors_and_their_boxes(run):
    check(run.picture, "rpn_decoded", decoded(run.picture, run.model))


def test_proposals(run, backend):
    moved, logits = decoded(run.picture, run.model), by_anchor(run.picture, "rpn_obj", 1)
    found, scores = run.model.rpn.filter_proposals(
        moved[None], logits[None, :, 0], picture_sizes(run.picture), level_sizes(run.picture)
    )
    wanted, wanted_scores = stored(run.picture, "proposals"), stored(run.picture, "proposal_scores")
    # in order: the margins in meta are larger than what float32 rounds off, so no decision may differ
    np.testing.assert_allclose(found[0], wanted, rtol=0, atol=2e-3)
    np.testing.assert_allclose(scores[0], wanted_scores, rtol=0, atol=1e-6)
    assert found[0].dtype == scores[0].dtype == np.float32


def test_levels(run):
    levels = boxes.level_of(stored(run.picture, "proposals"))
    np.testing.assert_array_equal(levels - 2, stored(run.picture, "box_levels"))


def test_box_pooling(run, features, backend):
    proposals = [stored(run.picture, "proposals")]
    with no_grad():
        pooled = run.model.roi_heads.box_roi_pool(features, proposals, picture_sizes(run.picture))
    # stored of all boxes; meta has no useful spread for A, where float64 chose other proposals
    np.testing.assert_allclose(
        pooled.array.mean(axis=(1, 2, 3)), stored(run.picture, "box_pooled_mean"), rtol=0, atol=5e-6
    )
    check(
        run.picture, *(("box_pooled_first4", pooled[:4]) if run.picture == "A" else ("box_pooled_first16", pooled[:16]))
    )


def test_box_head_and_predictor(run, features):
    proposals = [stored(run.picture, "proposals")]
    heads = run.model.roi_heads
    with no_grad():
        vectors = heads.box_head(heads.box_roi_pool(features, proposals, picture_sizes(run.picture)))
        logits, codes = heads.box_predictor(vectors)
    rows = 16 if run.picture == "A" else 64
    check(run.picture, f"box_head_first{rows}", vectors[:rows])
    for name, found in (("class_logits", logits), ("box_regression", codes)):
        # of A, float64 chose other proposals, so that the spread in meta is no measure
        wanted = stored(run.picture, name)
        np.testing.assert_allclose(found.array, wanted, rtol=0, atol=1e-4 * np.abs(wanted).max(), err_msg=name)


def test_detections(run, backend):
    ((found, scores, labels),) = run.model.roi_heads.postprocess_detections(
        stored(run.picture, "class_logits"),
        stored(run.picture, "box_regression"),
        [stored(run.picture, "proposals")],
        picture_sizes(run.picture),
    )
    check(run.picture, "det_boxes", found)
    check(run.picture, "det_scores", scores)
    check(run.picture, "det_labels", labels)


def test_masks(run, features):
    heads, rows = run.model.roi_heads, 2 if run.picture == "A" else 8
    with no_grad():
        pooled = heads.mask_roi_pool(features, [stored(run.picture, "det_boxes")], picture_sizes(run.picture))
        described = heads.mask_head(pooled)
        logits = heads.mask_predictor(described)
    check(run.picture, f"mask_pooled_first{rows}", pooled[:rows])
    check(run.picture, f"mask_head_first{rows}", described[:rows])
    labels = stored(run.picture, "det_labels")
    probabilities = ops.sigmoid(logits[np.arange(len(labels)), labels]).array[:, None]
    if run.picture == "A":
        check("A", "mask_logits_first12", logits[:12])
        check("A", "mask_probs_first12", probabilities[:12])
    else:
        check("B", "mask_logits", logits)
        check("B", "mask_probs", probabilities)


def assert_masks(found, picture):
    """Compare pasted masks: 99.9% of all pixels on the same side of one half, of each mask."""
    shape = tuple(stored(picture, "out_masks_shape"))
    assert found.shape == shape
    wanted = unpacked("out_masks_binary" if picture == "A" else "B/out_masks_binary", shape)
    same = ((found > 0.5) == wanted).mean(axis=(1, 2, 3))
    assert same.min() > 0.999, f"only {same.min():.4%} of mask {same.argmin()} are equal"


def test_pasted_masks(backend):
    image_size = tuple(arrays()["B/input_image"].shape[1:])
    placed = resize_boxes(arrays()["B/det_boxes"], picture_sizes("B")[0], image_size)
    np.testing.assert_allclose(placed, arrays()["B/out_boxes"], rtol=0, atol=1e-5)
    masks = ops.paste_masks(arrays()["B/mask_probs"], arrays()["B/out_boxes"], image_size)
    check("B", "out_masks_first3", masks[:3])
    np.testing.assert_array_equal(masks > 0.5, unpacked("B/out_masks_binary", masks.shape))


def test_end_to_end(run):
    picture = run.picture
    (found,) = run.model([stored(picture, "input_image")])
    prefix = "det" if picture == "A" else "out"
    wanted_boxes, wanted_scores, wanted_labels = (
        stored(picture, f"{prefix}_{name}") for name in ("boxes", "scores", "labels")
    )
    assert len(found["boxes"].array) == len(wanted_boxes) == meta()[picture]["detections"]
    match, distance = nearest(found["boxes"].array, wanted_boxes)
    assert len(set(match)) == len(match), "every detection has a partner of its own"
    assert distance.max() < 0.05, f"a box is {distance.max():.3g} pixels off"
    np.testing.assert_array_equal(found["labels"].array[match], wanted_labels)
    np.testing.assert_allclose(found["scores"].array[match], wanted_scores, rtol=0, atol=1e-3)
    assert_masks(found["masks"].array[match], picture)
    check(picture, "out_masks_first3", found["masks"].array[match][:3], 1e-3)


def test_frozen_normalisation_computes_the_same():
    model = network("A", norm="frozen", frozen_bn_eps=1e-5).eval()
    with no_grad():
        found = model.backbone.body(model.transform([arrays()["input_image"]])[0].tensors)
    for name, maps in found.items():
        check("A", f"body_{name}", maps)
