"""The check of gradients: what is right stays right, kinks are named, and no planted fault is taken for a kink."""

import json

import numpy as np
import pytest

from kernels import naive
from tinyseg import Tensor, backend, explain, nn, ops, random
from tinyseg.function import Function

CLOSE = (0, 1e-12, -1e-10, 3e-10, 2e-9, -7e-8, 1e-6, -3e-5, 9e-5)  # ways to a corner, shorter and longer than the steps


@pytest.fixture(autouse=True)
def same_backend_afterwards():
    with backend.use_backend("naive"):
        yield


def check(function, *inputs, **options):
    return explain.check_gradients(function, list(inputs), **options)


def tied(shape, seed=0):
    """Return values of which many are equal: small whole numbers."""
    return np.random.default_rng(seed).integers(0, 3, shape).astype(float)


def near_ties(shape, seed=0):
    """Return values whose differences are from 0 to a little more than the longest step, each in its own way."""
    rng = np.random.default_rng(seed)
    return tied(shape, seed) + rng.choice(CLOSE, shape)


# ---- functions with faults -------------------------------------------------------------------------------------------


class Pool(Function):
    """Largest of overlapping windows of three, along one axis: right, or wrong in a named way."""

    fault = ""

    def forward(self, x):
        windows = np.lib.stride_tricks.sliding_window_view(x, 3)
        self.saved = (windows, x.size)
        return windows.max(axis=1)

    def backward(self, dy):
        windows, size = self.saved
        dx = np.zeros(size)
        for start, (window, value) in enumerate(zip(windows, dy, strict=True)):
            place = start + int(np.argmax(window))
            if self.fault == "=":
                dx[start : start + 3] = 0
                dx[place] = value
            elif self.fault == "= at the place":
                dx[place] = value
            elif self.fault == "every winner":
                dx[start : start + 3] += value * (window == window.max())
            elif self.fault == "no winner of a tie":
                dx[place] += value * (np.sum(window == window.max()) == 1)
            elif self.fault == "half at ties":
                dx[place] += value / (1 + (np.sum(window == window.max()) > 1))
            elif self.fault == "shared":  # no fault
                dx[start : start + 3] += value * (window == window.max()) / np.sum(window == window.max())
            elif self.fault == "twice at ties":
                dx[place] += value * (1 + (np.sum(window == window.max()) > 1))
            elif self.fault == "sign at ties":
                dx[place] += value * (-1 if np.sum(window == window.max()) > 1 else 1)
            elif self.fault == "neighbour":
                dx[min(place + 1, size - 1)] += value
            elif self.fault == "twice":
                dx[place] += 2 * value
            elif self.fault == "half":
                dx[place] += value / 2
            elif self.fault == "sign":
                dx[place] -= value
            elif self.fault == "a window left out":
                dx[place] += value * (start > 0)
            else:
                dx[place] += value
        return dx


def pool(fault=""):
    return type("Pool", (Pool,), {"fault": fault}).apply


class Bent(Function):
    """``|x| * x + 3 * |x - 1|``: a corner at 1, none at 0."""

    slope = staticmethod(lambda x: 2 * np.abs(x) + 3 * np.sign(x - 1))

    def forward(self, x):
        self.saved = (x,)
        return np.abs(x) * x + 3 * np.abs(x - 1)

    def backward(self, dy):
        return dy * self.slope(self.saved[0])


def bent(slope=Bent.slope):
    return type("Bent", (Bent,), {"slope": staticmethod(slope)}).apply


# ---- what is right ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "function",
    [
        lambda x: ops.sigmoid(x * 1e4),
        lambda x: ops.sigmoid(x * 1e6),
        lambda x: (x * 300).exp(),
        lambda x: (x * x + 1e-8) ** 0.5,  # a bend of 1e-4
        lambda x: (x * x + 1e-12) ** 0.5,  # and one of 1e-6
        lambda x: x**4 * 1e9,
        lambda x: x * 1e-9 + 1e5,
        lambda x: (x - x.mean()) * 1e6 + 1e8,
    ],
)
def test_strong_curvature_is_no_kink(function):
    report = check(function, np.array([0.0, 1e-7, -3e-6, 1e-4, -0.01, 0.02]))
    assert report.counts == {"right": 6, "kink": 0, "wrong": 0, "undecided": 0}, report


