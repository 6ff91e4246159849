"""What a network runs, call by call: names, counts, algorithms; and that looking changes nothing."""

import inspect
import json
from xml.etree import ElementTree

import numpy as np
import pytest

from kernels.cpu import conv2d, conv_transpose2d, planned, planner
from tinyseg import Tensor, backend, cli, explain, models, nn, no_grad, ops, random
from tinyseg.data import write_picture
from tinyseg.explain.networks.plan import _least
from tinyseg.training import save_model

PEAKS = {"flops": 1e11, "bytes": 1e10}


def plan(model, shape, **options):
    return explain.plan(model, shape, peaks=PEAKS, **options)


@pytest.fixture(autouse=True)
def same_backend_afterwards():
    with backend.use_backend("cpu"):
        yield


@pytest.fixture(scope="module")
def unet():
    return plan(models.UNet(widths=(4, 8)), (2, 1, 16, 12))


def small_detector():
    random.manual_seed(0)
    return models.mask_rcnn(2, width=4, channels=8, representation_size=16, mask_channels=8, min_size=64, max_size=96)


# ---- rows ------------------------------------------------------------------------------------------------------------


def test_layers_of_a_unet_in_order(unet):
    assert [(row.layer, row.words()) for row in unet.rows] == [
        ("layer1_conv.conv1", "conv2d + norm + relu"),
        ("layer1_conv.conv2", "conv2d + norm + relu"),
        ("max_pool2d", "max_pool2d"),
        ("layer2_conv.conv1", "conv2d + norm + relu"),
        ("layer2_conv.conv2", "conv2d + norm + relu"),
        ("deconv1.conv1", "conv_transpose2d + norm + relu"),
        ("layer3_conv.conv1", "conv2d + concat + norm + relu"),
        ("layer3_conv.conv2", "conv2d + norm + relu"),
        ("layer4_conv", "conv2d"),
        ("sigmoid", "sigmoid"),
    ]
    first, last = unet.rows[0], unet.rows[-1]
    assert (first.input_shape, first.output_shape) == ((2, 1, 16, 12), (2, 4, 16, 12))
    assert (last.input_shape, last.output_shape) == ((2, 1, 16, 12), (2, 1, 16, 12))
    assert not any(row.backward for row in unet.rows)
    assert all(row.seconds > 0 for row in unet.rows)
    assert unet.threads == backend.get_num_threads()


def test_costs_of_a_convolution_by_hand():
    layer = nn.Conv2d(2, 3, 3, padding=1, bias=False)
    (row,) = plan(layer, (1, 2, 5, 6)).rows
    assert row.flops == 2 * (3 * 5 * 6) * (2 * 3 * 3)  # products and sums: outputs, times what each is made of
    assert (row.bytes_read, row.bytes_written) == (4 * (2 * 5 * 6 + 3 * 2 * 3 * 3), 4 * 3 * 5 * 6)
    assert row.arithmetic_seconds == pytest.approx(row.flops / 1e11)
    assert row.memory_seconds == pytest.approx((row.bytes_read + row.bytes_written) / 1e10)
    assert (row.bound, row.least_seconds) == ("memory", row.memory_seconds)


def test_arithmetic_may_bind():
    (row,) = explain.plan(nn.Conv2d(8, 8, 3), (1, 8, 20, 20), peaks={"flops": 1e9, "bytes": 1e12}).rows
    assert (row.bound, row.least_seconds) == ("arithmetic", row.flops / 1e9)


@pytest.mark.parametrize(
    ("layer", "flops"),
    [
        (nn.Conv2d(4, 6, (3, 1), stride=2, groups=2), 2 * (2 * 6 * 2 * 3) * (2 * 3)),
        (nn.ConvTranspose2d(4, 6, 2, stride=2), 2 * (2 * 4 * 5 * 6) * (6 * 2 * 2)),  # inputs, times where each goes
        (nn.Sequential(nn.MaxPool2d(2), nn.ReLU()), 0),
    ],
)
def test_operations_by_hand(layer, flops):
    assert plan(layer, (2, 4, 5, 6)).totals()["flops"] == flops


def test_operations_of_a_linear_layer_by_hand():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(12, 7)

        def forward(self, x):
            return self.fc(x.reshape(2, 12))

    (row,) = plan(Net(), (2, 3, 2, 2)).rows
    assert (row.layer, row.operator, row.flops) == ("fc", "linear", 2 * 2 * 7 * 12)


