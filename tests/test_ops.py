"""The operators through the tape: gradients by finite differences, answers by hand, arguments as in PyTorch."""

import numpy as np
import pytest
from tape_gradients import check_gradients

import tinyseg
from tinyseg import Tensor, ops
from tinyseg.function import Function


@pytest.fixture(params=["naive", "cpu"], autouse=True)
def backend(request):
    with tinyseg.use_backend(request.param):
        yield request.param


def distinct(*shape, seed=0):
    """Return numbers that all differ by 0.05 or more, and from 0: no ties, no kinks nearby."""
    size = int(np.prod(shape))
    values = (np.arange(size) - size / 2 + 0.25) * 0.05
    return np.random.default_rng(seed).permutation(values).reshape(shape)


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


# ---- elementwise -----------------------------------------------------------------------------------------------------

ELEMENTWISE = {
    "add": lambda a, b: a + b,
    "subtract": lambda a, b: a - b,
    "multiply": lambda a, b: a * b,
    "divide": lambda a, b: a / b,
    "ops.add": ops.add,
}


@pytest.mark.parametrize("shapes", [((2, 3), (2, 3)), ((2, 3), (3,)), ((2, 1), (1, 3)), ((), (2,)), ((0, 3), (3,))])
@pytest.mark.parametrize("name", ELEMENTWISE)
def test_elementwise_gradients(name, shapes):
    a, b = (np.abs(normal(*shape, seed=i)) + 0.5 for i, shape in enumerate(shapes))
    check_gradients(ELEMENTWISE[name], a, b)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: -x,
        lambda x: x**3,
        lambda x: x**-0.5,
        lambda x: x**0,
        lambda x: x.exp(),
        lambda x: x.log(),
        lambda x: 2 - x,
        lambda x: 2 / x,
        lambda x: 3 * x + 1,
        lambda x: np.array([[2.0], [3.0]]) * x,
        lambda x: x.astype(np.float64) * x.clone(),
    ],
)
def test_unary_gradients(function):
    check_gradients(function, np.abs(normal(2, 3)) + 0.5)


def test_power_zero_of_zero_has_no_gradient():
    x = Tensor(np.zeros(2), requires_grad=True)
    (x**0).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), [0, 0])


@pytest.mark.parametrize("shapes", [((2, 3), (3, 4)), ((5, 2, 3), (3, 4)), ((1, 2, 3), (4, 3, 2))])
def test_matmul_gradients(shapes):
    check_gradients(lambda a, b: a @ b, normal(*shapes[0]), normal(*shapes[1], seed=1))


def test_matmul_needs_matrices():
    with pytest.raises(ValueError, match="two or more axes"):
        Tensor([1.0]) @ Tensor([[1.0]])


@pytest.mark.parametrize(
    ("a", "b", "dtype"),
    [
        (np.float32(1), 2, np.float32),
        (np.float32(1), np.float64(2), np.float32),
        (np.ones(1, np.float32), np.ones(1), np.float64),
        (np.ones(1, np.float32), np.ones(1, np.int64), np.float32),
        (np.ones(1, np.int64), 2, np.int64),
        (np.ones(1, np.int64), 0.5, np.float32),
        (np.ones(1, np.uint8), np.ones(1, np.int64), np.int64),
    ],
)
def test_type_of_a_sum(a, b, dtype):
    assert (Tensor(a) + b).dtype == dtype
    if isinstance(b, np.ndarray):
        assert (Tensor(a) + Tensor(b)).dtype == dtype
        assert (b + Tensor(a)).dtype == dtype


def test_gradients_of_mixed_types_keep_their_types():
    a = Tensor(np.ones(2, np.float32), requires_grad=True)
    b = Tensor(np.ones(2), requires_grad=True)
    (a * b).sum().backward()
    assert (a.grad.dtype, b.grad.dtype) == (np.float32, np.float64)


def test_division_of_integers():
    assert (Tensor([1]) / 2).item() == 0.5