@pytest.mark.parametrize("factor", [2, -1, 0.5, 0, 1.001])
@pytest.mark.parametrize("sharpness", [1, 1e3, 1e6])
def test_a_wrong_gradient_of_a_curved_function_is_wrong(factor, sharpness):
    class Curved(Function):
        def forward(self, x):
            y = np.tanh(sharpness * x)
            self.saved = (y,)
            return y

        def backward(self, dy):
            return factor * dy * sharpness * (1 - self.saved[0] ** 2)

    report = check(Curved.apply, np.array([0.0, 0.5, -0.3, 0.01]) / sharpness)
    assert report.counts["wrong"] == 4, report


def test_relu_at_zero_and_beside_it():
    report = check(ops.relu, np.array([-1.0, 0.0, 1e-6, -1e-5, 5e-5, -1e-12, 2.0]))
    assert [row.verdict for row in report.rows] == ["right", "kink", "right", "right", "right", "kink", "right"]
    kink = report.rows[1]
    assert (kink.tape, kink.note) == (0, "kink")
    np.testing.assert_allclose([kink.low, kink.high], [0, 1], atol=1e-9)
    assert report.ok


@pytest.mark.parametrize("distance", CLOSE)
def test_no_distance_to_a_corner_makes_a_right_gradient_wrong(distance):
    for name in ("relu", "abs"):
        x = np.array([0.3, distance, -0.2])
        report = check(ops.relu if name == "relu" else lambda x: ops.relu(x) + ops.relu(-x), x)
        assert report.ok, report
        assert report.rows[1].verdict == ("kink" if abs(distance) < 6e-9 else "right")


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("values", [tied, near_ties])
def test_max_pool_with_ties(values, seed):
    for how in ((2,), (3, 1, 1), (3, 2)):
        report = check(lambda x, how=how: ops.max_pool2d(x, *how), values((1, 2, 5, 4), seed))
        assert report.ok, report
        assert report.counts["kink"] > 0


def test_max_pool_without_ties_has_no_kinks():
    x = np.random.default_rng(3).permutation(40).reshape(1, 2, 5, 4) / 7
    assert check(lambda x: ops.max_pool2d(x, 3, 1, 1), x).counts["right"] == 40


def test_why_the_check_of_roi_pool_fails_now_and_then():
    # Two cells of one bin are 3e-5 apart. Steps of 1e-4 change which of them is the larger, and ordinary differences
    # come out between 0 and 1; with ties there is nothing to differentiate at all.
    rois = np.array([[0, 0, 0, 3, 3], [0, 1, 1, 4, 4]], float)
    x = np.random.default_rng(0).permutation(50).reshape(1, 2, 5, 5) / 10
    x[0, 0, 0, 0], x[0, 0, 0, 1] = 9, 9 - 3e-5
    x[0, 1, 1, 1] = x[0, 1, 1, 2] = 9

    def pooled(x):
        return ops.roi_pool(x, rois, 2)

    moved = x.copy()
    moved[0, 0, 0, 1] += 1e-4
    change = pooled(Tensor(moved)).numpy() - pooled(Tensor(x)).numpy()
    assert change.max() == pytest.approx(7e-5)  # 0.7 of the step, although the slope is 0
    report = check(pooled, x)
    assert report.ok
    verdicts = report.verdicts("x")
    assert set(verdicts[0, 0].ravel()) == {"right"}
    assert [tuple(map(int, place)) for place in np.argwhere(verdicts == "kink")] == [(0, 1, 1, 1), (0, 1, 1, 2)]