def test_float64_has_half_the_operations_per_second():
    layer = nn.Conv2d(1, 1, 1, bias=False)
    single = plan(layer, (1, 1, 4, 4)).rows[0]
    layer.weight.array = layer.weight.array.astype(np.float64)
    double = plan(layer, (1, 1, 4, 4)).rows[0]
    assert double.arithmetic_seconds == 2 * single.arithmetic_seconds and double.bytes_read == 2 * single.bytes_read


def test_residuals_are_named():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = models.resnet18(num_classes=2)

        def forward(self, x):
            return self.body.layer1(x)

    names = [(row.layer, row.words()) for row in plan(Net(), (1, 64, 4, 4)).rows]
    assert names[:2] == [
        ("body.layer1.0.conv1", "conv2d + norm + relu"),
        ("body.layer1.0.conv2", "conv2d + norm + residual + relu"),
    ]


def test_the_least_time_of_each_call_counts():
    relu_row = plan(nn.ReLU(), (1, 1, 2, 2)).rows[0]

    def run(first, second, whole, operator="relu"):
        row = relu_row._replace(operator=operator)
        return [row._replace(seconds=first), row._replace(seconds=second)], whole

    rows, seconds = _least([run(1.0, 5.0, 6.5), run(2.0, 3.0, 5.25), run(0.1, 0.1, 9.0, "add")])
    assert [row.seconds for row in rows] == [1.0, 3.0]  # the third ran something else
    assert seconds == 4.25  # and at least a quarter of a second went into other things


# ---- algorithms ------------------------------------------------------------------------------------------------------

CALLS = [
    ({"stride": 1, "padding": 1}, (1, 16, 32, 33), (16, 16, 3, 3)),
    ({"stride": (2, 1), "padding": (0, 1)}, (2, 6, 9, 8), (8, 3, 3, 2)),
    ({"dilation": 2}, (1, 8, 12, 13), (5, 8, 3, 3)),
    ({}, (2, 16, 7, 7), (24, 16, 1, 1)),
]


@pytest.mark.parametrize("transposed", [False, True], ids=["conv2d", "conv_transpose2d"])
@pytest.mark.parametrize(("how", "x_shape", "weight_shape"), CALLS, ids=str)
def test_the_plan_asks_the_planner_what_the_kernel_asks(monkeypatch, rng, transposed, how, x_shape, weight_shape):
    """The same questions with the same answers: what is shown is what runs."""
    asked = []

    def note(function):
        def ask(*question):
            asked.append((*question, answer := function(*question)))
            return answer

        return ask

    monkeypatch.setattr(planner, "choose", note(planner.choose))
    monkeypatch.setattr(planner, "choose_gradient", note(planner.choose_gradient))
    if transposed:  # from as many channels as there are weights, to groups times their second size
        x_shape = (x_shape[0], weight_shape[0], *x_shape[2:])
    groups = 1 if transposed else x_shape[1] // weight_shape[1]
    x, weight = (rng.standard_normal(shape).astype(np.float32) for shape in (x_shape, weight_shape))
    x, weight = Tensor(x, requires_grad=True), Tensor(weight, requires_grad=True)
    calls = []
    with backend.record_kernels(calls.append):
        (ops.conv_transpose2d if transposed else ops.conv2d)(x, weight, groups=groups, **how).sum().backward()
    calls = [call for call in calls if call.name.startswith("conv")]
    by_kernels, shown = list(asked), {}
    asked.clear()
    for call in calls:
        shown |= planned.algorithms(call.name, call.arguments)
    assert asked == by_kernels and len(asked) == 3
    assert shown == dict(zip(("y", "dx", "dweight"), [question[-1] for question in asked], strict=True))


def test_nothing_is_planned_where_there_is_nothing():
    empty = {"x": np.zeros((0, 3, 5, 5), np.float32), "weight": np.zeros((2, 3, 3, 3), np.float32)}
    calls = []
    with backend.record_kernels(calls.append), no_grad():
        ops.conv2d(*map(Tensor, empty.values()))
        ops.conv_transpose2d(Tensor(np.zeros((0, 2, 5, 5), np.float32)), Tensor(empty["weight"]))
        ops.relu(Tensor(empty["x"]))
    assert [backend.planned_algorithms(call) for call in calls] == [{}, {}, {}]