def test_shapes_that_do_not_broadcast():
    with pytest.raises(ValueError, match=r"shapes \(2,\) and \(3,\)"):
        Tensor([1.0, 2.0]) + Tensor([1.0, 2.0, 3.0])


def test_operands_of_other_types():
    with pytest.raises(TypeError):
        Tensor([1.0]) + "a"
    with pytest.raises(TypeError):
        Tensor([1.0]) ** Tensor([1.0])


def test_comparisons():
    x = Tensor([1.0, 2.0, 3.0], requires_grad=True)
    np.testing.assert_array_equal((x > 2).numpy(), [False, False, True])
    np.testing.assert_array_equal((x <= Tensor([2.0, 2.0, 2.0])).numpy(), [True, True, False])
    np.testing.assert_array_equal((x == 2).numpy(), [False, True, False])
    assert not (x != 2).requires_grad


# ---- shapes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.reshape(3, 8) * 2,
        lambda x: x.reshape((-1, 2)),
        lambda x: x.flatten(),
        lambda x: x.flatten(1),
        lambda x: x.transpose(0, 2),
        lambda x: x.transpose(),
        lambda x: x.transpose(1, 2, 0),
        lambda x: x.permute(2, 0, 1),
        lambda x: x.T,
        lambda x: x.sum(),
        lambda x: x.sum(1),
        lambda x: x.sum(axis=(0, -1), keepdims=True),
        lambda x: x.mean(),
        lambda x: x.mean(axis=-1),
        lambda x: x[1],
        lambda x: x[:, ::2, None],
        lambda x: x[..., -1],
        lambda x: x[[0, 0, 1]],
        lambda x: x[np.array([1, 1]), :, np.array([0, 0])],
        lambda x: x[x.numpy() > 0.2],
        lambda x: x[Tensor([1, 0, 1])],
        lambda x: ops.cat([x, x * 2], dim=-1),
        lambda x: ops.cat([x], dim=0),
    ],
)
def test_shape_gradients(function):
    check_gradients(function, distinct(2, 3, 4))


def test_shapes_by_hand():
    x = Tensor(np.arange(24.0).reshape(2, 3, 4))
    np.testing.assert_array_equal(x.transpose(0, 2).numpy(), x.numpy().swapaxes(0, 2))
    np.testing.assert_array_equal(x.transpose(1, 2, 0).numpy(), x.numpy().transpose(1, 2, 0))
    np.testing.assert_array_equal(x.flatten(1).numpy(), x.numpy().reshape(2, 12))
    assert x.sum().item() == 276
    assert x.mean(axis=0).shape == (3, 4)
    assert Tensor(3.0).flatten().shape == (1,)


def test_mean_of_nothing_is_nan():
    assert np.isnan(Tensor(np.zeros(0)).mean().item())


def test_axis_out_of_range():
    with pytest.raises(ValueError, match="axis is 2"):
        Tensor([[1.0]]).sum(2)
    with pytest.raises(ValueError, match="each of the 2 axes once"):
        Tensor([[1.0]]).permute(0, 0)


def test_index_arrays_may_change_afterwards():
    index = np.array([0, 1])
    x = Tensor(np.array([1.0, 2.0, 3.0]), requires_grad=True)
    y = x[index]
    index[:] = 2
    y.sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), [1, 1, 0])


def test_cat_gives_no_gradient_where_none_is_wanted():
    a, b = Tensor(np.ones((1, 2)), requires_grad=True), Tensor(np.ones((1, 3)))
    ops.cat([a, b], dim=1).sum().backward()
    np.testing.assert_array_equal(a.grad.numpy(), [[1, 1]])
    assert b.grad is None


def test_cat_needs_tensors_that_fit():
    with pytest.raises(ValueError, match=r"shape \(1, 3\)"):
        ops.cat([np.ones((2, 2)), np.ones((1, 3))], dim=1)
    with pytest.raises(ValueError, match="empty"):
        ops.cat([])


