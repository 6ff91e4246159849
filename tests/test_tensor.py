"""The tape: what a tensor is, how gradients add up, and what is an error."""

import gc
import threading
import weakref

import numpy as np
import pytest
from tape_gradients import check_gradients

import tinyseg
from tinyseg import Tensor, no_grad, ops
from tinyseg.function import Function


def leaf(values, dtype=np.float64):
    return Tensor(np.array(values, dtype), requires_grad=True)


# ---- what it is ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "dtype"),
    [
        (1.5, np.float32),
        ([1.0, 2.0], np.float32),
        ([1, 2], np.int64),
        (True, np.bool_),
        (np.float64(2), np.float64),
        (np.zeros(2, np.float16), np.float16),
        (np.zeros(2, ">f4"), np.float32),
        (np.zeros(2, np.uint8), np.uint8),
    ],
)
def test_type_of_the_data(data, dtype):
    tensor = Tensor(data)
    assert tensor.dtype == dtype
    assert tensor.dtype.isnative


def test_big_endian_values_survive():
    np.testing.assert_array_equal(Tensor(np.array([1.5, -2], ">f8")).numpy(), [1.5, -2])


def test_attributes():
    tensor = Tensor(np.zeros((2, 3), np.float32))
    assert (tensor.shape, tensor.ndim, tensor.size, len(tensor), tensor.device) == ((2, 3), 2, 6, 2, "cpu")
    assert tensor.is_leaf
    assert not tensor.requires_grad
    assert tensor.grad is None


def test_numpy_shares_memory_also_where_gradients_are_required():
    array = np.zeros(3, np.float32)
    tensor = Tensor(array, requires_grad=True)
    assert tensor.numpy() is array
    assert np.asarray(tensor) is array
    assert tensor.detach().numpy() is array
    assert not tensor.detach().requires_grad


def test_item():
    assert Tensor([[3]]).item() == 3
    assert isinstance(Tensor([2.5]).item(), float)
    with pytest.raises(ValueError, match=r"shape \(2,\).*exactly one value"):
        Tensor([1, 2]).item()


def test_iteration_and_truth():
    assert [t.item() for t in Tensor([1, 2])] == [1, 2]
    assert Tensor([1.0]) > 0
    with pytest.raises(TypeError):
        len(Tensor(1.0))


def test_repr():
    assert repr(Tensor([1.0, 2.0])) == "Tensor([1., 2.])"
    assert repr(leaf([1])) == "Tensor([1.], dtype=float64, requires_grad=True)"
    assert "creator=mul" in repr(leaf([1]) * 2)


def test_gradients_of_integers_are_refused():
    with pytest.raises(TypeError, match="requires_grad is True for dtype int64"):
        Tensor([1, 2], requires_grad=True)


@pytest.mark.parametrize("data", [["a"], np.array([object()]), np.array([1j])])
def test_data_without_numbers_is_refused(data):
    with pytest.raises(TypeError, match="data has dtype"):
        Tensor(data)


def test_devices():
    tensor = Tensor([1.0])
    assert tensor.to("cpu") is tensor
    assert tensor.to(np.float64).dtype == np.float64
    assert tensor.to("cpu", np.float64).dtype == np.float64
    with pytest.raises(ValueError, match="device is 'cuda:1'; expected 'cpu' or 'cuda'"):
        tensor.to("cuda:1")
    with pytest.raises(ValueError, match="device is 'tpu'"):
        tensor.to("tpu")


# ---- gradients -------------------------------------------------------------------------------------------------------


def test_answer_by_hand():
    x, w = leaf([2.0, 3.0]), leaf([5.0, 7.0])
    ((x * w).sum() ** 2).backward()  # (10 + 21)^2: 2 * 31 * w, 2 * 31 * x
    np.testing.assert_array_equal(x.grad.numpy(), [310, 434])
    np.testing.assert_array_equal(w.grad.numpy(), [124, 186])


def test_fan_out_adds_up():
    x = leaf([1.0, 2.0])
    y = x * x
    (y + y * x + x).sum().backward()  # x^2 + x^3 + x
    np.testing.assert_allclose(x.grad.numpy(), 2 * x.numpy() + 3 * x.numpy() ** 2 + 1)