def test_fused_and_plain_calls_have_one_algorithm(rng):
    x, weight = Tensor(rng.random((1, 8, 9, 9), np.float32)), Tensor(rng.random((8, 8, 3, 3), np.float32))
    calls = []
    with backend.record_kernels(calls.append), no_grad():
        ops.conv2d(x, weight)
        ops.conv2d_relu(x, weight)
        ops.conv_transpose2d(x, weight)
        ops.conv_transpose2d_relu(x, weight)
    assert [call.name for call in calls] == [
        "conv2d_forward", "conv2d_relu_forward", "conv_transpose2d_forward", "conv_transpose2d_relu_forward"
    ]  # fmt: skip
    found = [backend.planned_algorithms(call) for call in calls]
    assert found[0] == found[1] and found[2] == found[3] and all(set(one) == {"y"} for one in found)


# ---- backward --------------------------------------------------------------------------------------------------------


def test_a_step_of_training():
    rows = plan(models.UNet(widths=(4, 8)), (2, 1, 16, 12), backward=True).rows
    forward, backward = [row for row in rows if not row.backward], [row for row in rows if row.backward]
    assert rows == forward + backward
    assert [(row.layer, row.words()) for row in forward[:2]] == [
        ("layer1_conv.conv1", "conv2d"),
        ("layer1_conv.bn1", "batch_norm + relu"),
    ]
    assert [(row.layer, row.words()) for row in backward[:3]] == [
        ("sigmoid", "sigmoid backward"),
        ("layer4_conv", "conv2d backward"),
        ("layer3_conv.bn2", "batch_norm + relu backward"),
    ]
    joined = [row for row in rows if row.layer == "layer3_conv.conv1"]
    assert [row.words() for row in joined] == ["conv2d + concat", "conv2d + concat backward"]
    assert [set(row.algorithm) for row in joined] == [{"y"}, {"dx", "dweight"}]
    flops = {(row.layer, row.backward): row.flops for row in rows if row.operator.startswith("conv")}
    for name in ("layer1_conv.conv2", "layer3_conv.conv1", "layer4_conv", "deconv1.conv1"):
        assert flops[name, True] == 2 * flops[name, False]  # of the input and of the weight
    assert flops["layer1_conv.conv1", True] == flops["layer1_conv.conv1", False]  # nobody needs that of the picture
    assert list(backward[-1].algorithm) == ["dweight"]


def test_looking_changes_nothing(rng):
    model = models.UNet(widths=(2, 4)).train()
    model.layer1_conv.eval()
    for parameter in model.parameters():
        parameter.grad = Tensor(np.ones(parameter.shape, np.float32))
    state = {name: tensor.numpy().copy() for name, tensor in model.state_dict().items()}
    gradients, modes = [p.grad for p in model.parameters()], [module.training for module in model.modules()]
    chance, arrays = random.get_state(), [buffer.array for buffer in model.buffers()]
    for backward in (False, True):
        plan(model, (1, 1, 8, 8), backward=backward)
    assert all(np.array_equal(state[name], tensor.numpy()) for name, tensor in model.state_dict().items())
    assert all(now.grad is before for now, before in zip(model.parameters(), gradients, strict=True))
    assert all(np.all(gradient.numpy() == 1) for gradient in gradients)
    assert [module.training for module in model.modules()] == modes
    assert all(buffer.array is array for buffer, array in zip(model.buffers(), arrays, strict=True))
    assert random.get_state() == chance


def test_a_model_that_fails_is_left_as_it_was():
    model = models.UNet(widths=(2, 4)).train()
    with pytest.raises(ValueError, match="x has shape"):
        plan(model, (1, 3, 8, 8))
    assert all(module.training for module in model.modules())
    assert backend.kernel("conv2d_forward") is backend.kernel("conv2d_forward")  # no longer recorded


# ---- detectors -------------------------------------------------------------------------------------------------------


def test_a_detector():
    layers = [row.layer for row in plan(small_detector(), (3, 48, 64)).rows]
    assert layers[:2] == ["upsample2d", "backbone.body.conv1"] and "roi_align" in layers and "nms" in layers
    assert layers.count("rpn.head.conv.0.0") == 5  # on each level of the pyramid
    assert {"roi_heads.box_head.fc6", "roi_heads.box_predictor.cls_score"} <= set(layers)


