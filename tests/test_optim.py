"""Optimisers by hand, their states, schedules and clipping. The comparison over many steps is with PyTorch, live."""

import json

import numpy as np
import pytest

from tinyseg import Tensor, nn, optim


def parameter(*values, dtype=np.float64):
    return nn.Parameter(np.array(values, dtype))


def one_step(optimizer, p, gradient):
    p.grad = Tensor(np.array(gradient, p.dtype))
    optimizer.step()
    return p.numpy().copy()


# ---- optimisers ------------------------------------------------------------------------------------------------------


def test_sgd_by_hand():
    p = parameter(1.0)
    assert one_step(optim.SGD([p], lr=0.1), p, [2.0]) == pytest.approx(0.8)


def test_sgd_momentum_by_hand():
    p = parameter(0.0)
    optimizer = optim.SGD([p], lr=1.0, momentum=0.5)
    assert one_step(optimizer, p, [1.0]) == -1
    assert one_step(optimizer, p, [1.0]) == -2.5  # direction 0.5 * 1 + 1


def test_sgd_nesterov_by_hand():
    p = parameter(0.0)
    optimizer = optim.SGD([p], lr=1.0, momentum=0.5, nesterov=True)
    assert one_step(optimizer, p, [1.0]) == -1.5  # 1 + 0.5 * 1
    assert one_step(optimizer, p, [1.0]) == -3.25  # 1 + 0.5 * 1.5


def test_weight_decay_by_hand():
    p = parameter(2.0)
    assert one_step(optim.SGD([p], lr=0.5, weight_decay=0.1), p, [0.0]) == pytest.approx(1.9)
    p = parameter(2.0)
    assert one_step(optim.AdamW([p], lr=0.5, weight_decay=0.1), p, [0.0]) == pytest.approx(1.9)


@pytest.mark.parametrize("gradient", [1e-3, 5.0])
def test_first_step_of_adam_has_the_length_of_the_rate(gradient):
    p = parameter(0.0)
    assert one_step(optim.Adam([p], lr=0.1, eps=0.0), p, [gradient]) == pytest.approx(-0.1)


def test_maximize_climbs():
    p = parameter(0.0)
    assert one_step(optim.SGD([p], lr=1.0, maximize=True), p, [1.0]) == 1


def test_steps_change_the_array_in_place_and_keep_its_type():
    for make in (optim.SGD, optim.Adam, optim.AdamW):
        p = parameter(1.0, dtype=np.float32)
        array = p.numpy()
        one_step(make([p], lr=0.1), p, [1.0])
        assert p.numpy() is array
        assert array != 1
        assert array.dtype == np.float32


def test_gradient_is_not_changed():
    for make in (optim.SGD, optim.Adam, optim.AdamW):
        p = parameter(1.0)
        one_step(make([p], lr=0.1, weight_decay=0.5), p, [1.0])
        assert p.grad.item() == 1


def test_parameters_of_unusual_layout_and_of_two_types():
    values = np.arange(6.0).reshape(2, 3)
    turned, single = nn.Parameter(values.copy().T), parameter(1.0, dtype=np.float32)
    array = turned.numpy()
    turned.grad, single.grad = Tensor(np.ones((3, 2))), Tensor(np.ones(1, np.float32))
    optim.SGD([turned, single], lr=0.5, momentum=0.9).step()
    assert turned.numpy() is array
    np.testing.assert_array_equal(array, values.T - 0.5)
    assert single.item() == 0.5
    optim.clip_grad_norm_([turned, single], 1e-3)
    assert single.grad.item() == pytest.approx(1e-3 / 7**0.5, rel=1e-6)


def test_parameters_without_gradient_stay():
    p, q = parameter(1.0), parameter(1.0)
    optimizer = optim.Adam([p, q], lr=0.1)
    one_step(optimizer, p, [1.0])
    assert q.item() == 1
    assert set(optimizer.state) == {p}
    optimizer.zero_grad()
    assert p.grad is None
    before = p.item()
    optimizer.step()
    assert p.item() == before


