"""The graph of a run: every operator with its inputs, costs as the plan has them, and a drawing without overlaps."""

import json
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from tinyseg import Tensor, backend, explain, models, nn, ops, random
from tinyseg.explain.networks.graph_drawing import _prepared
from tinyseg.explain.networks.graph_layout import layered

PEAKS = {"flops": 1e11, "bytes": 1e10}


@pytest.fixture(autouse=True)
def same_backend_afterwards():
    with backend.use_backend("cpu"):
        yield


def detector(kind=models.mask_rcnn):
    random.manual_seed(0)
    more = {"mask_channels": 8} if kind is models.mask_rcnn else {}
    return kind(2, width=4, channels=8, representation_size=16, min_size=64, max_size=96, **more)


def residual():
    return models.ResNet(models.resnet.BasicBlock, (2, 4, 1, 1), 5, width=4)


@pytest.fixture(scope="module")
def unet():
    return explain.graph(models.UNet(widths=(4, 8)), (2, 1, 16, 12))


# ---- nodes and edges -------------------------------------------------------------------------------------------------


def test_operators_of_a_unet_and_what_they_take(unet):
    assert [(node.layer, node.operator, [source for source, _ in node.inputs]) for node in unet.nodes] == [
        ("", "input", []),
        ("layer1_conv.conv1", "conv2d + norm + relu", [0]),
        ("layer1_conv.conv2", "conv2d + norm + relu", [1]),
        ("", "max_pool2d", [2]),
        ("layer2_conv.conv1", "conv2d + norm + relu", [3]),
        ("layer2_conv.conv2", "conv2d + norm + relu", [4]),
        ("deconv1.conv1", "conv_transpose2d + norm + relu", [5]),
        ("layer3_conv.conv1", "conv2d + concat + norm + relu", [6, 2]),
        ("layer3_conv.conv2", "conv2d + norm + relu", [7]),
        ("layer4_conv", "conv2d", [8]),
        ("", "sigmoid", [9]),
    ]
    assert unet.nodes[7].inputs == ((6, (2, 4, 16, 12)), (2, (2, 4, 16, 12)))
    assert unet.nodes[3].output_shape == (2, 4, 8, 6)
    assert unet.nodes[3].output_bytes == 2 * 4 * 8 * 6 * 4
    assert unet.nodes[1].parameters == (
        "layer1_conv.conv1.weight", "layer1_conv.conv1.bias", "layer1_conv.bn1.weight", "layer1_conv.bn1.bias"
    )  # fmt: skip


def test_a_step_of_training_keeps_and_goes_back():
    graph = explain.graph(models.UNet(widths=(4, 8)), (2, 1, 16, 12), backward=True)
    operators = [node.operator for node in graph.nodes]
    assert operators[:5] == ["input", "conv2d", "batch_norm + relu", "conv2d", "batch_norm + relu"]
    assert operators[-2:] == ["sigmoid", "sum"]  # the loss
    first, norm, second = graph.nodes[1:4]
    assert first.kept_bytes == 2 * 1 * 16 * 12 * 4  # its input; its weights are kept by the model
    plane = 2 * 4 * 16 * 12 * 4
    assert plane < norm.kept_bytes < 1.1 * plane  # what it is given; means, deviations and a bit for each ReLU
    assert second.kept_bytes == plane  # the norm's output
    assert first.backward_flops == first.flops  # the gradient of the weight; the picture needs none
    assert second.backward_flops == 2 * second.flops
    assert graph.nodes[0].backward_bytes_read == 0


@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (lambda: models.UNet(widths=(4, 8, 8)), (1, 1, 20, 12)),
        (residual, (2, 3, 32, 32)),
        (detector, (3, 64, 96)),
        (lambda: detector(models.faster_rcnn), (3, 64, 96)),
    ],
)
def test_totals_are_those_of_the_plan_and_of_the_parameters(make, shape, backward):
    model = make()
    graph = explain.graph(model, shape, backward=backward)
    total, plan = graph.totals(), explain.plan(model, shape, backward=backward, peaks=PEAKS).totals()
    for name in ("flops", "bytes_read", "bytes_written"):
        assert total[name] + total[f"backward_{name}"] == plan[name], name
    assert total["unused"] == []
    assert total["parameters"] == sum(parameter.size for parameter in model.parameters())
    for depth in (None, 0, 1, 2):
        blocks = graph.blocks(depth)
        assert sorted(number for block in blocks for number in block.nodes) == list(range(len(graph.nodes)))
        assert sum(block.parameters for block in blocks) == total["parameters"]
        assert sum(block.flops for block in blocks) == plan["flops"]
        assert sum(block.bytes_moved for block in blocks) == plan["bytes_read"] + plan["bytes_written"]
        assert sum(block.kept_bytes for block in blocks) == total["kept_bytes"]
        assert all(source < i for i, block in enumerate(blocks) for source, _ in block.inputs)
    assert len(graph.blocks()) <= 40


