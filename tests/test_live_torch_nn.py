"""Operators, layers, first values, optimisers and schedules against PyTorch itself, over random shapes."""

import importlib.util

import numpy as np
import pytest

import tinyseg
from tinyseg import Tensor, nn, ops, optim

if importlib.util.find_spec("torch") is not None:
    import torch
    import torch.nn.functional as F

pytestmark = pytest.mark.torch

SEEDS = range(8)


@pytest.fixture(params=SEEDS)
def rng(request):
    return np.random.default_rng(100 + request.param)


def compare(ours, theirs, arrays, bound=3e-5):
    """Run both functions on the same float32 arrays; compare outputs and the gradients of every array.

    The bound is relative to the largest value: sums of up to some hundred terms in float32, in another order.
    """
    mine = [Tensor(array.copy(), requires_grad=True) for array in arrays]
    other = [torch.tensor(array, requires_grad=True) for array in arrays]
    y, expected = ours(*mine), theirs(*other)
    assert y.shape == tuple(expected.shape)
    close(y.numpy(), expected.detach().numpy(), bound)
    upstream = np.random.default_rng(5).normal(size=y.shape).astype(np.float32)
    y.backward(upstream)
    expected.backward(torch.tensor(upstream))
    for tensor, reference in zip(mine, other, strict=True):
        close(tensor.grad.numpy(), reference.grad.numpy(), bound)


def close(actual, expected, bound):
    assert actual.dtype == expected.dtype
    np.testing.assert_allclose(actual, expected, rtol=0, atol=bound * max(1.0, np.abs(expected).max(initial=0)))


def normal(rng, *shape):
    return rng.normal(size=shape).astype(np.float32)


def pair(rng, low, high):
    """Return a random number or pair."""
    return int(rng.integers(low, high)) if rng.random() < 0.5 else tuple(int(n) for n in rng.integers(low, high, 2))


# ---- operators -------------------------------------------------------------------------------------------------------