def test_groups_have_settings_of_their_own():
    p, q = parameter(0.0), parameter(0.0)
    optimizer = optim.SGD([{"params": [p]}, {"params": q, "lr": 2.0}], lr=1.0)
    p.grad = q.grad = Tensor(np.array([1.0]))
    optimizer.step()
    assert (p.item(), q.item()) == (-1, -2)
    assert [group["momentum"] for group in optimizer.param_groups] == [0, 0]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: optim.SGD([p], lr=-1), "lr is -1"),
        (lambda p: optim.SGD([p], lr=float("nan")), "lr is nan"),
        (lambda p: optim.SGD([p], momentum=-0.1), "momentum is -0.1"),
        (lambda p: optim.SGD([p], nesterov=True), "nesterov"),
        (lambda p: optim.SGD([p], nesterov=True, momentum=0.9, dampening=0.1), "nesterov"),
        (lambda p: optim.Adam([p], betas=(0.9, 1.0)), "betas is"),
        (lambda p: optim.Adam([p], weight_decay=-1), "weight_decay is -1"),
        (lambda p: optim.Adam([]), "params is empty"),
        (lambda p: optim.Adam([p, p]), "twice"),
        (lambda p: optim.Adam([p * 2]), "leaf"),
        (lambda p: optim.Adam([{"params": [p], "rate": 1}]), "rate"),
    ],
)
def test_settings_that_do_not_fit(make, message):
    with pytest.raises(ValueError, match=message):
        make(parameter(1.0))


def test_parameters_of_other_types():
    for wrong in (parameter(1.0), [np.zeros(1)]):
        with pytest.raises(TypeError, match="params"):
            optim.SGD(wrong)


@pytest.mark.parametrize(
    "make",
    [
        lambda params: optim.SGD(params, 0.1, momentum=0.9),
        lambda params: optim.Adam(params, 0.1, amsgrad=True),
        lambda params: optim.AdamW(params, 0.1),
    ],
)
def test_training_goes_on_bit_for_bit_from_a_state(make):
    rng = np.random.default_rng(0)
    gradients = rng.normal(size=(6, 3)).astype(np.float32)
    start = rng.normal(size=3).astype(np.float32)

    straight = nn.Parameter(start.copy())
    optimizer = make([straight])
    for gradient in gradients:
        one_step(optimizer, straight, gradient)

    first = nn.Parameter(start.copy())
    optimizer = make([first])
    for gradient in gradients[:3]:
        one_step(optimizer, first, gradient)
    state, values = optimizer.state_dict(), first.numpy().copy()
    one_step(optimizer, first, gradients[0])  # must not reach into the state that was taken

    second = nn.Parameter(values)
    resumed = make([second])
    resumed.load_state_dict(state)
    for gradient in gradients[3:]:
        one_step(resumed, second, gradient)
    np.testing.assert_array_equal(second.numpy(), straight.numpy())


def test_state_is_plain():
    p = parameter(1.0, 2.0)
    optimizer = optim.Adam([p], amsgrad=True)
    one_step(optimizer, p, [1.0, 1.0])
    state = optimizer.state_dict()
    assert state["param_groups"][0]["params"] == [0]
    assert state["state"][0]["step"] == 1
    assert {type(value) for value in state["state"][0].values()} == {int, np.ndarray}
    through_json = json.loads(json.dumps(state, default=np.ndarray.tolist))
    other = optim.Adam([parameter(1.0, 2.0)], lr=5)
    other.load_state_dict(through_json)
    assert other.state_dict()["param_groups"] == state["param_groups"]
    np.testing.assert_array_equal(other.state_dict()["state"][0]["exp_avg"], state["state"][0]["exp_avg"])


def test_states_that_do_not_fit():
    p = parameter(1.0, 2.0)
    optimizer = optim.Adam([p])
    one_step(optimizer, p, [1.0, 1.0])
    state = optimizer.state_dict()
    with pytest.raises(ValueError, match=r"groups of \[1\] parameters; the optimiser has groups of \[2\]"):
        optim.Adam([parameter(1.0), parameter(1.0)]).load_state_dict(state)
    other = optim.Adam([parameter(1.0)])
    with pytest.raises(ValueError, match=r"'exp_avg' of parameter 0 has shape \(2,\); expected \(1,\)"):
        other.load_state_dict(state)
    assert not other.state