def test_single_layers():
    graph = explain.graph(nn.Linear(4, 3), (2, 4))
    assert [(node.operator, node.output_shape) for node in graph.nodes] == [("input", (2, 4)), ("linear", (2, 3))]
    assert graph.totals()["flops"] == 2 * 2 * 4 * 3
    assert graph.totals()["parameters"] == 15
    graph = explain.graph(nn.Conv2d(2, 3, 3), np.zeros((1, 2, 5, 6), np.float32), backward=True)
    assert [node.operator for node in graph.nodes] == ["input", "conv2d", "sum"]
    assert [node.operator for node in explain.graph(nn.ReLU(), (1, 1, 4, 4)).nodes] == ["input", "relu"]


def test_what_a_tensor_is_used_for_twice_and_what_nobody_uses():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(1, 1, 1)
            self.spare = nn.Linear(2, 2)

        def forward(self, x):
            y = self.conv(x)
            return self.conv(y) + ops.relu(y).reshape(*y.shape)

    graph = explain.graph(Net(), (1, 1, 4, 4))
    assert [node.operator for node in graph.nodes] == ["input", "conv2d", "conv2d", "relu", "reshape", "add"]
    assert [[source for source, _ in node.inputs] for node in graph.nodes] == [[], [0], [1], [1], [3], [2, 4]]
    assert graph.totals()["parameters"] == 2
    assert graph.totals()["unused"] == ["spare.weight", "spare.bias"]
    assert "No operator took spare.weight, spare.bias." in str(graph)


def test_looking_changes_nothing():
    model = detector()
    before = {name: value.numpy().copy() for name, value in model.state_dict().items()}
    weight = next(model.parameters())
    weight.grad = gradient = Tensor(np.ones(weight.shape, np.float32))
    chance = random.get_state()
    explain.graph(model, (3, 64, 96), backward=True)
    assert model.training
    assert weight.grad is gradient
    assert random.get_state() == chance
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), before[name])


# ---- blocks ----------------------------------------------------------------------------------------------------------


def test_equal_blocks_in_a_row_are_one():
    graph = explain.graph(residual(), (1, 3, 64, 64), backward=True)
    blocks = {block.name: block for block in graph.blocks(2)}
    assert blocks["layer1.0 to layer1.1"].repeats == 2
    assert blocks["layer2.0"].repeats == 1  # with a stride
    assert blocks["layer2.1 to layer2.3"].repeats == 3
    assert blocks["layer2.1 to layer2.3"].kind == "BasicBlock"
    assert blocks["layer2.1 to layer2.3"].parameters == 3 * (2 * 9 * 8 * 8 + 4 * 8)


def test_depth():
    graph = explain.graph(models.UNet(widths=(4, 8, 8)), (1, 1, 16, 16), backward=True)
    whole = graph.blocks(0)
    assert [block.kind for block in whole] == ["input", "UNet", "sum"]
    names = [block.name or block.kind for block in graph.blocks(1)]
    assert names == ["input", "layer1_conv", "max_pool2d", "layer2_conv", "max_pool2d", "layer3_conv", "deconv1",
                     "layer4_conv", "deconv2", "layer5_conv", "layer6_conv", "sigmoid", "sum"]  # fmt: skip
    assert len(graph.blocks(5)) == len(graph.nodes)
    with pytest.raises(ValueError, match="depth is -1"):
        graph.blocks(-1)


def test_no_gradient_flows_through_the_choice_of_boxes():
    graph = explain.graph(detector(), (3, 64, 96), backward=True)
    chosen = {node.operator for node in graph.nodes if not node.differentiable}
    assert {"input", "nms", "box_iou"} <= chosen
    assert not chosen & {"conv2d", "linear", "batch_norm"}
    assert {source for node in graph.nodes if node.operator == "roi_align" for source, _ in node.inputs} <= {
        i for i, node in enumerate(graph.nodes) if node.operator == "conv2d"
    }


# ---- layout and drawings ---------------------------------------------------------------------------------------------