PADS = [
    ((1, 2), "constant"),
    ((1, 0, 2, 1), "constant"),
    ((2, 1, 1, 2), "reflect"),
    ((0, 3, 0, 2), "reflect"),
    ((5, 1, 0, 4), "replicate"),
    ((-1, 2, 1, -1), "constant"),
    ((-1, 2, 1, -1), "reflect"),
    ((0, 0), "constant"),
]


@pytest.mark.parametrize(("pad", "mode"), PADS)
def test_pad_gradients(pad, mode):
    check_gradients(lambda x: ops.pad(x, pad, mode), normal(2, 3, 4))


@pytest.mark.parametrize(("pad", "mode"), [case for case in PADS if min(case[0]) >= 0])
def test_pad_agrees_with_numpy(pad, mode):
    x = normal(2, 3, 4)
    widths = [(0, 0)] * (3 - len(pad) // 2) + list(zip(pad[::2], pad[1::2], strict=True))[::-1]
    expected = np.pad(x, widths, mode={"replicate": "edge"}.get(mode, mode))
    np.testing.assert_array_equal(ops.pad(x, pad, mode).numpy(), expected)


def test_pad_value():
    np.testing.assert_array_equal(ops.pad(np.array([1.0]), (1, 1), value=7).numpy(), [7, 1, 7])


@pytest.mark.parametrize(
    ("pad", "mode", "message"),
    [
        ((4, 0), "reflect", "less than the size"),
        ((1,), "constant", "pair"),
        ((1, 1), "circular", "mode is 'circular'"),
        ((-3, -2), "constant", "crops more"),
    ],
)
def test_pads_that_do_not_fit(pad, mode, message):
    with pytest.raises(ValueError, match=message):
        ops.pad(np.zeros((2, 4)), pad, mode)


# ---- layers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"stride": 2, "padding": 1},
        {"stride": (1, 2), "padding": (0, 1), "dilation": (2, 1), "groups": 2},
        {"padding": "same", "dilation": 2},
        {"padding": "valid"},
    ],
)
def test_conv2d_gradients(parameters, bias):
    weight = normal(4, 4 // parameters.get("groups", 1), 2, 3, seed=1)
    arrays = [normal(2, 4, 5, 6), weight, *([normal(4, seed=2)] if bias else [])]
    check_gradients(lambda *tensors: ops.conv2d(*tensors, **parameters), *arrays)


@pytest.mark.parametrize(
    "parameters", [{}, {"stride": 2, "padding": 1}, {"dilation": (2, 1), "groups": 2}, {"padding": "same"}]
)
def test_conv2d_of_two_inputs(parameters, backend):
    weight = normal(4, 6 // parameters.get("groups", 1), 2, 3, seed=1)
    arrays = [normal(2, 3, 5, 6), normal(2, 3, 5, 6, seed=3), weight, normal(4, seed=2)]
    check_gradients(lambda x, more, *others: ops.conv2d(x, *others, **parameters, more=more), *arrays)
    x, more, *others = (Tensor(array, requires_grad=True) for array in arrays)
    y = ops.conv2d(x, *others, **parameters, more=more)
    np.testing.assert_array_equal(y.numpy(), ops.conv2d(ops.cat([x, more], dim=1), *others, **parameters).numpy())
    joined = backend == "cpu" and parameters.get("padding") != "same"
    assert y.creator.operator_name() == ("conv2d_joined" if joined else "conv2d")


@pytest.mark.parametrize("needed", range(4))
def test_conv2d_of_two_inputs_of_which_one_needs_a_gradient(needed):
    arrays = [normal(2, 3, 5, 6), normal(2, 3, 5, 6, seed=3), normal(4, 6, 3, 3, seed=1), normal(4, seed=2)]
    tensors = [Tensor(array, requires_grad=i == needed) for i, array in enumerate(arrays)]
    all_needed = [Tensor(array, requires_grad=True) for array in arrays]
    for x, more, *others in (tensors, all_needed):
        ops.sum(ops.conv2d(x, *others, more=more) ** 2).backward()
    assert [tensor.grad is not None for tensor in tensors] == [i == needed for i in range(4)]
    np.testing.assert_array_equal(tensors[needed].grad.numpy(), all_needed[needed].grad.numpy())


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"stride": 2, "padding": 1, "output_padding": 1},
        {"stride": (1, 2), "dilation": (2, 1), "groups": 2, "output_padding": (1, 0)},
    ],
)
def test_conv_transpose2d_gradients(parameters, bias):
    weight = normal(4, 4 // parameters.get("groups", 1), 2, 3, seed=1)
    arrays = [normal(2, 4, 3, 4), weight, *([normal(4, seed=2)] if bias else [])]
    check_gradients(lambda *tensors: ops.conv_transpose2d(*tensors, **parameters), *arrays)


def test_conv_transpose2d_takes_groups_before_dilation():
    x, weight = normal(1, 4, 3, 3), normal(4, 1, 2, 2, seed=1)
    y = ops.conv_transpose2d(x, weight, None, 1, 0, 0, 2, 3)
    np.testing.assert_array_equal(y.numpy(), ops.conv_transpose2d(x, weight, groups=2, dilation=3).numpy())
    assert y.shape == (1, 2, 6, 6)


def test_same_padding_puts_the_odd_pixel_last():
    x, weight = np.zeros((1, 1, 3, 3)), np.zeros((1, 1, 2, 2))
    x[0, 0, 0, 0] = weight[0, 0, 0, 0] = 1
    expected = np.zeros((1, 1, 3, 3))
    expected[0, 0, 0, 0] = 1
    np.testing.assert_array_equal(ops.conv2d(x, weight, padding="same").numpy(), expected)


@pytest.mark.parametrize(("padding", "stride", "message"), [("same", 2, "stride"), ("full", 1, "padding is 'full'")])
def test_named_paddings_that_do_not_fit(padding, stride, message):
    with pytest.raises(ValueError, match=message):
        ops.conv2d(np.zeros((1, 1, 3, 3)), np.zeros((1, 1, 2, 2)), padding=padding, stride=stride)


def test_first_layer_skips_the_gradient_of_the_picture():
    x, weight = Tensor(normal(1, 1, 3, 3)), Tensor(normal(1, 1, 2, 2), requires_grad=True)
    y = ops.conv2d(x, weight)
    dx, dweight, dbias = y.creator.backward(np.ones((1, 1, 2, 2)))
    assert dx is None
    assert dbias is None
    assert dweight.shape == weight.shape


@pytest.mark.parametrize("shape", [(3,), (2, 3), (2, 4, 3), (0, 3)])
def test_linear_gradients(shape):
    check_gradients(ops.linear, normal(*shape), normal(5, 3, seed=1), normal(5, seed=2))
    check_gradients(ops.linear, normal(*shape), normal(5, 3, seed=1))


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("training", [True, False])
def test_batch_norm_gradients(training, affine):
    def function(x, *scale_and_shift):
        mean, var = Tensor(np.array([0.1, 0.2])), Tensor(np.array([0.5, 2.0]))
        return ops.batch_norm(x, mean, var, *scale_and_shift, training=training)

    arrays = [normal(2, 2, 3, 2), *([normal(2, seed=1), normal(2, seed=2)] if affine else [])]
    check_gradients(function, *arrays, bound=1e-7)


def test_batch_norm_updates_running_statistics():
    mean, var = Tensor(np.zeros(1)), Tensor(np.ones(1))
    changes = mean.memory.changes
    ops.batch_norm(np.array([[[[1.0, 3.0]]]]), mean, var, training=True, momentum=0.5)
    assert mean.item() == 1.0  # half way to 2
    assert var.item() == 1.5  # half way to the unbiased variance, 2
    assert mean.memory.changes > changes


def test_batch_norm_backward_uses_what_forward_used():
    """The running statistics move on between forward and backward."""
    mean, var = Tensor(np.zeros(1)), Tensor(np.full(1, 4.0))
    x = Tensor(normal(1, 1, 2, 2), requires_grad=True)
    weight = Tensor(np.ones(1), requires_grad=True)
    y = ops.batch_norm(x, mean, var, weight, eps=0)
    mean[0], var[0] = 100.0, 100.0
    y.sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), 0.5)
    np.testing.assert_allclose(weight.grad.numpy(), x.numpy().sum() / 2)


