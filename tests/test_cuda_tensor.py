"""Tensors on the device: operators give what they give on the host, nothing moves unasked, errors say what to do."""

import copy
import pickle

import numpy as np
import pytest

import tinyseg
from kernels import cuda
from kernels.cuda.strides import _parts, full, whole
from tinyseg import Tensor, nn, ops, optim

pytestmark = pytest.mark.cuda


def both(shapes, rng, dtype=np.float64):
    """Return leaves of some shapes, on the host and the same on the device."""
    host = [Tensor(rng.uniform(0.5, 2, shape).astype(dtype), requires_grad=True) for shape in shapes]
    return host, [leaf(tensor.to("cuda")) for tensor in host]


def leaf(tensor):
    return tensor.detach().requires_grad_()


#: Operators of the tape, and the shapes of their inputs.
OPERATORS = {
    "add": (lambda a, b: a + b, (2, 3, 4), (3, 1)),
    "sub": (lambda a, b: a - b, (2, 3, 4), (4,)),
    "mul": (lambda a, b: a * b, (3, 1), (2, 3, 4)),
    "div": (lambda a, b: a / b, (2, 3), (2, 1)),
    "numbers": (lambda a: 2 - (3 * a + 1) / 4 - 1 / a, (3, 4)),
    "neg": (lambda a: -a, (3,)),
    "pow": (lambda a: a**3 + a**2 + a**-1 + a**0.5 + a**1 + a**0, (3, 4)),
    "exp_log": (lambda a: ops.exp(a) + ops.log(a), (3, 4)),
    "matmul": (lambda a, b: a @ b, (3, 4), (4, 2)),
    "matmul_batch": (lambda a, b: a @ b, (2, 1, 3, 4), (3, 4, 2)),
    "astype": (lambda a: a.astype(np.float32).astype(np.float64), (3, 4)),
    "clone": (lambda a: a.clone(), (3, 4)),
    "reshape": (lambda a: a.reshape(3, -1).flatten(), (2, 3, 4)),
    "permute": (lambda a: a.permute(2, 0, 1), (2, 3, 4)),
    "transpose": (lambda a: a.transpose(0, 2).T, (2, 3, 4)),
    "index": (lambda a: a[1, :, ::2], (2, 3, 4)),
    "index_backwards": (lambda a: a[..., ::-1][:, None, 1:], (2, 3, 4)),
    "element": (lambda a: a[1, 2], (2, 3)),
    "picked": (lambda a: a[[2, 0, 2]], (3, 4)),
    "picked_elements": (lambda a: a[np.array([1, 0, 1]), np.array([2, 3, 2])], (2, 4, 3)),
    "picked_by_bools": (lambda a: a[:, np.array([True, False, True])], (2, 3)),
    "sum": (lambda a: a.sum(), (2, 3, 4)),
    "sum_axes": (lambda a: a.sum((0, 2)) * a.sum(1, keepdims=True)[0, 0, 0], (2, 3, 4)),
    "mean": (lambda a: a.mean(1) * a.mean(), (2, 3, 4)),
    "cat": (lambda a, b: ops.cat([a, b], dim=1), (2, 1, 4), (2, 3, 4)),
    "pad": (lambda a: ops.pad(a, (1, 2, 0, 1), value=3.0), (1, 2, 3, 4)),
    "pad_reflect": (lambda a: ops.pad(a, (2, 1, 0, 1), mode="reflect"), (1, 2, 3, 4)),
    "pad_replicate": (lambda a: ops.pad(a, (2, 3, 1, 0), mode="replicate"), (1, 1, 3, 4)),
    "crop": (lambda a: ops.pad(a, (-1, -1)), (2, 5)),
    "relu": (lambda a: ops.relu(a - 1), (3, 4)),
    "sigmoid": (lambda a: ops.sigmoid(a), (3, 4)),
    "softmax": (lambda a: ops.softmax(a, dim=1), (2, 3, 2)),
    "max_pool2d": (lambda a: ops.max_pool2d(a, 2), (1, 2, 4, 5)),
    "interpolate": (lambda a: ops.interpolate(a, scale_factor=2, mode="bilinear"), (1, 1, 2, 3)),
    "used_twice": (lambda a: a * a + a, (3,)),
    "assigned": (lambda a, b: assigned(a * 1, b), (3, 4), (4,)),
    "assigned_to_picked": (lambda a, b: picked(a * 1, b), (3, 4), (2, 4)),
    "added_in_place": (lambda a, b: added(a * 1, b), (3, 4), (4,)),
}