def test_repr_names_the_settings():
    assert "lr: 0.5" in repr(optim.SGD([parameter(1.0)], lr=0.5))


# ---- schedules -------------------------------------------------------------------------------------------------------


def rates(make, steps, lr=1.0):
    optimizer = optim.SGD([parameter(1.0)], lr=lr, momentum=0.9)
    schedule = make(optimizer)
    result = [optimizer.param_groups[0]["lr"]]
    for _ in range(steps):
        schedule.step()
        result.append(schedule.get_last_lr()[0])
    return result


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda o: optim.StepLR(o, 2, 0.5), [1, 1, 0.5, 0.5, 0.25]),
        (lambda o: optim.MultiStepLR(o, [3, 1], 0.5), [1, 0.5, 0.5, 0.25, 0.25]),
        (lambda o: optim.ExponentialLR(o, 0.5), [1, 0.5, 0.25, 0.125, 0.0625]),
        (lambda o: optim.CosineAnnealingLR(o, 2, 0.2), [1, 0.6, 0.2, 0.6, 1]),
        (lambda o: optim.LinearLR(o, 0.5, 1.0, 2), [0.5, 0.75, 1, 1, 1]),
        (lambda o: optim.LambdaLR(o, lambda step: 1 / (step + 1)), [1, 1 / 2, 1 / 3, 1 / 4, 1 / 5]),
    ],
)
def test_schedules_by_hand(make, expected):
    assert rates(make, 4) == pytest.approx(expected)


def test_one_cycle_by_hand():
    expected = [0.4, 5.2, 10, 7.5, 5, 2.5, 0]
    make = lambda o: optim.OneCycleLR(  # noqa: E731
        o, 10.0, 7, pct_start=3 / 7, anneal_strategy="linear", final_div_factor=1e9
    )
    assert rates(make, 6) == pytest.approx(expected, abs=1e-6)


def test_one_cycle_moves_momentum_the_other_way():
    for optimizer, read in (
        (optim.SGD([parameter(1.0)], momentum=0.9), lambda g: g["momentum"]),
        (optim.Adam([parameter(1.0)]), lambda g: g["betas"][0]),
    ):
        schedule = optim.OneCycleLR(optimizer, 1.0, 10)
        seen = [read(optimizer.param_groups[0])]
        for _ in range(9):
            schedule.step()
            seen.append(read(optimizer.param_groups[0]))
        assert seen[0] == seen[-1] == 0.95
        assert min(seen) == pytest.approx(0.85)
        assert optimizer.param_groups[0].get("betas", (0, 0.999))[1] == 0.999


def test_one_cycle_ends():
    optimizer = optim.SGD([parameter(1.0)], momentum=0.9)
    schedule = optim.OneCycleLR(optimizer, 1.0, epochs=1, steps_per_epoch=2)
    schedule.step()
    with pytest.raises(ValueError, match="total_steps=2"):
        schedule.step()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda o: optim.OneCycleLR(o, 1.0), "total_steps is None"),
        (lambda o: optim.OneCycleLR(o, 1.0, 0), "total_steps is 0"),
        (lambda o: optim.OneCycleLR(o, 1.0, 5, pct_start=2), "pct_start is 2"),
        (lambda o: optim.OneCycleLR(o, 1.0, 5, anneal_strategy="log"), "anneal_strategy is 'log'"),
        (lambda o: optim.OneCycleLR(o, [1.0, 2.0], 5), "max_lr has 2"),
        (lambda o: optim.StepLR(o, 0), "step_size is 0"),
        (lambda o: optim.CosineAnnealingLR(o, 0), "T_max is 0"),
        (lambda o: optim.LinearLR(o, 0.0), "start_factor is 0"),
        (lambda o: optim.LambdaLR(o, [abs, abs]), "lr_lambda has 2"),
    ],
)
def test_schedules_that_do_not_fit(make, message):
    with pytest.raises(ValueError, match=message):
        make(optim.SGD([parameter(1.0)], momentum=0.9))