def test_conv2d(rng):
    groups = int(rng.integers(1, 4))
    channels, outputs = groups * int(rng.integers(1, 5)), groups * int(rng.integers(1, 5))
    settings = {
        "stride": pair(rng, 1, 4),
        "padding": pair(rng, 0, 3),
        "dilation": pair(rng, 1, 3),
        "groups": groups,
    }
    kernel = tuple(rng.integers(1, 5, 2))
    arrays = [
        normal(rng, rng.integers(1, 4), channels, *rng.integers(7, 20, 2)),
        normal(rng, outputs, channels // groups, *kernel),
        normal(rng, outputs),
    ][: 2 + int(rng.integers(0, 2))]
    compare(lambda *t: ops.conv2d(*t, **settings), lambda *t: F.conv2d(*t, **settings), arrays)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
def test_conv2d_same(rng):
    settings = {"padding": "same", "dilation": pair(rng, 1, 4)}
    arrays = [normal(rng, 2, 3, *rng.integers(5, 12, 2)), normal(rng, 4, 3, *rng.integers(1, 6, 2))]
    compare(lambda *t: ops.conv2d(*t, **settings), lambda *t: F.conv2d(*t, **settings), arrays)


def test_conv_transpose2d(rng):
    groups = int(rng.integers(1, 4))
    channels, outputs = groups * int(rng.integers(1, 5)), int(rng.integers(1, 5))
    stride, dilation = rng.integers(1, 4, 2), rng.integers(1, 3, 2)
    extra = [int(rng.integers(0, max(s, d))) for s, d in zip(stride, dilation, strict=True)]
    positional = (tuple(stride.tolist()), pair(rng, 0, 2), tuple(extra), groups, tuple(dilation.tolist()))
    arrays = [
        normal(rng, 2, channels, *rng.integers(4, 9, 2)),
        normal(rng, channels, outputs, *rng.integers(2, 5, 2)),
        normal(rng, outputs * groups),
    ]
    compare(lambda *t: ops.conv_transpose2d(*t, *positional), lambda *t: F.conv_transpose2d(*t, *positional), arrays)


@pytest.mark.parametrize("training", [True, False])
def test_batch_norm(rng, training):
    channels = int(rng.integers(1, 6))
    mean, var = normal(rng, channels), rng.random(channels).astype(np.float32) + 0.5
    ours, theirs = (Tensor(mean.copy()), Tensor(var.copy())), (torch.tensor(mean), torch.tensor(var))
    x = normal(rng, 3, channels, *rng.integers(2, 9, 2)) * 3 + 2
    compare(
        lambda *t: ops.batch_norm(t[0], *ours, *t[1:], training, 0.3, 1e-3),
        lambda *t: F.batch_norm(t[0], *theirs, *t[1:], training, 0.3, 1e-3),
        [x, normal(rng, channels), normal(rng, channels)],
    )
    for a, b in zip(ours, theirs, strict=True):
        close(a.numpy(), b.numpy(), 1e-6)


def test_max_pool2d(rng):
    kernel = tuple(int(k) for k in rng.integers(1, 4, 2))
    settings = {
        "stride": None if rng.random() < 0.3 else pair(rng, 1, 4),
        "padding": tuple(int(rng.integers(0, k // 2 + 1)) for k in kernel),
        "dilation": pair(rng, 1, 3),
        "ceil_mode": bool(rng.random() < 0.5),
    }
    x = normal(rng, 2, 3, *rng.integers(6, 15, 2)).round(1)  # with ties
    compare(lambda t: ops.max_pool2d(t, kernel, **settings), lambda t: F.max_pool2d(t, kernel, **settings), [x])
    _, indices = ops.max_pool2d(x, kernel, **settings, return_indices=True)
    _, expected = F.max_pool2d(torch.tensor(x), kernel, **settings, return_indices=True)
    np.testing.assert_array_equal(indices.numpy(), expected.numpy())


def test_interpolate(rng):
    if rng.random() < 0.5:
        settings = {"size": tuple(int(n) for n in rng.integers(1, 20, 2))}
    else:
        settings = {"scale_factor": tuple(float(n) for n in rng.uniform(0.4, 3, 2))}
        if rng.random() < 0.5:
            settings["recompute_scale_factor"] = True
    if rng.random() < 0.7:
        settings |= {"mode": "bilinear", "align_corners": bool(rng.random() < 0.5)}
    x = normal(rng, 2, 2, *rng.integers(3, 12, 2))
    compare(lambda t: ops.interpolate(t, **settings), lambda t: F.interpolate(t, **settings), [x])


@pytest.mark.parametrize("mode", ["constant", "reflect", "replicate"])
def test_pad(rng, mode):
    pad = tuple(int(n) for n in rng.integers(-2, 4, 4))
    value = 0.5 if mode == "constant" else None
    x = normal(rng, 2, 2, 5, 6)
    compare(lambda t: ops.pad(t, pad, mode, value), lambda t: F.pad(t, pad, mode, value), [x])


def test_linear(rng):
    shape = (*rng.integers(1, 5, rng.integers(0, 3)), 7)
    compare(ops.linear, F.linear, [normal(rng, *shape), normal(rng, 4, 7), normal(rng, 4)])


def test_elementwise(rng):
    def function(a, b):
        return (
            (a * b - a / (b * b + 1) + (-a) ** 2).exp().mean()
            + (a[1:] @ b.reshape(5, 1)).sum()
            + b.transpose(0, 1)[2, 0]
        )

    compare(function, function, [normal(rng, 4, 5) * 0.5, normal(rng, 1, 5) * 0.5])


@pytest.mark.parametrize("name", ["relu", "sigmoid", "softmax"])
def test_activations(rng, name):
    arguments = {"dim": int(rng.integers(-3, 3))} if name == "softmax" else {}
    x = normal(rng, *rng.integers(1, 9, 3)) * 5
    theirs = {"relu": F.relu, "sigmoid": torch.sigmoid, "softmax": F.softmax}[name]
    compare(lambda t: getattr(ops, name)(t, **arguments), lambda t: theirs(t, **arguments), [x])


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_losses(rng, reduction):
    shape = (int(rng.integers(1, 4)), int(rng.integers(2, 5)), *rng.integers(1, 6, 2))
    x, target, weight = (
        normal(rng, *shape) * 3,
        rng.random(shape).astype(np.float32),
        rng.random(shape[1:]).astype("f4"),
    )
    t, w, pos = torch.tensor(target), torch.tensor(weight), rng.random(shape[1:]).astype("f4") + 1
    compare(
        lambda p: ops.binary_cross_entropy(p, target, weight, reduction=reduction),
        lambda p: F.binary_cross_entropy(p, t, w.expand(shape), reduction=reduction),
        [rng.uniform(0.01, 0.99, shape).astype(np.float32)],
    )
    compare(
        lambda s: ops.binary_cross_entropy_with_logits(s, target, weight, pos_weight=pos, reduction=reduction),
        lambda s: F.binary_cross_entropy_with_logits(s, t, w, pos_weight=torch.tensor(pos), reduction=reduction),
        [x],
    )
    settings = {"beta": float(rng.uniform(0.1, 2)), "reduction": reduction}
    compare(lambda s: ops.smooth_l1_loss(s, target, **settings), lambda s: F.smooth_l1_loss(s, t, **settings), [x])
    classes = rng.integers(0, shape[1], (shape[0], *shape[2:]))
    classes[rng.random(classes.shape) < 0.2] = -1
    classes.flat[0] = 0
    settings = {"ignore_index": -1, "label_smoothing": float(rng.choice([0, 0.2])), "reduction": reduction}
    per_class = rng.random(shape[1]).astype(np.float32) + 0.1
    compare(
        lambda s: ops.cross_entropy(s, classes, per_class, **settings),
        lambda s: F.cross_entropy(s, torch.tensor(classes), torch.tensor(per_class), **settings),
        [x],
    )


# ---- layers ----------------------------------------------------------------------------------------------------------


def layer_pairs():
    return {
        "conv": (nn.Conv2d(4, 6, (3, 2), 2, 1, groups=2), torch.nn.Conv2d(4, 6, (3, 2), 2, 1, groups=2)),
        "transposed": (
            nn.ConvTranspose2d(4, 6, 3, 2, 1, 1, 2, False, 1),
            torch.nn.ConvTranspose2d(4, 6, 3, 2, 1, 1, 2, False, 1),
        ),
        "norm": (nn.BatchNorm2d(4, momentum=None), torch.nn.BatchNorm2d(4, momentum=None)),
        "plain norm": (nn.BatchNorm2d(4, affine=False), torch.nn.BatchNorm2d(4, affine=False)),
        "no statistics": (
            nn.BatchNorm2d(4, track_running_stats=False),
            torch.nn.BatchNorm2d(4, track_running_stats=False),
        ),
        "pool": (nn.MaxPool2d(3, 2, 1, 1, False, True), torch.nn.MaxPool2d(3, 2, 1, 1, False, True)),
        "chain": (
            nn.Sequential(nn.Conv2d(4, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(2 * 64, 3), nn.Softmax(1)),
            torch.nn.Sequential(
                torch.nn.Conv2d(4, 2, 1),
                torch.nn.ReLU(),
                torch.nn.Flatten(),
                torch.nn.Linear(2 * 64, 3),
                torch.nn.Softmax(1),
            ),
        ),
        "resize": (nn.Upsample(scale_factor=2.0), torch.nn.Upsample(scale_factor=2.0)),
        "same": (nn.Conv2d(4, 2, 3, padding="same"), torch.nn.Conv2d(4, 2, 3, padding="same")),
    }


@pytest.mark.parametrize(
    "name", ["conv", "transposed", "norm", "plain norm", "no statistics", "pool", "chain", "resize", "same"]
)
def test_layers(name):
    """States and descriptions are interchangeable, and three training steps and evaluation agree."""
    ours, theirs = layer_pairs()[name]
    if not isinstance(ours, nn.BatchNorm2d):  # PyTorch's description of it differs from version to version
        assert repr(ours) == repr(theirs)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.load_state_dict({key: value.numpy() for key, value in theirs.state_dict().items()})
    theirs.load_state_dict({key: torch.tensor(value.numpy()) for key, value in ours.state_dict().items()})
    rng = np.random.default_rng(0)
    for training in (True, True, True, False):
        ours.train(training)
        theirs.train(training)
        x = normal(rng, 2, 4, 8, 8)
        y, expected = ours(x), theirs(torch.tensor(x))
        if isinstance(y, tuple):
            np.testing.assert_array_equal(y[1].numpy(), expected[1].numpy())
            y, expected = y[0], expected[0]
        close(y.numpy(), expected.detach().numpy(), 1e-5)
    for key, value in theirs.state_dict().items():
        close(ours.state_dict()[key].numpy(), value.numpy(), 1e-6)


def test_loss_layers():
    x, target = normal(np.random.default_rng(0), 2, 3, 4), np.random.default_rng(1).random((2, 3, 4)).astype(np.float32)
    pairs = [
        (nn.BCEWithLogitsLoss(pos_weight=np.float32(2)), torch.nn.BCEWithLogitsLoss(pos_weight=torch.tensor(2.0))),
        (nn.SmoothL1Loss(beta=0.5), torch.nn.SmoothL1Loss(beta=0.5)),
    ]
    for ours, theirs in pairs:
        assert ours(x, target).item() == pytest.approx(theirs(torch.tensor(x), torch.tensor(target)).item(), rel=1e-6)


# ---- first values ----------------------------------------------------------------------------------------------------


def assert_same_distribution(ours, theirs):
    """Two-sample Kolmogorov-Smirnov distance: beyond 1.95 sqrt(2 / n) in one case in a thousand, by chance."""
    ours, theirs = np.sort(np.concatenate(ours)), np.sort(np.concatenate(theirs))
    assert len(ours) == len(theirs)
    both = np.concatenate([ours, theirs])
    shares = [np.searchsorted(sample, both, side="right") / len(sample) for sample in (ours, theirs)]
    assert np.abs(shares[0] - shares[1]).max() < 1.95 * np.sqrt(2 / len(ours))


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (lambda: nn.Conv2d(16, 24, (3, 5), groups=4), lambda: torch.nn.Conv2d(16, 24, (3, 5), groups=4)),
        (
            lambda: nn.ConvTranspose2d(16, 24, 3, groups=2),
            lambda: torch.nn.ConvTranspose2d(16, 24, 3, groups=2),
        ),
        (lambda: nn.Linear(30, 50), lambda: torch.nn.Linear(30, 50)),
    ],
)
def test_layers_start_with_the_same_distribution(ours, theirs):
    tinyseg.manual_seed(0)
    torch.manual_seed(0)
    for name in ("weight", "bias"):
        assert_same_distribution(
            [getattr(ours(), name).numpy().ravel() for _ in range(40)],
            [getattr(theirs(), name).detach().numpy().ravel() for _ in range(40)],
        )


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("kaiming_uniform_", {"a": 0.3, "mode": "fan_out"}),
        ("kaiming_normal_", {"mode": "fan_out", "nonlinearity": "relu"}),
        ("kaiming_normal_", {"nonlinearity": "tanh"}),
        ("xavier_uniform_", {"gain": 1.5}),
        ("xavier_normal_", {}),
        ("normal_", {"mean": 0.5, "std": 0.1}),
        ("uniform_", {"a": -2, "b": 3}),
    ],
)
def test_initialisers_draw_from_the_same_distribution(name, arguments):
    tinyseg.manual_seed(0)
    torch.manual_seed(0)
    ours = getattr(nn.init, name)(Tensor(np.empty((50, 40, 3, 2), np.float32)), **arguments)
    theirs = getattr(torch.nn.init, name)(torch.empty(50, 40, 3, 2), **arguments)
    assert_same_distribution([ours.numpy().ravel()], [theirs.numpy().ravel()])


# ---- optimisers ------------------------------------------------------------------------------------------------------

OPTIMISERS = [
    ("SGD", {"lr": 0.1}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "dampening": 0.2, "weight_decay": 0.05}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01, "maximize": True}),
    ("Adam", {}),
    ("Adam", {"lr": 0.05, "betas": (0.8, 0.95), "eps": 1e-4, "weight_decay": 0.1}),
    ("Adam", {"lr": 0.05, "amsgrad": True, "maximize": True}),
    ("AdamW", {}),
    ("AdamW", {"lr": 0.05, "weight_decay": 0.3, "amsgrad": True}),
]
SCHEDULES = [
    ("StepLR", {"step_size": 3, "gamma": 0.5}),
    ("MultiStepLR", {"milestones": [2, 5, 5, 9], "gamma": 0.3}),
    ("ExponentialLR", {"gamma": 0.9}),
    ("CosineAnnealingLR", {"T_max": 7, "eta_min": 0.01}),
    ("LinearLR", {"start_factor": 0.2, "end_factor": 0.9, "total_iters": 6}),
    ("LinearLR", {}),
    ("LambdaLR", {"lr_lambda": lambda step: 0.9**step}),
    ("OneCycleLR", {"max_lr": 0.3, "total_steps": 21}),
    ("OneCycleLR", {"max_lr": 0.3, "epochs": 3, "steps_per_epoch": 10, "anneal_strategy": "linear"}),
    ("OneCycleLR", {"max_lr": 0.3, "total_steps": 30, "three_phase": True, "pct_start": 0.25, "final_div_factor": 10}),
    ("OneCycleLR", {"max_lr": 0.3, "total_steps": 21, "cycle_momentum": False, "div_factor": 4}),
]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("name", "settings"), OPTIMISERS)
def test_optimisers(name, settings, dtype):
    """Twenty steps on the same gradients, one group with another rate."""
    rng = np.random.default_rng(0)
    start = [rng.normal(size=shape).astype(dtype) for shape in ((3, 4), (5,))]
    ours = [nn.Parameter(array.copy()) for array in start]
    theirs = [torch.nn.Parameter(torch.tensor(array)) for array in start]
    mine = getattr(optim, name)([{"params": ours[:1]}, {"params": ours[1:], "lr": 0.02}], **settings)
    other = getattr(torch.optim, name)([{"params": theirs[:1]}, {"params": theirs[1:], "lr": 0.02}], **settings)
    for _ in range(20):
        for p, q in zip(ours, theirs, strict=True):
            gradient = rng.normal(size=p.shape).astype(dtype)
            p.grad, q.grad = Tensor(gradient), torch.tensor(gradient)
        mine.step()
        other.step()
    for p, q in zip(ours, theirs, strict=True):
        close(p.numpy(), q.detach().numpy(), 2e-6 if dtype == np.float32 else 1e-14)