def assigned(a, b):
    a[1] = b
    a[:, 0] = 2
    return a


def picked(a, b):
    a[[2, 0]] = b
    return a


def added(a, b):
    a += b
    a *= 2
    return a


@pytest.mark.parametrize("name", OPERATORS)
def test_operator_equals_the_hosts(name, rng):
    operator, *shapes = OPERATORS[name]
    host, device = both(shapes, rng)
    y = operator(*host)
    before = cuda.transfers()
    z = operator(*device)
    weights = rng.standard_normal(y.shape)
    (y * Tensor(weights)).sum().backward()
    on_device = Tensor(weights).to("cuda")
    (z * on_device).sum().backward()
    assert z.device == "cuda" and all(tensor.grad.device == "cuda" for tensor in device)
    after = cuda.transfers()
    # the weights; places that are picked, and where some are picked twice their order
    copies = 1 + {"picked": 2, "picked_elements": 2, "picked_by_bools": 1, "assigned_to_picked": 1}.get(name, 0)
    assert after.to_device - before.to_device == copies and after.to_host == before.to_host
    np.testing.assert_allclose(z.to("cpu").numpy(), y.numpy(), rtol=1e-13)
    for here, there in zip(host, device, strict=True):
        np.testing.assert_allclose(there.grad.to("cpu").numpy(), here.grad.numpy(), rtol=1e-12, atol=1e-14)


def test_moving_is_on_the_tape(rng):
    x = Tensor(rng.standard_normal((2, 3)), requires_grad=True)
    there = x.to("cuda")
    assert there.device == "cuda" and there.to("cuda") is there and there.to("cuda:0") is there
    (there * 3).to("cpu").sum().backward()
    assert x.grad.device == "cpu" and np.array_equal(x.grad.numpy(), np.full((2, 3), 3.0))
    assert x.to("cuda", np.float32).dtype == np.float32
    assert np.array_equal(there.to("cpu").numpy(), x.numpy())


def test_what_shows_values_copies_them():
    x = Tensor([[1.0, 2.0]]).to("cuda")
    assert x[0, 1].item() == 2.0 and float(x[0, 0]) == 1.0 and int(x[0, 1]) == 2 and bool(x[0, 0] < 2)
    assert repr(x) == "Tensor([[1., 2.]], device='cuda')"
    assert len(x) == 1 and [row.shape for row in x] == [(2,)]
    assert (x > 1).dtype == bool and (x == x).to("cpu").numpy().all()


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda x, h: x.numpy(), TypeError, r'numpy\(\) of a tensor of shape \(2, 3\) on the device: .*\.to\("cpu"\)'),
        (lambda x, h: np.asarray(x), TypeError, r"numpy\(\) of a tensor"),
        (lambda x, h: x + h, ValueError, "input 'a' of add lies on 'cuda' and input 'b' on 'cpu': move one"),
        (lambda x, h: h * x, ValueError, "input 'b' of mul lies on 'cuda' and input 'a' on 'cpu': move one"),
        (lambda x, h: x > h, TypeError, "greater of a device array .* and a NumPy array"),
        (lambda x, h: nn.Linear(3, 1)(x), ValueError, "input 'x' of linear lies on 'cuda' and input 'weight' on 'cpu'"),
        (lambda x, h: ops.cat([x, h]), ValueError, "input 0 of cat lies on 'cuda' and input 1 on 'cpu'"),
        (lambda x, h: ops.smooth_l1_loss(x, h), ValueError, "input 'input' of smooth_?l1_?loss lies on 'cuda'"),
        (lambda x, h: leaf(x).sum().backward(np.float32(1)), ValueError, "gradient lies on 'cpu'; expected 'cuda'"),
        (lambda x, h: x[np.array([2])], IndexError, "index 2 is out of range for axis 0 of size 2"),
        (lambda x, h: x[h[0] > 0], IndexError, r"indexed by bools of shape \(3,\), from axis 0"),
        (lambda x, h: x[2], IndexError, "index 2 is out of range for axis 0 of size 2"),
        (lambda x, h: x[0, 0, 0], IndexError, "3 indices for a device array of 2 axes"),
        (lambda x, h: np.sin(x.array), TypeError, "numpy.sin has no kernel for device arrays"),
        (lambda x, h: np.argsort(x.array), TypeError, "numpy.argsort has no kernel for device arrays"),
        (lambda x, h: np.multiply.at(x.array, 0, 1), TypeError, "numpy.multiply.at has no kernel for device arrays"),
        (lambda x, h: x.array + x.array.astype(np.float64), TypeError, "device arrays of float32 and float64"),
        (lambda x, h: x.array + [1, 2, 3], TypeError, "a device array and a list"),
        (lambda x, h: pickle.dumps(x.array), TypeError, "not copied to the host unasked, for pickle"),
        (lambda x, h: x.array.max(axis=2), ValueError, "axis is 2; expected one from -2 to 1"),
        (lambda x, h: x[:, :0].array.max(axis=1), ValueError, "which hold nothing"),
        (lambda x, h: x.array.__setitem__(0, np.ones(3)), TypeError, "NumPy array .* is written to a device array"),
        (lambda x, h: x.array.__setitem__(0, x.array[:, 0]), ValueError, "does not broadcast"),
        (lambda x, h: x.array @ x.array, ValueError, "matmul of device arrays of shapes"),
    ],
)
def test_refused(call, error, text):
    values = np.ones((2, 3), np.float32)
    x, before = Tensor(values).to("cuda"), cuda.transfers()
    with pytest.raises(error, match=text):
        call(x, Tensor(values))
    assert cuda.transfers() == before
    assert np.array_equal((x + 1).to("cpu").numpy(), values + 1)  # the next call works