@pytest.mark.parametrize("aligned", [True, False])
def test_roi_align_has_no_kinks_in_the_features(aligned):
    rois = np.array([[0, 0.3, 0.2, 3.1, 3.7], [0, 1, 1, 4, 4], [0, -2, 1, 9, 2]])
    report = check(lambda x: ops.roi_align(x, rois, 2, 0.5, aligned=aligned), tied((1, 2, 5, 4)))
    assert report.counts == {"right": 40, "kink": 0, "wrong": 0, "undecided": 0}


def test_jumps():
    class Floor(Function):
        def forward(self, x):
            return np.floor(x) + x

        def backward(self, dy):
            return dy * self.slope

    x = np.array([0.5, 2.0, 3 - 2e-6])
    right = check(type("Right", (Floor,), {"slope": 1}).apply, x)
    assert [row.verdict for row in right.rows] == ["right", "kink", "right"]
    assert right.rows[1].note == "jump"
    assert check(type("Wrong", (Floor,), {"slope": 2}).apply, x).counts["wrong"] == 3


class Root(Function):
    """``x ** power``, which ends at 0, where its slope is ``at_end``."""

    def forward(self, x):
        self.saved = (x,)
        return x**self.power

    def backward(self, dy):
        (x,) = self.saved
        return dy * np.where(x == 0, self.at_end, self.power * x ** (self.power - 1))


@pytest.mark.parametrize(
    ("power", "at_end", "verdict"),
    [(1.5, 0, "kink"), (1.5, 1, "wrong"), (0.5, 1e300, "kink"), (0.5, 1e9, "kink"), (0.5, 1, "wrong")],
)
def test_where_a_function_ends(power, at_end, verdict):
    root = type("Root", (Root,), {"power": power, "at_end": at_end})
    report = check(root.apply, np.array([0.0, 1.0]))
    assert [row.verdict for row in report.rows] == [verdict, "right"]
    assert report.rows[0].note.startswith("jump" if verdict == "kink" else "at a jump")


# ---- faults ----------------------------------------------------------------------------------------------------------

FAULTS = ["=", "= at the place", "neighbour", "twice", "half", "sign", "a window left out"]


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("values", [tied, near_ties, lambda shape: np.random.default_rng(1).standard_normal(shape)])
def test_a_fault_of_a_max_pool_is_found_also_at_ties(fault, values):
    x = values((12,))
    assert check(pool(), x).ok
    assert not check(pool(fault), x).ok


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found_where_everything_is_tied(fault):
    x = np.ones(6)
    assert check(pool(), x).counts["kink"] == 6
    assert not check(pool(fault), x).ok


@pytest.mark.parametrize(
    "fault", ["every winner", "no winner of a tie", "twice at ties", "half at ties", "sign at ties"]
)
@pytest.mark.parametrize("projections", [None, 3])
def test_a_fault_at_ties_alone_is_found(fault, projections):
    x = np.array([3.0, 3, 1, 0, 2, 2, 2, -1, 0.5])
    assert check(pool(), x, projections=projections).ok
    assert check(pool("shared"), x, projections=projections).ok
    report = check(pool(fault), x, projections=projections)
    assert not report.ok
    wrong = {row.element[0] for row in report.rows if row.verdict == "wrong"}
    assert wrong
    assert wrong <= {0, 1, 4, 5, 6}
    assert check(pool(fault), np.array([3.0, 3.5, 1, 0, 2, 2.5, 2.2, -1, 0.5])).ok  # none there without ties


@pytest.mark.parametrize("seed", range(10))
def test_ties_that_share_one_output_are_right_too(seed):
    x, weights = tied((2, 8), seed), Tensor(np.random.default_rng(seed).standard_normal((2, 6)))

    def loss(fault=""):
        return lambda x: sum((pool(fault)(x[n]) * weights[n]).sum() for n in range(2))

    assert check(loss(), x).ok
    assert not check(loss("every winner"), x).ok
    assert not check(loss("twice at ties"), x).ok