@pytest.mark.parametrize(
    "parameters",
    [
        {"kernel_size": 2},
        {"kernel_size": (3, 2), "stride": 1, "padding": (1, 0)},
        {"kernel_size": 2, "dilation": 2, "stride": 1, "ceil_mode": True},
    ],
)
def test_max_pool2d_gradients(parameters):
    check_gradients(lambda x: ops.max_pool2d(x, **parameters), distinct(2, 2, 5, 6))


@pytest.mark.parametrize("first", [True, False])
def test_max_pool2d_adds_its_gradient_to_others(first):
    def both(x):
        use = (lambda: ops.sum(ops.max_pool2d(x, 2)), lambda: ops.sum(x * x))
        one, other = (each() for each in (use if first else use[::-1]))
        return one * other

    check_gradients(both, distinct(2, 2, 5, 6))


def test_max_pool2d_takes_a_gradient_of_another_type():
    class Wide(Function):  # a user's, that lets NumPy choose the type
        def forward(self, x):
            return x

        def backward(self, dy):
            return dy * np.float64(2)

    x = Tensor(distinct(1, 1, 2, 2).astype(np.float32), requires_grad=True)
    (ops.sum(ops.max_pool2d(x, 2)) + ops.sum(Wide.apply(x))).backward()
    assert x.grad.dtype == np.float32
    np.testing.assert_array_equal(np.sort(x.grad.numpy().ravel()), [2, 2, 2, 3])