def test_diamond_visits_each_node_once():
    visits = []

    class Spy(Function):
        def forward(self, x):
            return x + 0

        def backward(self, dy):
            visits.append(dy.item())
            return dy

    x = leaf(1.0)
    y = Spy.apply(x)
    (y * 2 + (y * 3) * 4).backward()
    assert visits == [14.0]
    assert x.grad.item() == 14


def test_gradients_accumulate_over_backward_passes():
    x = leaf([1.0])
    (x * 2).sum().backward()
    (x * 3).sum().backward()
    assert x.grad.item() == 5
    assert isinstance(x.grad, Tensor)
    assert not x.grad.requires_grad


def test_gradients_of_two_leaves_do_not_share_memory():
    x, y = leaf([1.0]), leaf([1.0])
    upstream = np.ones(1)
    (x + y).backward(upstream)
    assert not np.shares_memory(x.grad.numpy(), y.grad.numpy())
    assert not np.shares_memory(x.grad.numpy(), upstream)


def test_only_leaves_keep_gradients_unless_asked():
    x = leaf([1.0])
    y = x * 2
    z = y * 3
    y.retain_grad()
    z.sum().backward()
    assert z.grad is None
    assert y.grad.item() == 3
    assert x.grad.item() == 6


def test_backward_of_a_leaf():
    x = leaf(4.0)
    x.backward()
    assert x.grad.item() == 1


def test_inputs_without_gradient_get_none():
    x, c = leaf([1.0]), Tensor(np.array([2.0]))
    (x * c).sum().backward()
    assert c.grad is None


def test_frozen_input_stops_the_tape():
    x = leaf([1.0])
    assert (x * 2).detach().creator is None
    assert not (Tensor([1.0]) * 2).requires_grad


def test_long_chain_needs_no_recursion():
    x = y = leaf(1.0)
    for _ in range(20000):
        y = y + 1
    y.backward()
    assert x.grad.item() == 1


def test_upstream_gradient():
    x = leaf([1.0, 2.0])
    (x * 3).backward([1, 10])
    np.testing.assert_array_equal(x.grad.numpy(), [3, 30])
    x.grad = None
    (x * 3).backward(Tensor([1.0, 10.0]))
    np.testing.assert_array_equal(x.grad.numpy(), [3, 30])


def test_upstream_gradient_is_needed_for_several_values():
    with pytest.raises(RuntimeError, match=r"shape \(2,\) needs a gradient"):
        (leaf([1.0, 2.0]) * 3).backward()


def test_upstream_gradient_of_another_shape():
    with pytest.raises(ValueError, match=r"gradient has shape \(3,\); expected \(2,\)"):
        (leaf([1.0, 2.0]) * 3).backward(np.ones(3))


def test_backward_without_gradients():
    with pytest.raises(RuntimeError, match="does not require gradients"):
        Tensor(1.0).backward()


def test_second_backward_is_an_error():
    x = leaf([1.0])
    y = (x * x).sum()
    y.backward()
    with pytest.raises(RuntimeError, match="a second time through sum"):
        y.backward()
    assert x.grad.item() == 2


def test_second_backward_through_a_shared_part_is_an_error():
    x = leaf([1.0])
    shared = x * x
    shared.sum().backward()
    with pytest.raises(RuntimeError, match="a second time through mul"):
        (shared * 2).sum().backward()
    assert x.grad.item() == 2  # the failed one left nothing behind


def test_retained_graph_runs_again():
    x = leaf([3.0])
    y = (x * x).sum()
    y.backward(retain_graph=True)
    y.backward()
    assert x.grad.item() == 12


def test_what_was_saved_is_freed_by_backward():
    x = leaf([1.0])
    y = x * 2
    saved = weakref.ref(y.array)
    z = (y * y).sum()
    del y
    assert saved() is not None  # the product needs it
    z.backward()
    assert saved() is None


def test_what_backward_does_not_need_is_not_kept():
    x = leaf(np.ones((1, 1, 4, 4)))
    y = x * 2
    activation = weakref.ref(y.array)
    y = ops.relu(y)  # keeps its output, not its input
    assert activation() is None
    y.sum().backward()