def test_a_leaf_changed_in_place_is_noticed():
    x = leaf(Tensor([1.0, 2.0]).to("cuda"))
    y = (x * x).sum()
    with tinyseg.no_grad():
        x += 1
    with pytest.raises(RuntimeError, match="was changed in place"):
        y.backward()
    z = x.detach().reshape(1, 2)
    z[0, 0] = 5
    assert x.to("cpu").numpy().tolist() == [5.0, 3.0]  # one memory


# ---- the backend "cuda" ----------------------------------------------------------------------------------------------


def test_new_tensors_lie_on_the_device():
    before = Tensor([1.0])
    with tinyseg.use_backend("cuda"):
        assert tinyseg.current_backend() == "cuda"
        assert Tensor([1.0]).device == nn.Linear(2, 2).weight.device == "cuda"
        assert before.device == (before * 2).device == before.detach().device == ops.relu(before).device == "cpu"
    assert Tensor([1.0]).device == "cpu"


def test_arrays_of_the_host_come_back(rng):
    corners = rng.uniform(0, 9, (5, 2)).astype(np.float32)
    boxes, scores = np.hstack([corners, corners + 5]), rng.uniform(0, 1, 5).astype(np.float32)
    expected = ops.nms(boxes, scores, 0.3)
    layer = nn.Linear(4, 2)
    step = optim.SGD(layer.parameters(), lr=0.1)
    with tinyseg.use_backend("cuda"):
        kept = ops.nms(boxes, scores, 0.3)
        assert isinstance(kept, np.ndarray) and np.array_equal(kept, expected)
        before = layer.bias.numpy().copy()
        layer.bias.grad = Tensor(np.ones(2, np.float32)).to("cpu")
        step.step()
        assert np.allclose(layer.bias.numpy(), before - 0.1)


# ---- modules and optimisers ------------------------------------------------------------------------------------------


def test_a_module_moves_with_its_buffers_and_gradients(rng):
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm2d(2))
    model[0](Tensor(rng.standard_normal((4, 3)).astype(np.float32))).sum().backward()
    before = {key: value.numpy().copy() for key, value in model.state_dict().items()}
    gradient, weight = model[0].weight.grad.numpy().copy(), model[0].weight
    assert model.to("cuda") is model and model[0].weight is weight
    assert {tensor.device for tensor in (*model.parameters(), *model.buffers(), weight.grad)} == {"cuda"}
    after = model.state_dict()
    assert all(np.array_equal(after[key].numpy(), value) for key, value in before.items())
    assert np.array_equal(weight.grad.to("cpu").numpy(), gradient)
    model.load_state_dict({key: value + 1 for key, value in before.items()})
    assert np.array_equal(model.to("cpu")[0].weight.numpy(), before["0.weight"] + 1)
    assert model.state_dict()["1.num_batches_tracked"].item() == 1