def test_schedule_needs_an_optimizer():
    with pytest.raises(TypeError, match="optimizer is a int"):
        optim.StepLR(3, 1)


def test_schedule_goes_on_from_a_state():
    def make():
        return optim.OneCycleLR(optim.Adam([parameter(1.0)]), 0.1, 20)

    straight = make()
    for _ in range(5):
        straight.step()
    resumed = make()
    resumed.load_state_dict(json.loads(json.dumps(straight.state_dict())))
    for _ in range(10):
        assert resumed.optimizer.param_groups == [
            {**straight.optimizer.param_groups[0], "params": resumed.optimizer.param_groups[0]["params"]}
        ]
        straight.step()
        resumed.step()


def test_schedule_after_a_schedule_starts_from_the_same_rate():
    optimizer = optim.SGD([parameter(1.0)], lr=1.0)
    optim.StepLR(optimizer, 1, 0.1).step()
    assert optim.StepLR(optimizer, 1, 0.1).get_last_lr() == [1.0]


# ---- clipping --------------------------------------------------------------------------------------------------------


def with_gradients(*gradients):
    parameters = []
    for gradient in gradients:
        parameters.append(parameter(*np.zeros(len(gradient))))
        parameters[-1].grad = Tensor(np.array(gradient))
    return parameters


@pytest.mark.parametrize(("norm_type", "norm"), [(2, 13), (1, 19), (np.inf, 12)])
def test_clip_by_norm(norm_type, norm):
    parameters = [*with_gradients([3.0, 4.0], [12.0]), parameter(1.0)]
    assert optim.clip_grad_norm_(parameters, norm / 2, norm_type).item() == pytest.approx(norm)
    np.testing.assert_allclose(parameters[0].grad.numpy(), [1.5, 2.0], rtol=1e-6)
    np.testing.assert_allclose(parameters[1].grad.numpy(), [6.0], rtol=1e-6)


def test_small_gradients_are_not_clipped():
    (p,) = with_gradients([3.0, 4.0])
    optim.clip_grad_norm_(p, 10)
    np.testing.assert_array_equal(p.grad.numpy(), [3, 4])
    assert optim.clip_grad_norm_([parameter(1.0)], 1).item() == 0


def test_norm_that_is_not_finite():
    (p,) = with_gradients([np.inf, 1.0])
    with pytest.raises(RuntimeError, match="norm of the gradients is inf"):
        optim.clip_grad_norm_(p, 1, error_if_nonfinite=True)
    np.testing.assert_array_equal(p.grad.numpy(), [np.inf, 1])


def test_clip_by_value():
    (p,) = with_gradients([3.0, -4.0, 0.5])
    optim.clip_grad_value_([p], 1)
    np.testing.assert_array_equal(p.grad.numpy(), [1, -1, 0.5])


@pytest.mark.parametrize(
    ("kind", "settings"), [(optim.Adam, {}), (optim.AdamW, {}), (optim.SGD, {"momentum": 0.9, "weight_decay": 0.1})]
)
def test_a_parameter_without_axes_moves_as_one_of_one_element(kind, settings):
    single, vector = nn.Parameter(np.array(1.0)), nn.Parameter(np.array([1.0]))
    optimizer = kind([single, vector], lr=0.1, **settings)
    for gradient in (0.5, -2.0, 1.5):
        single.grad, vector.grad = Tensor(np.array(gradient)), Tensor(np.array([gradient]))
        optimizer.step()
    np.testing.assert_array_equal(single.numpy(), vector.numpy()[0])


def test_an_infinite_norm_is_scaled_without_a_warning():
    p = parameter(0.0, 0.0)
    p.grad = Tensor(np.array([np.inf, 1.0]))
    optim.clip_grad_norm_([p], 1.0)
    np.testing.assert_array_equal(p.grad.numpy(), [np.nan, 0])


def test_a_group_without_parameters_is_named():
    with pytest.raises(ValueError, match="no 'params'"):
        optim.SGD([{"lr": 0.1}])