@pytest.mark.parametrize(
    ("slope", "wrong"),
    [
        (lambda x: np.abs(x) + 3 * np.sign(x - 1), [1, 3, 4]),  # a factor
        (lambda x: 2 * x + 3 * np.sign(x - 1), [1]),  # a sign, of one term
        (lambda x: 3 * np.sign(x - 1), [1, 2, 3, 4]),  # a missing term
        (lambda x: 2 * np.abs(x), [0, 1, 3, 4]),
        (lambda x: -2 * np.abs(x) - 3 * np.sign(x - 1), [0, 1, 3, 4]),
        (lambda x: 2 * np.abs(x) + 3 * np.sign(x - 1) + 9 * (x == 1), [2]),  # at the corner alone
        (lambda x: np.where(np.abs(x - 1) < 1e-3, 7, 2 * np.abs(x) + 3 * np.sign(x - 1)), [2, 3]),  # and near it
    ],
)
def test_faults_at_and_beside_a_corner(slope, wrong):
    x = np.array([0.0, -0.5, 1.0, 1 + 2e-5, 2.0])
    right = check(bent(), x)
    assert [row.verdict for row in right.rows] == ["right", "right", "kink", "right", "right"]
    report = check(bent(slope), x)
    found = {row.element[0] for row in report.rows if row.verdict == "wrong"}
    assert set(wrong) <= found, report


def test_a_gradient_that_is_not_finite_is_wrong():
    report = check(bent(lambda x: np.where(x > 0, np.nan, Bent.slope(x))), np.array([-1.0, 2.0]))
    assert [row.verdict for row in report.rows] == ["right", "wrong"]
    assert json.loads(report.to_json())["rows"][1]["tape"] is None


def test_a_missing_link_of_the_tape_is_wrong():
    report = check(lambda a, b: a * 2 + b.detach() * 3, np.ones(2), np.ones(2))
    assert [row.verdict for row in report.rows] == ["right", "right", "wrong", "wrong"]


# ---- what can be checked ---------------------------------------------------------------------------------------------


def network():
    random.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ReLU(), nn.MaxPool2d(2))


def test_inputs_and_parameters_of_a_module_which_stays_as_it_was():
    model, x = network(), np.random.default_rng(0).standard_normal((2, 2, 4, 4)).astype(np.float32)
    state = {name: value.numpy().copy() for name, value in model.state_dict().items()}
    arrays = [parameter.array for parameter in model.parameters()]
    model[0].weight.grad = gradient = Tensor(np.ones_like(model[0].weight.array))
    before, chance = x.copy(), random.get_state()
    report = explain.check_gradients(model, x)
    assert report.ok
    assert set(report.shapes) == {"x", "0.weight", "0.bias", "1.weight", "1.bias"}
    assert len(report.rows) == 64 + 54 + 3 + 3 + 3
    assert report.exact
    assert model[0].weight.grad is gradient
    assert all(now.array is then for now, then in zip(model.parameters(), arrays, strict=True))
    for name, value in model.state_dict().items():
        assert value.dtype == state[name].dtype
        np.testing.assert_array_equal(value.numpy(), state[name])
    np.testing.assert_array_equal(x, before)
    assert random.get_state() == chance


def test_parameters_of_a_function_around_a_module():
    model = network().eval()
    x = np.random.default_rng(0).standard_normal((1, 2, 4, 4))
    model[0].bias.requires_grad = False
    report = explain.check_gradients(lambda x: model(x).sum(), x, parameters=model)
    assert set(report.shapes) == {"x", "0.weight", "1.weight", "1.bias"}
    assert report.ok
    assert model[0].weight.dtype == np.float32
    assert model[0].weight.grad is None


def test_a_pair_of_kernels():
    x = tied((1, 1, 4, 5))
    report = explain.check_gradients(
        lambda x: naive.max_pool2d_forward(x, 3, 1),
        x,
        backward=lambda dy, result, x: naive.max_pool2d_backward(dy, result[1], x.shape),
    )
    assert report.ok
    assert report.counts["kink"] > 0
    weights = np.random.default_rng(2).standard_normal((2, 1, 2, 2))
    how = {"stride": (2, 1), "padding": 1}

    def backward(dy, result, x, weight, bias):
        dx, dweight, dbias = naive.conv2d_backward(dy, x, weight, **how)
        return dx, dweight, 2 * dbias

    report = explain.check_gradients(
        lambda x, weight, bias: naive.conv2d_forward(x, weight, bias, **how),
        [x, weights, np.ones(2)],
        backward=backward,
    )
    assert {row.input for row in report.rows if row.verdict == "wrong"} == {"bias"}