def test_pictures_instead_of_a_shape(monkeypatch, rng):
    model, seen = models.UNet(widths=(2,)), []
    monkeypatch.setattr(model, "forward", lambda x: seen.append(x.array))
    pictures = rng.random((2, 1, 5, 6))
    plan(model, pictures)
    plan(model, np.array([1, 1, 4, 3]))
    assert np.array_equal(seen[0], pictures.astype(np.float32)) and seen[-1].shape == (1, 1, 4, 3)


def test_a_step_of_training_of_a_detector():
    model = small_detector()
    model.generator = np.random.default_rng(3)
    before = model.generator.bit_generator.state
    rows = plan(model, (2, 3, 48, 64), backward=True).rows
    words = {row.words() for row in rows}
    assert {"roi_align backward", "linear backward", "binary_cross_entropy_with_logits"} <= words
    assert any(row.layer.startswith("roi_heads.mask_head") and row.backward for row in rows)
    assert model.generator.bit_generator.state == before


# ---- what is printed -------------------------------------------------------------------------------------------------


def test_the_table(unet):
    lines = str(unet).splitlines()
    assert lines[0].split()[:5] == ["layer", "operator", "input", "output", "algorithm"]
    assert lines[2].startswith("layer1_conv.conv1  conv2d + norm + relu") and "2x1x16x12" in lines[2]
    assert lines[4].split()[0] == "max_pool2d"
    total = next(line for line in lines if line.startswith("all kernels"))
    assert "10 calls" in total and f"{sum(row.flops or 0 for row in unet.rows) / 1e9:.3f}" in total
    assert "100 GFLOP/s, 10.0 GB/s" in str(unet)
    assert len({len(line) for line in lines if line.startswith("---")}) == 1
    assert repr(unet) == str(unet)


def test_the_table_in_a_notebook(unet):
    page = ElementTree.fromstring(f"<body>{unet._repr_html_()}</body>")
    lines = [[cell.text or "" for cell in line] for line in page.iter("tr")]
    assert [line[0] for line in lines] == ["layer", *(row.layer for row in unet.rows), "all kernels"]
    assert {len(line) for line in lines} == {12}
    assert [line[1] for line in lines[1:-1]] == [row.words() for row in unet.rows]
    assert "100 GFLOP/s, 10.0 GB/s" in "".join(page.itertext())


def test_totals_are_sums(unet):
    totals = unet.totals()
    assert totals["bytes_read"] == sum(row.bytes_read for row in unet.rows)
    assert totals["least_seconds"] == sum(max(row.arithmetic_seconds, row.memory_seconds) for row in unet.rows)


def test_json_holds_everything(unet):
    read = json.loads(unet.to_json())
    assert read["peaks"] == PEAKS and read["totals"] == unet.totals() and len(read["rows"]) == 10
    first, row = read["rows"][0], unet.rows[0]
    assert first["layer"] == row.layer and first["algorithm"] == row.algorithm and first["bound"] == row.bound
    assert (first["input_shape"], first["folded"]) == ([2, 1, 16, 12], ["norm", "relu"])


# ---- mistakes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "error", "words"),
    [
        ((1, 8, 8), ValueError, r"shape is \(1, 8, 8\); expected \(N, C, H, W\), each at least 1"),
        ((1, 1, 0, 8), ValueError, "each at least 1"),
        ((1, 1, 8.0, 8), TypeError, "expected whole numbers"),
    ],
)
def test_wrong_shapes(shape, error, words):
    with pytest.raises(error, match=words):
        plan(models.UNet(widths=(2,)), shape)


def test_a_detector_names_both_forms():
    with pytest.raises(ValueError, match=r"expected \(N, C, H, W\) or \(C, H, W\)"):
        plan(small_detector(), (48, 64))


def test_backward_needs_something_to_learn():
    layer = nn.Conv2d(1, 1, 1)
    for parameter in layer.parameters():
        parameter.requires_grad = False
    with pytest.raises(ValueError, match="nothing in model requires gradients"):
        plan(layer, (1, 1, 4, 4), backward=True)


# ---- recording -------------------------------------------------------------------------------------------------------


