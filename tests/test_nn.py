"""Layers: names, states, settings, first values."""

import copy
import pickle

import numpy as np
import pytest

import tinyseg
from tinyseg import Tensor, nn, ops


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3, padding=1)
        self.bn = nn.BatchNorm2d(4)
        self.head = nn.Sequential(nn.ReLU(), nn.Conv2d(4, 1, 1, bias=False))

    def forward(self, x):
        return self.head(self.bn(self.conv(x)))


KEYS = [
    "conv.weight",
    "conv.bias",
    "bn.weight",
    "bn.bias",
    "bn.running_mean",
    "bn.running_var",
    "bn.num_batches_tracked",
    "head.1.weight",
]


def picture(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def arrays(module):
    return {key: value.numpy().copy() for key, value in module.state_dict().items()}


# ---- modules ---------------------------------------------------------------------------------------------------------


def test_names():
    block = Block()
    assert list(block.state_dict()) == KEYS
    assert [name for name, _ in block.named_parameters()] == [k for k in KEYS if "running" not in k and "num" not in k]
    assert [name for name, _ in block.named_buffers()] == KEYS[4:7]
    assert [name for name, _ in block.named_modules()] == ["", "conv", "bn", "head", "head.0", "head.1"]
    assert [name for name, _ in block.named_children()] == ["conv", "bn", "head"]
    assert next(block.named_parameters("net"))[0] == "net.conv.weight"


def test_shared_parameters_come_once():
    module = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    module[1].weight = module[0].weight
    assert len(list(module.parameters())) == 3
    assert len(module.state_dict()) == 4
    twice = nn.Sequential(module[0], module[0])
    assert len(list(twice.modules())) == 2


def test_attributes():
    block = Block()
    assert isinstance(block.conv, nn.Conv2d)
    block.conv = nn.Identity()
    assert "conv.weight" not in block.state_dict()
    del block.head
    assert not hasattr(block, "head")
    block.extra = 3
    assert block.extra == 3
    with pytest.raises(AttributeError, match="Block has no attribute 'nothing'"):
        block.nothing  # noqa: B018
    with pytest.raises(TypeError, match="'bn' is a int; expected a Module"):
        block.bn = 3
    with pytest.raises(TypeError, match="'weight' is a Tensor; expected a Parameter"):
        block.bn.weight = Tensor([1.0])


def test_forgotten_super_init():
    class Wrong(nn.Module):
        def __init__(self):
            self.conv = nn.Conv2d(1, 1, 1)

    with pytest.raises(AttributeError, match=r"before super\(\).__init__\(\) of Wrong"):
        Wrong()


def test_modes():
    block = Block()
    assert block.eval() is block
    assert not any(module.training for module in block.modules())
    block.train()
    assert all(module.training for module in block.modules())


def test_zero_grad_and_requires_grad():
    block = Block()
    block(picture(1, 2, 4, 4)).sum().backward()
    assert all(parameter.grad is not None for parameter in block.parameters())
    block.zero_grad()
    assert all(parameter.grad is None for parameter in block.parameters())
    block.conv.requires_grad_(False)
    block(picture(1, 2, 4, 4)).sum().backward()
    assert block.conv.weight.grad is None
    assert block.bn.weight.grad is not None


def test_apply_goes_innermost_first():
    seen = []
    Block().apply(lambda module: seen.append(type(module).__name__))
    assert seen == ["Conv2d", "BatchNorm2d", "ReLU", "Conv2d", "Sequential", "Block"]


def test_to():
    block = Block()
    assert block.to("cpu") is block
    block.to(np.float64)
    types = {key: value.dtype for key, value in block.state_dict().items()}
    assert types.pop("bn.num_batches_tracked") == np.int64
    assert set(types.values()) == {np.dtype(np.float64)}
    assert block(picture(1, 2, 4, 4).astype(np.float64)).dtype == np.float64
    with pytest.raises(ValueError, match="device is 'gpu'"):
        block.to("gpu")
    with pytest.raises(TypeError, match="dtype is float16"):
        block.to(np.float16)


def test_copies_are_independent():
    block = Block()
    for twin in (copy.deepcopy(block), pickle.loads(pickle.dumps(block))):
        before = arrays(block)
        nn.init.zeros_(twin.conv.weight)
        np.testing.assert_array_equal(block.conv.weight.numpy(), before["conv.weight"])
        assert twin.conv.weight.requires_grad


def test_forward_hooks():
    block, seen = Block(), []
    handle = block.conv.register_forward_hook(lambda module, args, output: seen.append((module, output.shape)))
    block(picture(1, 2, 4, 4))
    assert seen == [(block.conv, (1, 4, 4, 4))]
    handle.remove()
    handle.remove()
    block(picture(1, 2, 4, 4))
    assert len(seen) == 1
    block.register_forward_hook(lambda module, args, output: output * 0)
    assert not block(picture(1, 2, 4, 4)).numpy().any()


def test_module_without_forward():
    with pytest.raises(NotImplementedError, match=r"Module has no forward\(\)"):
        nn.Module()(1)


def test_repr():
    assert repr(Block()) == (
        "Block(\n"
        "  (conv): Conv2d(2, 4, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1))\n"
        "  (bn): BatchNorm2d(4, eps=1e-05, momentum=0.1, affine=True, track_running_stats=True)\n"
        "  (head): Sequential(\n"
        "    (0): ReLU()\n"
        "    (1): Conv2d(4, 1, kernel_size=(1, 1), stride=(1, 1), bias=False)\n"
        "  )\n"
        ")"
    )


# ---- states ----------------------------------------------------------------------------------------------------------


def test_state_round_trip():
    tinyseg.manual_seed(0)
    first, second = Block(), Block()
    first(picture(2, 2, 4, 4))
    kept = second.conv.weight
    assert second.load_state_dict(first.state_dict()) == ([], [])
    assert second.conv.weight is kept
    for key, value in arrays(first).items():
        np.testing.assert_array_equal(second.state_dict()[key].numpy(), value)
    assert second.bn.num_batches_tracked.item() == 1


def test_state_shares_memory_but_not_the_tape():
    block = Block()
    state = block.state_dict()
    assert np.shares_memory(state["conv.weight"].numpy(), block.conv.weight.numpy())
    assert not state["conv.weight"].requires_grad


def test_plain_arrays_of_other_float_types_load():
    block = Block()
    state = {
        key: value.astype(np.float64) if value.dtype.kind == "f" else value for key, value in arrays(block).items()
    }
    state["conv.bias"] = np.ones(4, ">f2")
    block.load_state_dict(state)
    assert block.conv.bias.dtype == np.float32
    np.testing.assert_array_equal(block.conv.bias.numpy(), 1)


def test_old_states_lack_the_count_of_batches():
    block = Block()
    state = arrays(block)
    del state["bn.num_batches_tracked"]
    assert block.load_state_dict(state) == ([], [])


def assert_nothing_loaded(block, state, error, message):
    before = arrays(block)
    with pytest.raises(error, match=message) as caught:
        block.load_state_dict(state)
    assert "\n" not in str(caught.value)
    for key, value in before.items():
        np.testing.assert_array_equal(block.state_dict()[key].numpy(), value)


def other_state():
    return {key: value + 1 for key, value in arrays(Block()).items()}


def test_missing_and_unexpected_keys_are_named():
    state = other_state()
    state["conv.wieght"] = state.pop("conv.weight")
    assert_nothing_loaded(
        Block(),
        state,
        KeyError,
        r"missing 'conv.weight' \(the nearest given is 'conv.wieght'\); "
        r"unexpected 'conv.wieght' \(the nearest expected is 'conv.weight'\)",
    )


def test_missing_key_alone():
    state = other_state()
    del state["bn.weight"]
    assert_nothing_loaded(Block(), state, KeyError, "missing 'bn.weight'$")


def test_many_unexpected_keys_are_counted():
    state = other_state() | {f"encoder.{i}": np.zeros(1) for i in range(9)}
    assert_nothing_loaded(Block(), state, KeyError, "unexpected 'encoder.0'.* and 4 more")


def test_wrong_shape_is_named():
    state = other_state() | {"head.1.weight": np.zeros((2, 4, 1, 1))}
    assert_nothing_loaded(
        Block(), state, ValueError, r"'head.1.weight' has shape \(2, 4, 1, 1\); expected \(1, 4, 1, 1\)"
    )


@pytest.mark.parametrize(
    ("key", "value"),
    [("bn.num_batches_tracked", np.array(1.5)), ("conv.bias", np.array(["a"] * 4)), ("conv.bias", [None] * 4)],
)
def test_wrong_type_is_named(key, value):
    assert_nothing_loaded(Block(), other_state() | {key: value}, TypeError, f"'{key}' has dtype")


def test_state_that_is_no_dictionary():
    with pytest.raises(TypeError, match="state_dict is a list"):
        Block().load_state_dict([1])


def test_loose_loading_reports():
    block, state = Block(), other_state()
    state["extra"] = state.pop("conv.bias")
    result = block.load_state_dict(state, strict=False)
    assert result.missing_keys == ["conv.bias"]
    assert result.unexpected_keys == ["extra"]
    np.testing.assert_array_equal(block.bn.weight.numpy(), 2)
    with pytest.raises(ValueError, match="'bn.weight' has shape"):
        block.load_state_dict(state | {"bn.weight": np.zeros(3)}, strict=False)


def test_loading_is_a_change_that_backward_notices():
    layer = nn.Linear(2, 1)
    y = layer(Tensor(picture(3, 2), requires_grad=True)).sum()
    layer.load_state_dict(arrays(layer))
    with pytest.raises(RuntimeError, match="input 'weight' of linear"):
        y.backward()


# ---- containers ------------------------------------------------------------------------------------------------------


def test_sequential():
    layers = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
    x = picture(4, 2)
    np.testing.assert_array_equal(layers(x).numpy(), layers[2](layers[1](layers[0](x))).numpy())
    assert len(layers) == 3
    assert isinstance(layers[-1], nn.Linear)
    assert list(layers[1:].state_dict()) == ["2.weight", "2.bias"]
    layers[1] = nn.Sigmoid()
    assert isinstance(layers[1], nn.Sigmoid)
    with pytest.raises(IndexError, match="index is 3"):
        layers[3]
    assert list(nn.Sequential({"a": nn.Linear(1, 1)}).state_dict()) == ["a.weight", "a.bias"]


def test_module_list_and_dict():
    listed = nn.ModuleList([nn.Linear(1, 1)]).append(nn.ReLU())
    assert [type(module).__name__ for module in listed] == ["Linear", "ReLU"]
    assert list(listed.state_dict()) == ["0.weight", "0.bias"]
    assert isinstance(listed[:1], nn.ModuleList)
    named = nn.ModuleDict({"a": nn.ReLU()})
    named["b"] = nn.Linear(1, 1)
    assert list(named) == list(named.keys()) == ["a", "b"]
    assert "a" in named
    del named["a"]
    assert [(name, type(module).__name__) for name, module in named.items()] == [("b", "Linear")]
    with pytest.raises(TypeError, match="module '0' is a int"):
        nn.ModuleList([3])
    with pytest.raises(ValueError, match="without dots"):
        nn.ModuleDict({"a.b": nn.ReLU()})


# ---- layers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: nn.Conv2d(1, 1, 3, padding_mode="reflect"), ValueError, "padding_mode is 'reflect'"),
        (lambda: nn.Conv2d(1, 1, 3, stride=2, padding="same"), ValueError, "stride 1"),
        (lambda: nn.Conv2d(1, 1, 3, padding="full"), ValueError, "padding is 'full'"),
        (lambda: nn.Conv2d(3, 4, 3, groups=2), ValueError, "in_channels is 3.*groups=2"),
        (lambda: nn.Conv2d(0, 4, 3), ValueError, "in_channels is 0"),
        (lambda: nn.Conv2d(1, 4, 3.0), TypeError, "kernel_size is 3.0"),
        (lambda: nn.Conv2d(1, 4, 0), ValueError, "kernel_size is 0"),
        (lambda: nn.Conv2d(1, 4, (1, 2, 3)), TypeError, "kernel_size"),
        (lambda: nn.ConvTranspose2d(1, 4, 3, padding="same"), ValueError, "padding is 'same'"),
        (lambda: nn.BatchNorm2d(True), TypeError, "num_features is True"),
        (lambda: nn.Linear(2.5, 1), TypeError, "in_features is 2.5"),
    ],
)
def test_settings_that_do_not_fit(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_weight_shapes():
    assert nn.Conv2d(4, 6, (3, 2), groups=2).weight.shape == (6, 2, 3, 2)
    assert nn.ConvTranspose2d(4, 6, (3, 2), groups=2).weight.shape == (4, 3, 3, 2)
    assert nn.Linear(3, 5).weight.shape == (5, 3)
    assert nn.Conv2d(1, 1, 1, bias=False).bias is None


def test_batch_norm_counts_and_averages():
    layer = nn.BatchNorm2d(1, momentum=None)
    for value in (1.0, 2.0, 6.0):
        layer(np.array([value - 1, value + 1], np.float32).reshape(2, 1, 1, 1))
    assert layer.num_batches_tracked.item() == 3
    np.testing.assert_allclose(layer.running_mean.numpy(), [3.0], rtol=1e-6)
    np.testing.assert_allclose(layer.running_var.numpy(), [2.0], rtol=1e-6)
    layer.eval()
    layer(np.zeros((2, 1, 1, 1), np.float32))
    assert layer.num_batches_tracked.item() == 3
    layer.reset_running_stats()
    assert (layer.running_mean.item(), layer.running_var.item(), layer.num_batches_tracked.item()) == (0, 1, 0)


def test_batch_norm_without_statistics_uses_the_batch_in_evaluation():
    layer = nn.BatchNorm2d(2, affine=False, track_running_stats=False).eval()
    assert not layer.state_dict()
    y = layer(picture(3, 2, 4, 4) * 5 + 3).numpy()
    np.testing.assert_allclose(y.mean(axis=(0, 2, 3)), 0, atol=1e-6)
    np.testing.assert_allclose(y.var(axis=(0, 2, 3)), 1, rtol=1e-4)


def test_failed_batch_norm_leaves_its_state():
    layer = nn.BatchNorm2d(1)
    with pytest.raises(ValueError, match="no variance"):
        layer(np.ones((1, 1, 1, 1), np.float32))
    assert layer.num_batches_tracked.item() == 0


@pytest.mark.parametrize(
    ("layer", "function"),
    [
        (nn.MaxPool2d(2), lambda x: ops.max_pool2d(x, 2)),
        (nn.MaxPool2d(3, 1, 1), lambda x: ops.max_pool2d(x, 3, 1, 1)),
        (nn.Upsample(scale_factor=2), lambda x: ops.interpolate(x, scale_factor=2)),
        (nn.Upsample(5, mode="bilinear"), lambda x: ops.interpolate(x, 5, mode="bilinear")),
        (nn.Sigmoid(), ops.sigmoid),
        (nn.Softmax(dim=1), lambda x: ops.softmax(x, 1)),
        (nn.Identity(3, any=1), lambda x: x),
        (nn.Flatten(), lambda x: x.reshape(2, 48)),
    ],
    ids=lambda value: repr(value) if isinstance(value, nn.Module) else "",
)
def test_layers_without_parameters(layer, function):
    x = Tensor(picture(2, 3, 4, 4))
    np.testing.assert_array_equal(layer(x).numpy(), function(x).numpy())
    assert not layer.state_dict()


def test_max_pool_layer_returns_indices_if_asked():
    _, indices = nn.MaxPool2d(2, return_indices=True)(picture(1, 1, 4, 4))
    assert indices.dtype == np.int64


X, T = picture(2, 3, 4), (picture(2, 3, 4, seed=1) > 0).astype(np.float32)
C, W = np.array([[0, 1, 2, 0], [2, 1, 0, -1]]), np.array([1, 2, 3], np.float32)


@pytest.mark.parametrize(
    ("layer", "function"),
    [
        (nn.BCELoss(T + 1), lambda: ops.binary_cross_entropy(ops.sigmoid(X), T, T + 1)),
        (
            nn.BCEWithLogitsLoss(pos_weight=np.float32(3)),
            lambda: ops.binary_cross_entropy_with_logits(X, T, pos_weight=3),
        ),
        (
            nn.CrossEntropyLoss(W, ignore_index=-1, label_smoothing=0.1),
            lambda: ops.cross_entropy(X, C, W, ignore_index=-1, label_smoothing=0.1),
        ),
        (nn.SmoothL1Loss(beta=0.3, reduction="sum"), lambda: ops.smooth_l1_loss(X, T, beta=0.3, reduction="sum")),
        (nn.SigmoidFocalLoss(0.4, 1.0), lambda: ops.sigmoid_focal_loss(X, T, 0.4, 1.0, "mean")),
        (nn.DiceLoss(2.0, per_sample=True), lambda: ops.dice_loss(X, T, 2.0, per_sample=True)),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_loss_layers(layer, function):
    x = ops.sigmoid(X) if isinstance(layer, nn.BCELoss) else X
    target = C if isinstance(layer, nn.CrossEntropyLoss) else T
    assert layer(x, target).item() == function().item()


# ---- first values ----------------------------------------------------------------------------------------------------

SHAPE = (60, 50, 3, 3)
FAN_IN, FAN_OUT = 450, 540


def drawn(function, *args, shape=SHAPE, **kwargs):
    tinyseg.manual_seed(5)
    tensor = Tensor(np.full(shape, np.nan, np.float32))
    assert function(tensor, *args, **kwargs) is tensor
    return tensor.numpy().astype(np.float64).ravel()


def assert_uniform(values, bound):
    """Check the bound, and the Kolmogorov-Smirnov distance from the even distribution (1.95: one chance in 1000)."""
    assert np.abs(values).max() <= bound * (1 + 1e-6)
    expected = (np.sort(values) / bound + 1) / 2
    steps = np.arange(len(values)) / len(values)
    assert np.abs(expected - steps).max() < 1.95 / np.sqrt(len(values))


def assert_normal(values, std):
    """Check mean, spread and two quantiles, each within four standard errors."""
    n = len(values)
    assert abs(values.mean()) < 4 * std / np.sqrt(n)
    assert abs(values.std() / std - 1) < 4 / np.sqrt(2 * n)
    for quantile, share in ((1.0, 0.158655), (2.0, 0.0227501)):
        assert abs((values > quantile * std).mean() - share) < 4 * np.sqrt(share / n)


@pytest.mark.parametrize(
    ("function", "kwargs", "bound"),
    [
        (nn.init.kaiming_uniform_, {}, np.sqrt(6 / FAN_IN)),
        (nn.init.kaiming_uniform_, {"a": np.sqrt(5)}, np.sqrt(1 / FAN_IN)),
        (nn.init.kaiming_uniform_, {"mode": "fan_out", "nonlinearity": "relu"}, np.sqrt(6 / FAN_OUT)),
        (nn.init.kaiming_uniform_, {"nonlinearity": "linear"}, np.sqrt(3 / FAN_IN)),
        (nn.init.xavier_uniform_, {"gain": 2}, 2 * np.sqrt(6 / (FAN_IN + FAN_OUT))),
        (nn.init.uniform_, {"a": -0.3, "b": 0.3}, 0.3),
    ],
)
def test_uniform_first_values(function, kwargs, bound):
    assert_uniform(drawn(function, **kwargs), bound)


@pytest.mark.parametrize(
    ("function", "kwargs", "std"),
    [
        (nn.init.kaiming_normal_, {}, np.sqrt(2 / FAN_IN)),
        (nn.init.kaiming_normal_, {"mode": "fan_out", "nonlinearity": "relu"}, np.sqrt(2 / FAN_OUT)),
        (nn.init.xavier_normal_, {}, np.sqrt(2 / (FAN_IN + FAN_OUT))),
        (nn.init.normal_, {"std": 0.01}, 0.01),
    ],
)
def test_normal_first_values(function, kwargs, std):
    assert_normal(drawn(function, **kwargs), std)


def test_constant_first_values():
    assert (drawn(nn.init.zeros_) == 0).all()
    assert (drawn(nn.init.ones_) == 1).all()
    assert (drawn(nn.init.constant_, 3) == 3).all()
    assert drawn(nn.init.normal_, 7, 0.1).mean() == pytest.approx(7, abs=0.01)


@pytest.mark.parametrize(
    ("layer", "fan_in"),
    [
        (lambda: nn.Conv2d(40, 50, 3), 360),
        (lambda: nn.Conv2d(40, 60, (3, 1), groups=2), 60),
        (lambda: nn.ConvTranspose2d(60, 40, 2), 160),  # PyTorch counts the second axis
        (lambda: nn.Linear(100, 90), 100),
    ],
)
def test_layers_start_as_in_pytorch(layer, fan_in):
    tinyseg.manual_seed(1)
    layers = [layer() for _ in range(20)]
    for name in ("weight", "bias"):
        values = np.concatenate([getattr(each, name).numpy().ravel() for each in layers]).astype(np.float64)
        assert_uniform(values, 1 / np.sqrt(fan_in))


def test_generator_of_its_own():
    first = drawn(nn.init.uniform_, generator=np.random.default_rng(1))
    np.testing.assert_array_equal(first, drawn(nn.init.uniform_, generator=np.random.default_rng(1)))


def test_first_values_that_do_not_fit():
    with pytest.raises(ValueError, match="two or more axes"):
        nn.init.kaiming_uniform_(Tensor([1.0]))
    with pytest.raises(ValueError, match="mode is 'fan'"):
        nn.init.kaiming_uniform_(Tensor([[1.0]]), mode="fan")
    with pytest.raises(ValueError, match="nonlinearity is 'swish'"):
        nn.init.calculate_gain("swish")