@pytest.mark.parametrize(
    "make",
    [
        lambda p: optim.SGD(p, lr=0.1, momentum=0.9),
        lambda p: optim.Adam(p, lr=0.1, amsgrad=True),
        lambda p: optim.AdamW(p, lr=0.1),
    ],
)
def test_an_optimiser_goes_on_from_its_state(make, rng):
    values = [rng.standard_normal((3, 2)), rng.standard_normal(4)]
    host = [Tensor(value, requires_grad=True) for value in values]
    device = [leaf(tensor.to("cuda")) for tensor in host]
    here, there = make(host), make(device)
    for _ in range(3):
        for tensors, optimiser in ((host, here), (device, there)):
            optimiser.zero_grad()
            sum((tensor * tensor).sum() for tensor in tensors).backward()
            optim.clip_grad_norm_(tensors, 1.0)
            optim.clip_grad_value_(tensors, 0.4)
            optimiser.step()
        state = there.state_dict()
        assert all(isinstance(v, np.ndarray | int) for each in state["state"].values() for v in each.values())
        there = make(device)
        there.load_state_dict(state)
    for tensor, same in zip(host, device, strict=True):
        np.testing.assert_allclose(same.to("cpu").numpy(), tensor.numpy(), rtol=1e-12)


# ---- device arrays ---------------------------------------------------------------------------------------------------


def test_arrays_of_nan_and_infinity(rng):
    a = np.array([[np.nan, 1, -np.inf], [2, np.inf, 0]], np.float32)
    there = cuda.to_device(a)
    with np.errstate(all="ignore"):
        for function in (np.exp, np.log, np.sqrt, np.abs, np.isfinite, lambda x: 1 / x, lambda x: x**3):
            assert np.array_equal(cuda.to_host(function(there)), function(a), equal_nan=True)
        for pair in ((a, a[::-1].copy()), (a, np.zeros_like(a))):
            for function in (np.maximum, np.minimum, np.less, np.equal, np.not_equal):
                expected = function(*pair)
                assert np.array_equal(cuda.to_host(function(*map(cuda.to_device, pair))), expected, equal_nan=True)
        assert np.array_equal(cuda.to_host(there.max(axis=0)), a.max(axis=0), equal_nan=True)
        assert np.isnan(there.max().item()) and there[1].max().item() == np.inf


@pytest.mark.parametrize("size", [1, 255, 257, 1000])
def test_the_largest_of_a_long_run(size, rng):
    a = rng.standard_normal((2, size)).astype(np.float32)
    assert np.array_equal(cuda.to_host(cuda.to_device(a).max(axis=1)), a.max(axis=1))


def test_counts_and_whole_numbers():
    a = cuda.to_device(np.array([[1, 2], [3, 4]]))
    assert cuda.to_host(a + 1).tolist() == [[2, 3], [4, 5]] and (a > 2).sum().item() == 2 and a.sum().dtype == np.int64
    a[0] = a[1]
    a[:, ::-1] = a
    assert cuda.to_host(a).tolist() == [[4, 3], [4, 3]] and bool((a > 2).all()) and (a * 1.0 if False else a).size == 4
    with pytest.raises(TypeError, match="multiply of a device array of int64 and 1.5"):
        a * 1.5


def test_empty_and_many_axes(rng):
    a = rng.standard_normal((2,) * 8)
    there = cuda.to_device(a)
    order = (7, 0, 5, 2, 6, 1, 4, 3)
    assert np.array_equal(cuda.to_host(there.transpose(order)), a.transpose(order))
    assert np.array_equal(cuda.to_host(there[..., ::-1] + there.T), a[..., ::-1] + a.T)
    none = cuda.to_device(np.ones((0, 3)))
    assert (none + 1).shape == (0, 3) and cuda.to_host(none.sum(axis=0)).tolist() == [0, 0, 0]
    assert none.T.shape == (3, 0) and none[:, 1].shape == (0,) and none.sum().item() == 0


def test_large_arrays_are_gone_through_in_parts():
    sizes, steps = (3, 1 << 20, 1 << 11), [(1 << 31, 1 << 11, 1), (0, -1, 1 << 20)]
    parts = list(_parts([0, 1 << 20], sizes, steps))
    assert sum(np.prod(part) for _, part, _ in parts) == np.prod(sizes, dtype=np.int64) and len(parts) < 64
    assert len({tuple(starts) for starts, _, _ in parts}) == len(parts)
    for _, part, own in parts:
        assert np.prod(part) < 1 << 30
        assert all(sum((n - 1) * abs(s) for n, s in zip(part, step, strict=True)) < 1 << 30 for step in own)


def test_copies_are_apart():
    a = full((2, 2), 1.5, np.float32)
    b, c = copy.deepcopy(a), copy.copy(a)
    a += 1
    assert cuda.to_host(b).tolist() == cuda.to_host(c).tolist() == [[1.5, 1.5]] * 2 and whole(a).steps == (2, 1)
    assert a in {a} and np.may_share_memory(a, a.reshape(4)) and not np.may_share_memory(a, b)