def test_layers_go_down_and_boxes_stand_apart(rng):
    for count in (1, 2, 30):
        edges = sorted({tuple(sorted(rng.choice(count, 2, replace=False).tolist())) for _ in range(2 * count)}
                       if count > 1 else set())  # fmt: skip
        widths, heights = rng.uniform(0.5, 3, count), rng.uniform(0.2, 1, count)
        layout = layered(widths, heights, edges, gap=(0.3, 0.4))
        boxes = [(x - w / 2, y - h / 2, x + w / 2, y + h / 2)
                 for (x, y), w, h in zip(layout.centres, widths, heights, strict=True)]  # fmt: skip
        for i, a in enumerate(boxes):
            assert min(a) >= -1e-9
            assert a[2] <= layout.size[0] + 1e-9
            assert a[3] <= layout.size[1] + 1e-9
            for b in boxes[:i]:
                assert a[2] < b[0] or b[2] < a[0] or a[3] < b[1] or b[3] < a[1]
        for (a, b), route in zip(edges, layout.routes, strict=True):
            assert route[0] == pytest.approx((layout.centres[a][0], boxes[a][3]))
            assert route[-1] == pytest.approx((layout.centres[b][0], boxes[b][1]))
            assert all(p[1] <= q[1] + 1e-9 for p, q in zip(route, route[1:], strict=False))


def test_an_edge_past_a_layer_keeps_clear_of_its_boxes():
    layout = layered([2, 2, 2], [1, 1, 1], [(0, 1), (1, 2), (0, 2)])
    passing = [x for x, y in layout.routes[2][1:-1]]
    assert all(abs(x - layout.centres[1][0]) > 1 for x in passing)
    with pytest.raises(ValueError, match="edges lead backwards"):
        layered([1, 1], [1, 1], [(1, 0)])


def test_few_crossings():
    # two chains side by side, given in turns: they need not cross
    edges = [(0, 3), (1, 2), (2, 5), (3, 4), (4, 7), (5, 6)]
    layout = layered([1] * 8, [1] * 8, edges)
    left = [layout.centres[i][0] for i in (0, 3, 4, 7)]
    right = [layout.centres[i][0] for i in (1, 2, 5, 6)]
    assert len({np.sign(a - b) for a, b in zip(left, right, strict=True)}) == 1


def test_svg_has_text_titles_and_all_boxes(unet):
    root = ElementTree.fromstring(unet.svg())
    space = "{http://www.w3.org/2000/svg}"
    texts = [element.text for element in root.iter(f"{space}text")]
    assert "layer1_conv.conv1" in texts
    assert "2x4x8x6" in texts
    titles = [element.text for element in root.iter(f"{space}title")]
    assert titles[0] == "UNet: a prediction"
    assert "layer4_conv: conv2d -> 2x1x16x12" in titles
    width, height = float(root.get("width")), float(root.get("height"))
    for box in root.iter(f"{space}rect"):
        if box.get("width") != "100%":
            assert float(box.get("x")) + float(box.get("width")) <= width
            assert float(box.get("y")) + float(box.get("height")) <= height
    assert unet._repr_svg_() == unet.svg()


def test_svg_escapes_what_has_a_meaning_in_it():
    class Odd(nn.Module):
        def forward(self, x):
            return ops.relu(x)

    Odd.__name__ = "A<B>&C"
    root = ElementTree.fromstring(explain.graph(Odd(), (1, 1, 2, 2)).svg())
    assert root[0].text == "A<B>&C: a prediction"


def test_words_fit_into_their_boxes(unet):
    figure = unet.figure()
    figure.canvas.draw()
    axes = figure.axes[0]
    inverse = axes.transData.inverted()
    for _, lines, x, _, width, _ in _prepared(unet, None).boxes:
        for text in axes.texts:
            if text.get_text() in lines and abs(text.get_position()[0] - (x + width / 2)) < 1e-9:
                left, right = inverse.transform(text.get_window_extent())[:, 0]
                assert x <= left < right <= x + width
    wide = unet.figure(width=5)
    assert wide.get_size_inches()[0] == 5


def test_table_and_json(unet):
    lines = str(unet).splitlines()
    assert lines[2].split() == ["0", "input", "2x1x16x12", "0.00"]
    assert lines[9].split()[:9] == ["7", "layer3_conv.conv1", "conv2d", "+", "concat", "+", "norm", "+", "relu"]
    assert f"{unet.totals()['parameters']}" in lines[-3]
    data = json.loads(unet.to_json())
    assert data["totals"] == unet.totals()
    assert [node["operator"] for node in data["nodes"]] == [node.operator for node in unet.nodes]


def test_arguments_that_do_not_fit():
    with pytest.raises(TypeError, match="model is a function; expected a Module"):
        explain.graph(ops.relu, (1, 1, 4, 4))
    with pytest.raises(TypeError, match="shape is"):
        explain.graph(nn.ReLU(), (1, 1.5))
    with pytest.raises(ValueError, match="nothing in model requires gradients"):
        explain.graph(nn.ReLU(), (1, 1, 4, 4), backward=True)