def test_recording_ends_with_its_block_and_the_inner_one_records():
    x, outer, inner = Tensor(np.zeros((1, 1, 2, 2), np.float32)), [], []
    with backend.record_kernels(outer.append):
        ops.relu(x)
        with backend.record_kernels(inner.append):
            ops.sigmoid(x)
        ops.softmax(x, 1)
    ops.relu(x)
    assert [call.name for call in outer] == ["relu_forward", "softmax_forward"]
    assert [call.name for call in inner] == ["sigmoid_forward"]
    assert outer[1].arguments["axis"] == 1 and outer[0].arguments["x"] is x.array
    assert outer[0].result.shape == x.shape and outer[0].seconds > 0


def test_a_kernel_that_is_not_recorded_is_the_kernel_itself():
    # or, once there are arrays on the device, the one function that asks where arrays lie
    itself = backend.kernel("conv2d_forward")
    assert inspect.unwrap(itself) is conv2d.conv2d_forward and backend.kernel("conv2d_forward") is itself
    with backend.record_kernels(lambda call: None):
        assert backend.kernel("conv2d_forward") is not itself
    assert inspect.unwrap(backend.kernel("conv_transpose2d_forward")) is conv_transpose2d.conv_transpose2d_forward


def test_recording_the_textbook():
    calls = []
    with backend.use_backend("naive"), backend.record_kernels(calls.append):
        ops.relu(Tensor(np.zeros((1, 1, 2, 2), np.float32)))
    assert [call.name for call in calls] == ["relu_forward"]


# ---- the command -----------------------------------------------------------------------------------------------------


@pytest.fixture
def known_peaks(monkeypatch):
    monkeypatch.setattr(backend, "machine_peaks", lambda: PEAKS)


def test_the_command_prints_and_saves(known_peaks, tmp_path, capsys):
    save_model(tmp_path / "best.safetensors", models.UNet(in_channels=3, widths=(2, 4)))
    arguments = ["--model", str(tmp_path / "best.safetensors"), "--size", "16x24", "--batch", "2", "--backward"]
    assert cli.main(["explain", "plan", *arguments, "--json", str(tmp_path / "plan.json")]) == 0
    out = capsys.readouterr().out
    assert "layer1_conv.conv1" in out and "2x3x16x24" in out and "conv2d backward" in out
    assert out.endswith(f"saved in {tmp_path / 'plan.json'}\n")
    assert json.loads((tmp_path / "plan.json").read_text())["rows"][0]["input_shape"] == [2, 3, 16, 24]


def test_the_command_takes_a_picture(known_peaks, tmp_path, capsys, fails):
    write_picture(tmp_path / "grey.png", np.zeros((1, 20, 12), np.float32))
    save_model(tmp_path / "best.safetensors", models.UNet(in_channels=3, widths=(2, 4)))
    arguments = ["explain", "plan", "--model", tmp_path / "best.safetensors", "--picture", tmp_path / "grey.png"]
    assert cli.main([*map(str, arguments), "--batch", "2"]) == 0
    assert "2x3x20x12" in capsys.readouterr().out
    assert "not allowed with argument" in fails(*arguments, "--size", 8)
    assert "no.png" in fails(*arguments[:-1], "no.png")


def test_the_command_knows_networks_by_name(known_peaks, capsys):
    assert cli.main(["explain", "plan", "--model", "unet", "--size", "16"]) == 0
    assert "layer10_conv" in capsys.readouterr().out


def test_peaks_are_measured_where_they_are_not_given(monkeypatch, capsys):
    monkeypatch.setattr(backend, "machine_peaks", lambda: {"flops": 7e9, "bytes": 3e9})
    assert explain.plan(nn.ReLU(), (1, 1, 4, 4)).peaks == {"flops": 7e9, "bytes": 3e9}


@pytest.mark.parametrize("command", [["explain"], ["explain", "plan"]])
def test_help(command, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main([*command, "--help"])
    assert stop.value.code == 0 and "plan" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "the following arguments are required: --model"),
        (
            ("--model", "no.safetensors"),
            "--model is 'no.safetensors', which is no file; expected one, or unet, maskrcnn",
        ),
        (("--model", "unet", "--size", "0x5"), "'0x5' is no size in pixels such as 480x640 or 256"),
        (("--model", "unet", "--size", "1x2x3"), "'1x2x3' is no size"),
        (("--model", "unet", "--batch", "0"), "0 is less than 1"),
        (("--model", "unet", "--backend", "naive"), "--backend is naive; only the cpu kernels are planned"),
    ],
)
def test_mistakes_are_one_line(fails, arguments, words):
    assert words in fails("explain", "plan", *arguments)