# ---- no_grad ---------------------------------------------------------------------------------------------------------


def test_no_grad_block_and_nesting():
    x = leaf([1.0])
    with no_grad():
        assert not (x * 2).requires_grad
        with no_grad():
            pass
        assert not tinyseg.is_grad_enabled()
    assert (x * 2).requires_grad


def test_no_grad_ends_with_an_exception():
    with pytest.raises(KeyError), no_grad():
        raise KeyError
    assert tinyseg.is_grad_enabled()


@pytest.mark.parametrize("decorator", [no_grad, no_grad()])
def test_no_grad_decorator(decorator):
    @decorator
    def double(x):
        """Docstring."""
        return x * 2

    assert not double(leaf([1.0])).requires_grad
    assert double.__doc__ == "Docstring."
    assert tinyseg.is_grad_enabled()


def test_no_grad_saves_nothing():
    x = leaf(np.ones((1, 1, 4, 4)))
    with no_grad():
        y = x * 2
        activation = weakref.ref(y.array)
        y = ops.sigmoid(y * y)
    assert activation() is None
    assert y.creator is None


def test_no_grad_holds_for_its_thread_only():
    seen = []
    with no_grad():
        thread = threading.Thread(target=lambda: seen.append(tinyseg.is_grad_enabled()))
        thread.start()
        thread.join()
    assert seen == [True]


# ---- changes in place ------------------------------------------------------------------------------------------------


def plus(x):
    x += 1


def assign(x):
    x[0] = 1


def assign_to_data(x):
    x.data[0] = 1


def write_and_tell(x):
    x.numpy()[0] = 1
    x.mark_changed()


def change_a_view(x):
    part = x[:1]
    part += 1


@pytest.mark.parametrize("change", [plus, assign, assign_to_data, write_and_tell, change_a_view])
def test_change_of_something_saved_is_an_error(change):
    x, w = leaf([1.0, 2.0]), leaf([3.0, 4.0])
    y = (x * w).sum()
    with no_grad():
        change(w)
    with pytest.raises(RuntimeError, match="input 'b' of mul was changed in place"):
        y.backward()
    assert x.grad is None


def test_change_of_a_saved_output_is_an_error():
    y = ops.sigmoid(leaf([1.0, 2.0]))
    z = y.sum()
    y *= 2
    with pytest.raises(RuntimeError, match="the output of sigmoid was changed in place"):
        (z + y.sum()).backward()


def test_change_of_an_optimiser_is_noticed():
    w, x = leaf([3.0]), leaf([2.0])
    y = (x * w).sum()
    w.grad = Tensor(np.array([1.0]))
    tinyseg.optim.SGD([w], lr=0.1).step()
    with pytest.raises(RuntimeError, match="input 'b' of mul"):
        y.backward()


def test_change_of_something_not_saved_is_no_error():
    x, w = leaf([1.0]), leaf([3.0])
    y = (x + w).sum()
    with no_grad():
        w += 1
    y.backward()
    assert w.grad.item() == 1


def test_leaf_must_not_change_on_the_tape():
    x = leaf([1.0])
    for change in (plus, assign):
        with pytest.raises(RuntimeError, match="leaf that requires gradients"):
            change(x)
    assert x.item() == 1


def test_tensor_with_views_must_not_change_on_the_tape():
    y = leaf([1.0, 2.0]) * 2
    part = y[:1]
    for changed in (y, part):
        with pytest.raises(RuntimeError, match="shares memory"):
            changed += 1
    np.testing.assert_array_equal(y.numpy(), [2, 4])


@pytest.mark.parametrize("operator", ["+=", "-=", "*=", "/="])
def test_augmented_assignment_is_recorded(operator):
    def function(x, w):
        y = x * 1
        before = y
        if operator == "+=":
            y += w
        elif operator == "-=":
            y -= w
        elif operator == "*=":
            y *= w
        else:
            y /= w
        assert y is before
        return y * y

    check_gradients(function, np.array([1.0, 2.0, -1.5]), np.array([0.5, 3.0, 2.0]))


def test_assignment_is_recorded():
    def function(x, w):
        y = x * 2
        y[1:, 0] = w * w
        y[0] = 5.0
        return y * y

    check_gradients(function, np.arange(6.0).reshape(3, 2) + 1, np.array([0.5]))