@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step")
@pytest.mark.parametrize("optimizer", ["SGD", "Adam"])
@pytest.mark.parametrize(("name", "settings"), SCHEDULES)
def test_schedules(name, settings, optimizer):
    arguments = {"lr": 0.2, **({"momentum": 0.9} if optimizer == "SGD" else {})}
    ours = getattr(optim, optimizer)([nn.Parameter(np.zeros(1))], **arguments)
    theirs = getattr(torch.optim, optimizer)([torch.nn.Parameter(torch.zeros(1))], **arguments)
    mine = getattr(optim, name)(ours, **settings)
    other = getattr(torch.optim.lr_scheduler, name)(theirs, **settings)
    for _ in range(20):
        (group,), (expected,) = ours.param_groups, theirs.param_groups
        assert group["lr"] == pytest.approx(expected["lr"], rel=1e-9)
        if optimizer == "SGD":
            assert group["momentum"] == pytest.approx(expected["momentum"], rel=1e-12)
        else:
            assert group["betas"] == pytest.approx(expected["betas"], rel=1e-12)
        mine.step()
        other.step()


@pytest.mark.parametrize("norm_type", [1.0, 2.0, 3.0, float("inf")])
def test_clipping(norm_type):
    gradients = [normal(np.random.default_rng(i), 3, 4) for i in range(2)]
    ours = [nn.Parameter(np.zeros((3, 4), np.float32)) for _ in gradients]
    theirs = [torch.nn.Parameter(torch.zeros(3, 4)) for _ in gradients]
    for p, q, gradient in zip(ours, theirs, gradients, strict=True):
        p.grad, q.grad = Tensor(gradient.copy()), torch.tensor(gradient)
    norm = optim.clip_grad_norm_(ours, 0.7, norm_type)
    expected = torch.nn.utils.clip_grad_norm_(theirs, 0.7, norm_type)
    assert norm.item() == pytest.approx(expected.item(), rel=1e-6)
    optim.clip_grad_value_(ours, 0.1)
    torch.nn.utils.clip_grad_value_(theirs, 0.1)
    for p, q in zip(ours, theirs, strict=True):
        close(p.grad.numpy(), q.grad.numpy(), 1e-6)