def test_max_pool2d_indices():
    x = np.arange(16.0).reshape(1, 1, 4, 4)
    y, indices = ops.max_pool2d(x, 2, return_indices=True)
    np.testing.assert_array_equal(indices.numpy().ravel(), [5, 7, 13, 15])
    np.testing.assert_array_equal(y.numpy().ravel(), [5, 7, 13, 15])
    assert indices.dtype == np.int64


@pytest.mark.parametrize(
    "parameters",
    [
        {"scale_factor": 2},
        {"size": (3, 7)},
        {"size": 7, "mode": "bilinear"},
        {"scale_factor": (1.5, 0.5), "mode": "bilinear"},
        {"scale_factor": 1.6, "mode": "bilinear", "recompute_scale_factor": True},
        {"size": (5, 2), "mode": "bilinear", "align_corners": True},
    ],
)
def test_interpolate_gradients(parameters):
    check_gradients(lambda x: ops.interpolate(x, **parameters), normal(1, 2, 4, 5))


def test_recomputed_scale_factor_is_the_ratio_of_the_sizes():
    x = normal(1, 1, 5, 5)
    y = ops.interpolate(x, scale_factor=1.5, mode="bilinear", recompute_scale_factor=True)
    np.testing.assert_array_equal(y.numpy(), ops.interpolate(x, size=7, mode="bilinear").numpy())
    assert (y.numpy() != ops.interpolate(x, scale_factor=1.5, mode="bilinear").numpy()).any()


@pytest.mark.parametrize(
    "parameters",
    [
        {"size": 2, "align_corners": False},
        {"size": 2, "scale_factor": 2},
        {"size": 2, "recompute_scale_factor": True},
        {},
    ],
)
def test_interpolate_arguments_that_do_not_fit(parameters):
    with pytest.raises(ValueError, match="expected"):
        ops.interpolate(np.zeros((1, 1, 4, 4)), **parameters)


@pytest.mark.parametrize(
    "function", [ops.relu, ops.sigmoid, lambda x: ops.softmax(x, 1), lambda x: ops.softmax(x, dim=-1)]
)
def test_activation_gradients(function):
    check_gradients(function, distinct(2, 3, 4))