def test_in_place_writes_to_the_same_memory():
    array = np.zeros(2, np.float32)
    x = Tensor(array)
    x += 1
    x[1] = 5
    np.testing.assert_array_equal(array, [1, 5])


def test_in_place_result_must_fit():
    x = Tensor(np.zeros(2, np.float32))
    with pytest.raises(ValueError, match="does not fit"):
        x += np.zeros((3, 2), np.float32)
    counts = Tensor([1, 2])
    with pytest.raises(TypeError, match="float32"):
        counts += 0.5


# ---- functions -------------------------------------------------------------------------------------------------------


def test_needs_tell_which_gradients_are_wanted():
    needs = []

    class Spy(Function):
        def forward(self, a, b, c):
            return a + b

        def backward(self, dy):
            needs.append(self.needs)
            return dy, dy, None

    Spy.apply(leaf(1.0), Tensor(np.array(1.0)), None).backward()
    assert needs == [(True, False, False)]


class Doubled(Function):
    """Twice the first input, and nothing of the second; says what it was given to add to."""

    adds_up = True
    given: list = []

    def forward(self, x, other):
        return 2 * x

    def backward(self, dy):
        self.given.append(None if self.onto is None else self.onto.copy())
        return 2 * dy if self.onto is None else self.onto + 2 * dy, 10 * dy


@pytest.fixture
def given(monkeypatch):
    monkeypatch.setattr(Doubled, "given", [])
    return Doubled.given


def test_a_function_may_add_its_gradient_to_what_is_there(given):
    x, other = leaf([1.0, 2.0]), leaf([0.0, 0.0])
    doubled = Doubled.apply(x, other)
    (doubled + 3 * x).backward(np.ones(2))
    np.testing.assert_array_equal(given, [[3, 3]])
    np.testing.assert_array_equal(x.grad.numpy(), [5, 5])
    np.testing.assert_array_equal(other.grad.numpy(), [10, 10])


def test_a_function_that_comes_first_has_nothing_to_add_to(given):
    x, other = leaf([1.0, 2.0]), leaf([0.0, 0.0])
    tripled = 3 * x
    (Doubled.apply(x, other) + tripled).backward(np.ones(2))
    assert given == [None]
    np.testing.assert_array_equal(x.grad.numpy(), [5, 5])


def test_a_function_adds_to_the_gradient_of_its_first_input_once(given):
    x = leaf([1.0, 2.0])
    y = x * 1
    doubled = Doubled.apply(y, y)  # both gradients go to one tensor
    (doubled + 3 * y).backward(np.ones(2))
    np.testing.assert_array_equal(given, [[3, 3]])
    np.testing.assert_array_equal(x.grad.numpy(), [15, 15])


def test_a_function_that_adds_is_not_asked_for_inputs_without_gradient(given):
    x, other = Tensor(np.ones(2)), leaf([0.0, 0.0])
    (Doubled.apply(x, other) + 3 * other).backward(np.ones(2))
    assert given == [None]
    assert x.grad is None
    np.testing.assert_array_equal(other.grad.numpy(), [13, 13])


def test_inputs_of_other_types_are_named():
    with pytest.raises(TypeError, match="input 'x' of relu is a list; expected a Tensor"):
        ops.relu([1.0])


def test_arrays_count_as_tensors():
    np.testing.assert_array_equal(ops.relu(np.array([-1.0, 1.0])).numpy(), [0, 1])


def test_manual_seed_repeats():
    tinyseg.manual_seed(3)
    first = tinyseg.nn.Linear(3, 4).weight.numpy()
    tinyseg.manual_seed(3)
    np.testing.assert_array_equal(tinyseg.nn.Linear(3, 4).weight.numpy(), first)
    assert (tinyseg.nn.Linear(3, 4).weight.numpy() != first).any()


def test_random_state_round_trip():
    tinyseg.manual_seed(3)
    state = tinyseg.random.get_state()
    first = tinyseg.nn.Linear(3, 4).weight.numpy()
    tinyseg.random.set_state(state)
    np.testing.assert_array_equal(tinyseg.nn.Linear(3, 4).weight.numpy(), first)