def test_inputs_by_name_with_integers_among_them():
    rng = np.random.default_rng(0)
    inputs = {"input": rng.standard_normal((3, 4)), "target": np.array([0, 3, 1]), "reduction": "sum"}
    report = explain.check_gradients(ops.cross_entropy, inputs)
    assert report.ok
    assert set(report.shapes) == {"input"}


def test_outputs_in_a_dict_all_count():
    class Twice(Function):
        def forward(self, x):
            return 2 * x

        def backward(self, dy):
            return 3 * dy

    report = check(lambda x: {"a": x * 5, "b": (Twice.apply(x), x.detach())}, np.ones(3))
    assert report.outputs == 6
    assert report.counts["wrong"] == 3


def test_large_inputs_are_sampled_and_the_report_says_so():
    report = check(lambda x: (x * x).sum(), np.random.default_rng(0).standard_normal((40, 30)), samples=50)
    assert len(report.rows) == report.counts["right"] == 50
    assert "x: 50 of 1200 elements, drawn at random." in str(report)
    assert (report.verdicts("x") == "unchecked").sum() == 1150
    again = check(lambda x: (x * x).sum(), np.random.default_rng(0).standard_normal((40, 30)), samples=50)
    assert [row.element for row in again.rows] == [row.element for row in report.rows]


def test_chance_is_the_same_in_each_evaluation():
    report = check(lambda x: x * Tensor(random.generator().standard_normal(3)), np.ones(3))
    assert report.ok


def test_table_json_and_figure():
    x = np.array([3.0, 3, 1, 0, 2, 2, 2, -1, 0.5])
    report = check(pool("twice at ties"), x)
    text = str(report)
    assert text.startswith("Gradients: ")
    assert "wrong: at a kink, and not between the slopes of both sides" in text
    found = json.loads(report.to_json())
    assert found["counts"] == report.counts
    assert [row["verdict"] for row in found["rows"]] == [row.verdict for row in report.rows]
    figure = report.figure()
    letters = [text.get_text() for text in figure.axes[0].texts]
    assert (letters.count("X"), letters.count("K")) == (report.counts["wrong"], report.counts["kink"])
    assert explain.check_gradients(lambda x: x * x, 2.0).figure().axes


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"step": 0}, "step is 0; expected a number above 0"),
        ({"rtol": -1}, "rtol is -1"),
        ({"samples": 0}, "samples is 0"),
        ({"projections": 0}, "projections is 0; expected at least 1"),
    ],
)
def test_numbers_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        check(ops.relu, np.ones(2), **options)


def test_what_cannot_be_checked():
    with pytest.raises(ValueError, match="no gradient flows"):
        check(lambda x: x.detach(), np.ones(2))
    with pytest.raises(ValueError, match="no array of floats"):
        check(ops.relu, np.ones(2, int))
    with pytest.raises(ValueError, match="not finite"):
        check(lambda x: x / 0, np.ones(2))
    with pytest.raises(ValueError, match="backward returned 1 gradients; expected 2"):
        check(lambda a, b: a * b, np.ones(2), np.ones(2), backward=lambda dy, y, a, b: (dy * b,))
    with pytest.raises(ValueError, match="name is 'y'; expected one of 'input'"):
        check(ops.relu, np.ones(2)).verdicts("y")
    with pytest.raises(TypeError, match="projections is 1.5; expected a whole number"):
        check(ops.relu, np.ones(2), projections=1.5)
    with pytest.raises(TypeError, match="function is a str; expected what can be called"):
        check("relu", np.ones(2))
    with pytest.raises(TypeError, match="parameters is a dict; expected a Module"):
        check(ops.relu, np.ones(2), parameters={})