# ---- losses ----------------------------------------------------------------------------------------------------------

TARGET = np.random.default_rng(3).integers(0, 2, (2, 3, 4)).astype(np.float64)
SOFT = np.random.default_rng(4).random((2, 3, 4))
CLASSES = np.array([[0, 2, 1, -100], [1, 1, 0, 2]])
LOSSES = {
    "bce": lambda x, r: ops.binary_cross_entropy(ops.sigmoid(x), SOFT, reduction=r),
    "bce weight": lambda x, r: ops.binary_cross_entropy(ops.sigmoid(x), TARGET, SOFT[0], reduction=r),
    "logits": lambda x, r: ops.binary_cross_entropy_with_logits(x, SOFT, reduction=r),
    "logits pos_weight": lambda x, r: ops.binary_cross_entropy_with_logits(
        x, SOFT, SOFT + 1, pos_weight=np.full((3, 1), 3.0), reduction=r
    ),
    "cross entropy": lambda x, r: ops.cross_entropy(x, CLASSES, reduction=r),
    "cross entropy weight": lambda x, r: ops.cross_entropy(
        x, CLASSES, np.array([1.0, 2.0, 0.5]), label_smoothing=0.1, ignore_index=-100, reduction=r
    ),
    "smooth l1": lambda x, r: ops.smooth_l1_loss(x * 10, SOFT, beta=0.7, reduction=r),
    "focal": lambda x, r: ops.sigmoid_focal_loss(x, TARGET, reduction=r),
    "focal no alpha": lambda x, r: ops.sigmoid_focal_loss(x, TARGET, alpha=-1, gamma=1.5, reduction=r),
    "dice": lambda x, r: ops.dice_loss(x, TARGET, reduction=r),
    "dice per sample": lambda x, r: ops.dice_loss(x, SOFT, 0.5, per_sample=True, reduction=r),
}


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("name", LOSSES)
def test_loss_gradients(name, reduction):
    check_gradients(lambda x: LOSSES[name](x, reduction), distinct(2, 3, 4, seed=5), bound=5e-8)


def test_masks_of_integers_and_bools_are_targets():
    x = normal(2, 3, 4)
    expected = ops.binary_cross_entropy_with_logits(x, TARGET).item()
    for dtype in (np.uint8, np.bool_, np.int64, np.float32):
        assert ops.binary_cross_entropy_with_logits(x, TARGET.astype(dtype)).item() == expected
        assert ops.binary_cross_entropy_with_logits(x, Tensor(TARGET.astype(dtype))).item() == expected


@pytest.mark.parametrize(
    "loss",
    [
        ops.binary_cross_entropy,
        ops.binary_cross_entropy_with_logits,
        ops.smooth_l1_loss,
        ops.sigmoid_focal_loss,
        ops.dice_loss,
    ],
)
def test_targets_with_gradients_are_refused(loss):
    x, target = Tensor(np.full(2, 0.5)), Tensor(np.full(2, 0.5), requires_grad=True)
    with pytest.raises(ValueError, match="targets? requires gradients"):
        loss(x, target)


def test_weights_with_gradients_are_refused():
    with pytest.raises(ValueError, match="weight requires gradients"):
        ops.cross_entropy(np.zeros((2, 3)), np.array([0, 1]), Tensor(np.ones(3), requires_grad=True))


def test_cross_entropy_by_hand():
    x = np.log(np.array([[1.0, 3.0], [1.0, 1.0]]))
    np.testing.assert_allclose(
        ops.cross_entropy(x, np.array([1, 0]), reduction="none").numpy(), [-np.log(0.75), np.log(2)]
    )


def test_backend_may_change_between_forward_and_backward():
    x = Tensor(normal(1, 1, 4, 4), requires_grad=True)
    weight = Tensor(normal(1, 1, 3, 3, seed=1), requires_grad=True)
    y = ops.conv2d(x, weight)
    with tinyseg.use_backend("naive"):
        y.sum().backward()
    assert x.grad.shape == x.shape