@pytest.mark.parametrize("seed", [-1, 1.5, True, "a"])
def test_seeds_that_are_none(seed):
    with pytest.raises(ValueError, match="seed is"):
        tinyseg.manual_seed(seed)


@pytest.mark.parametrize("operator", [ops.relu, ops.sigmoid, lambda x: x + x])
def test_backward_through_single_values_without_axes(operator):
    """NumPy's arithmetic makes scalars of 0-d arrays on the way back; the kernels take arrays."""
    x = Tensor(np.array(0.5), requires_grad=True)
    y = operator(x) * Tensor(np.array(2.0))
    (y * 3.0).backward()
    vector = Tensor(np.array([0.5]), requires_grad=True)
    (operator(vector) * 6.0).backward(np.ones(1))
    np.testing.assert_allclose(x.grad.numpy(), vector.grad.numpy()[0])


@pytest.mark.parametrize("changed", ["base", "view"])
def test_gradients_cannot_slip_past_a_view_that_is_not_on_the_tape(changed):
    w = Tensor(np.ones(2), requires_grad=True)
    base = Tensor(np.zeros(2))
    view = base[0:2]
    with pytest.raises(RuntimeError, match="shares memory"):
        if changed == "base":
            base += w
        else:
            view += w


def test_one_element_of_a_vector_is_a_view_too():
    x = Tensor(np.zeros(3))
    element = x[1]
    element += 2
    np.testing.assert_array_equal(x.numpy(), [0, 2, 0])


def test_gradient_of_an_assigned_value_with_an_axis_too_many():
    value = Tensor(np.ones((1, 1, 3)), requires_grad=True)
    x = Tensor(np.zeros((2, 3))) * 1.0
    x[0] = value
    (x * np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])).sum().backward()
    np.testing.assert_array_equal(value.grad.numpy(), [[[1, 2, 3]]])


def test_index_by_an_empty_list():
    assert Tensor(np.ones((3, 2)))[[]].shape == (0, 2)


def test_changed_target_or_pooling_index_is_an_error():
    x = Tensor(np.linspace(-1, 1, 16).reshape(1, 1, 4, 4), requires_grad=True)
    target = Tensor(np.zeros((1, 1, 4, 4)))
    loss = ops.binary_cross_entropy_with_logits(x, target)
    target += 1
    with pytest.raises(RuntimeError, match="'target'.*changed in place"):
        loss.backward()
    y, indices = ops.max_pool2d(x, 2, return_indices=True)
    indices -= 1
    with pytest.raises(RuntimeError, match="output.*changed in place"):
        y.sum().backward()


def test_a_retained_gradient_keeps_nothing_alive():
    x = Tensor(np.ones(2), requires_grad=True)
    y = x * 2
    y.retain_grad()
    node = weakref.ref(y.creator)
    gc.disable()
    try:
        del y
        assert node() is None
    finally:
        gc.enable()


def test_no_grad_refuses_to_decorate_a_generator():
    def numbers():
        yield 1

    with pytest.raises(TypeError, match="generator numbers"):
        no_grad()(numbers)


def test_gradients_of_parameters_share_no_memory():
    from tinyseg import nn, ops

    x, layer = Tensor(np.ones((2, 3)), requires_grad=True), nn.Linear(3, 4)
    for parameter in layer.parameters():
        parameter.array = parameter.array.astype(np.float64)
    dy = np.ones((2, 4))
    y = ops.linear(x, layer.weight, layer.bias)
    (y + x.sum()).backward(dy)
    leaves = [x, *layer.parameters()]
    for i, leaf in enumerate(leaves):
        assert leaf.grad.shape == leaf.shape
        assert not np.may_share_memory(leaf.grad.array, dy)
        assert not any(np.may_share_memory(leaf.grad.array, other.grad.array) for other in leaves[:i])
        assert not any(np.may_share_memory(leaf.grad.array, other.array) for other in leaves)
    before = [leaf.grad.array.copy() for leaf in leaves]
    (ops.linear(x, layer.weight, layer.bias) + x.sum()).backward(dy)
    for leaf, array in zip(leaves, before, strict=True):
        np.testing.assert_array_equal(leaf.grad.array, 2 * array)
