import json
import math

import numpy as np
import pytest
from tolerances import TOLERANCES

from tinyseg import explain
from tinyseg.explain.rois import calls

# Each library's formula once more, in plain loops over one plane, as its sources have it. Boxes are x1, y1, x2, y2.


def between(x, py, px):
    """The value between four cells, places from -1 to the size moved onto the map; 0 beyond."""
    h, w = x.shape
    if py < -1 or py > h or px < -1 or px > w:
        return 0.0
    return sum(part for part, _ in parts(x, py, px))


def parts(x, py, px):
    h, w = x.shape
    py, px = min(max(py, 0), h - 1), min(max(px, 0), w - 1)
    y0, x0 = math.floor(py), math.floor(px)
    y1, x1, ly, lx = min(y0 + 1, h - 1), min(x0 + 1, w - 1), py - y0, px - x0
    weights = ((y0, x0, (1 - ly) * (1 - lx)), (y0, x1, (1 - ly) * lx), (y1, x0, ly * (1 - lx)), (y1, x1, ly * lx))
    return [(weight * x[y, z], weight) for y, z, weight in weights]


def bins(box, size, ratio, offset, least):
    """For each bin the places of its samples: [row][column] -> list of (y, x)."""
    (x1, y1), (x2, y2) = (np.array(corner) - offset for corner in (box[:2], box[2:]))
    across, down = max(x2 - x1, least) / size[1], max(y2 - y1, least) / size[0]
    ny, nx = (ratio if ratio > 0 else math.ceil(step) for step in (down, across))
    return [
        [
            [
                (y1 + down * (py + (iy + 0.5) / ny), x1 + across * (px + (ix + 0.5) / nx))
                for iy in range(ny)
                for ix in range(nx)
            ]
            for px in range(size[1])
        ]
        for py in range(size[0])
    ]


def over(places, function):
    return np.array([[function(each) for each in row] for row in places])


def roi_align(x, box, size, scale, ratio, offset, least):
    places = bins(np.array(box) * scale, size, ratio, offset, least)
    return over(places, lambda samples: np.mean([between(x, *place) for place in samples]))


def torchvision(x, box, size, scale, ratio, picture):
    return roi_align(x, box, size, scale, ratio, 0, 1)


def detectron2(x, box, size, scale, ratio, picture):
    return roi_align(x, box, size, scale, ratio, 0.5, 0)


def onnx_max(x, box, size, scale, ratio, picture):
    def largest(samples):
        h, w = x.shape
        found = []
        for py, px in samples:
            inside = -1 <= py <= h and -1 <= px <= w
            found.append(max(part for part, _ in parts(x, py, px)) if inside else 0)
        return max(found)

    return over(bins(np.array(box) * scale, size, ratio, 0.5, 0), largest)


def mmcv_max(x, box, size, scale, ratio, picture):
    places = bins(np.array(box) * scale, size, ratio, 0.5, 0)
    return over(places, lambda samples: max(between(x, *place) for place in samples))


def crop_and_resize(x, normal, size):
    """tensorflow/core/kernels/crop_and_resize_op.cc, box y1, x1, y2, x2 from 0 to 1."""
    h, w = x.shape
    y1, x1, y2, x2 = normal
    y = np.zeros(size)
    for i in range(size[0]):
        for j in range(size[1]):
            in_y = y1 * (h - 1) + i * (y2 - y1) * (h - 1) / (size[0] - 1) if size[0] > 1 else 0.5 * (y1 + y2) * (h - 1)
            in_x = x1 * (w - 1) + j * (x2 - x1) * (w - 1) / (size[1] - 1) if size[1] > 1 else 0.5 * (x1 + x2) * (w - 1)
            if 0 <= in_y <= h - 1 and 0 <= in_x <= w - 1:
                top, left, bottom, right = math.floor(in_y), math.floor(in_x), math.ceil(in_y), math.ceil(in_x)
                upper = x[top, left] + (x[top, right] - x[top, left]) * (in_x - left)
                lower = x[bottom, left] + (x[bottom, right] - x[bottom, left]) * (in_x - left)
                y[i, j] = upper + (lower - upper) * (in_y - top)
    return y


def normalised(x, box, scale):
    h, w = x.shape
    x1, y1, x2, y2 = np.array(box) * scale
    return y1 / (h - 1), x1 / (w - 1), y2 / (h - 1), x2 / (w - 1)


def tensorflow(x, box, size, scale, ratio, picture):
    height, width = picture
    return crop_and_resize(x, (box[1] / height, box[0] / width, box[3] / height, box[2] / width), size)


def blocks(y):
    return y.reshape(y.shape[0] // 2, 2, y.shape[1] // 2, 2)


def tf_faster_rcnn(x, box, size, scale, ratio, picture):
    return blocks(crop_and_resize(x, normalised(x, box, scale), (2 * size[0], 2 * size[1]))).max(axis=(1, 3))


def matterport(x, box, size, scale, ratio, picture):
    height, width = picture
    x1, y1, x2, y2 = box
    return crop_and_resize(
        x, (y1 / (height - 1), x1 / (width - 1), (y2 - 1) / (height - 1), (x2 - 1) / (width - 1)), size
    )


def tensorpack(x, box, size, scale, ratio, picture):
    """Maps with a border, boxes moved with them; corners such that samples lie in the middle of half bins."""
    padded = np.pad(x, 1, mode="symmetric")
    h, w = padded.shape
    x0, y0, x1, y1 = np.array(box) * scale + 1
    crop = 2 * size[0], 2 * size[1]
    step_x, step_y = (x1 - x0) / crop[1], (y1 - y0) / crop[0]
    nx, ny = (x0 + step_x / 2 - 0.5) / (w - 1), (y0 + step_y / 2 - 0.5) / (h - 1)
    nw, nh = step_x * (crop[1] - 1) / (w - 1), step_y * (crop[0] - 1) / (h - 1)
    return blocks(crop_and_resize(padded, (ny, nx, ny + nh, nx + nw), crop)).mean(axis=(1, 3))


def away(value):
    """C's round."""
    return math.floor(abs(value) + 0.5) * (1 if value > 0 else -1)


def largest_cell(x, top, bottom, left, right):
    h, w = x.shape
    window = x[min(max(top, 0), h) : min(max(bottom, 0), h), min(max(left, 0), w) : min(max(right, 0), w)]
    return window.max() if window.size else 0.0


def caffe(x, box, size, scale, ratio, picture):
    x1, y1, x2, y2 = (away(corner * scale) for corner in box)
    down, across = max(y2 - y1 + 1, 1) / size[0], max(x2 - x1 + 1, 1) / size[1]
    return np.array(
        [
            [
                largest_cell(
                    x, y1 + math.floor(i * down), y1 + math.ceil((i + 1) * down),
                    x1 + math.floor(j * across), x1 + math.ceil((j + 1) * across),
                )
                for j in range(size[1])
            ]
            for i in range(size[0])
        ]
    )  # fmt: skip


def mmcv_pool(x, box, size, scale, ratio, picture):
    x1, y1, x2, y2 = box[0] * scale, box[1] * scale, (box[2] + 1) * scale, (box[3] + 1) * scale
    down, across = (y2 - y1) / size[0], (x2 - x1) / size[1]
    return np.array(
        [
            [
                largest_cell(
                    x, math.floor(i * down + y1), math.ceil((i + 1) * down + y1),
                    math.floor(j * across + x1), math.ceil((j + 1) * across + x1),
                )
                for j in range(size[1])
            ]
            for i in range(size[0])
        ]
    )  # fmt: skip


def mmdetection(x, box, size, scale, ratio, picture):
    return roi_align(x, [box[0], box[1], box[2] + 1, box[3] + 1], size, scale, ratio, 0, 0)


def faster_rcnn_pytorch(x, box, size, scale, ratio, picture):
    x1, y1, x2, y2 = np.array(box) * scale
    h, w = x.shape
    y = np.zeros((size[0] + 1, size[1] + 1))
    for i in range(size[0] + 1):
        for j in range(size[1] + 1):
            py, px = y1 + i * (y2 - y1 + 1) / size[0], x1 + j * (x2 - x1 + 1) / size[1]
            if 0 <= py < h and 0 <= px < w:
                top, left = min(math.floor(py), h - 2), min(math.floor(px), w - 2)
                ly, lx = py - top, px - left
                y[i, j] = (1 - ly) * ((1 - lx) * x[top, left] + lx * x[top, left + 1]) + ly * (
                    (1 - lx) * x[top + 1, left] + lx * x[top + 1, left + 1]
                )
    return (y[1:, 1:] + y[1:, :-1] + y[:-1, 1:] + y[:-1, :-1]) / 4


FORMULAS = {
    "torchvision roi_align": torchvision,
    "detectron2 ROIAlign": detectron2,
    "ONNX RoiAlign": detectron2,
    "ONNX RoiAlign, output_half_pixel": torchvision,
    "ONNX RoiAlign, mode max": onnx_max,
    "mmcv RoIAlign, pool_mode max": mmcv_max,
    "TensorFlow crop_and_resize": tensorflow,
    "tf-faster-rcnn": tf_faster_rcnn,
    "Matterport Mask R-CNN": matterport,
    "tensorpack": tensorpack,
    "Caffe ROIPooling": caffe,
    "mmcv RoIPool": mmcv_pool,
    "mmdetection 1.x RoIAlign": mmdetection,
    "faster-rcnn.pytorch RoIAlignAvg": faster_rcnn_pytorch,
}

#: Boxes in picture pixels on 9x11 cells of 4 pixels: on the map, across its edges, outside, smaller than a cell.
BOXES = (
    (5.0, 6.5, 33.1, 30.7), (-9.3, -7.1, 20.2, 21.9), (21.1, 19.3, 61.7, 47.3), (-3.1, -2.2, 47.9, 39.3),
    (60.1, 50.3, 70.2, 66.6), (-30.2, -20.1, -9.8, -6.6), (10.1, 9.3, 11.2, 10.4),
)  # fmt: skip


@pytest.mark.parametrize("ratio", [0, 1, 3])
@pytest.mark.parametrize("size", [(2, 3), (1, 4)])
@pytest.mark.parametrize("box", BOXES, ids=str)
def test_each_row_follows_its_library(rng, box, size, ratio):
    x, picture = rng.standard_normal((2, 9, 11)), (37, 44)
    table = explain.conventions(x, box, output_size=size, spatial_scale=0.25, sampling_ratio=ratio, picture=picture)
    assert [row.name for row in table.rows] == list(FORMULAS)
    for row in table.rows:
        if row.limits and (np.array(row.points) < 0).any() | (np.array(row.points) > [10, 8]).any():
            continue  # a sample off the map: the row says that its library has another rule there
        expected = [FORMULAS[row.name](plane, box, size, 0.25, ratio, picture) for plane in x]
        np.testing.assert_allclose(row.output, expected, rtol=1e-12, atol=1e-13, err_msg=row.name)


def test_faster_rcnn_pytorch_differs_where_its_row_says(rng):
    x, box = rng.standard_normal((9, 11)), (-3.0, -2.0, 20.0, 20.0)
    row = explain.conventions(x, box, spatial_scale=0.25)["faster-rcnn.pytorch RoIAlignAvg"]
    theirs = faster_rcnn_pytorch(x, box, (2, 2), 0.25, 0, None)
    assert row.limits and np.abs(row.output[0] - theirs).max() > 0.01
    assert abs(row.output[0, 1, 1] - theirs[1, 1]) < 1e-13  # of samples on the map alone


def test_crops_follow_tensorflow_in_both_types(rng):
    x = rng.standard_normal((9, 11))
    corners = rng.uniform(-3, 14, (40, 4))
    for dtype in (np.float32, np.float64):
        for size in ((1, 1), (2, 3), (5, 4)):
            rois = np.insert(corners, 0, 0, axis=1).astype(dtype)
            y = calls.crop_and_resize(x[None, None].astype(dtype), rois, size)
            expected = [crop_and_resize(x, normalised(x, roi[1:].astype(float), 1), size) for roi in rois]
            assert y.dtype == dtype  # reversed boxes flip the crop, as TensorFlow's do
            np.testing.assert_allclose(y[:, 0], expected, rtol=0, atol=4 * TOLERANCES["roi_align"].of(dtype))


def test_crops_outside_take_the_extrapolation_value():
    y = calls.crop_and_resize(np.ones((1, 1, 4, 4)), np.array([[0, -0.5, 0, 3, 3.5]]), (2, 2), extrapolation_value=7.0)
    assert y[0, 0].tolist() == [[7, 1], [7, 7]]


def test_the_ramp_by_hand():
    # 5x5 cells of 0, 1, 2, ..., box [1, 1, 3, 3]: as tensorpack's and TensorFlow's issue #26278 have it, 4x4
    aligned = [[4.5, 5, 5.5, 6], [7, 7.5, 8, 8.5], [9.5, 10, 10.5, 11], [12, 12.5, 13, 13.5]]
    table = explain.conventions(output_size=4)
    for name in ("detectron2 ROIAlign", "ONNX RoiAlign", "tensorpack"):
        np.testing.assert_array_equal(table[name].output[0], aligned)
    np.testing.assert_array_equal(table["torchvision roi_align"].output[0], np.array(aligned) + 3)
    assert table["detectron2 ROIAlign"].difference == 3 and table["torchvision roi_align"].difference == 0


#: What ONNX Runtime 1.32 gave for the ramp 0 ... 24 of 5x5 cells, box [0.5, 1, 4.2, 3], output 2x2.
ONNX_RUNTIME = {
    ("avg", "half_pixel", 2): [5.925, 7.775, 10.925, 12.775],
    ("avg", "output_half_pixel", 2): [8.925, 10.775, 13.925, 15.775],
    ("max", "half_pixel", 2): [2.75625, 4.575, 5.053125, 7.434375],
    ("max", "half_pixel", 1): [5.55, 6.2, 10.175, 10.075],
}
ROW_OF = {
    ("avg", "half_pixel"): "ONNX RoiAlign",
    ("avg", "output_half_pixel"): "ONNX RoiAlign, output_half_pixel",
    ("max", "half_pixel"): "ONNX RoiAlign, mode max",
}


@pytest.mark.parametrize(("mode", "half", "ratio"), ONNX_RUNTIME)
def test_stored_numbers_of_onnx_runtime(mode, half, ratio):
    x = np.arange(25, dtype=np.float32).reshape(5, 5)
    row = explain.conventions(x, (0.5, 1, 4.2, 3), sampling_ratio=ratio)[ROW_OF[mode, half]]
    np.testing.assert_allclose(row.output.ravel(), ONNX_RUNTIME[mode, half, ratio], rtol=1e-6)


@pytest.mark.torchvision
@pytest.mark.parametrize("box", BOXES, ids=str)
def test_against_torchvision(rng, box):
    import torch
    from torchvision import ops as theirs

    x = rng.standard_normal((2, 9, 11)).astype(np.float32)
    table = explain.conventions(x, box, output_size=(2, 3), spatial_scale=0.25)
    features, boxes = torch.from_numpy(x)[None], [torch.tensor([box])]
    expected = {
        "torchvision roi_align": theirs.roi_align(features, boxes, (2, 3), 0.25),
        "detectron2 ROIAlign": theirs.roi_align(features, boxes, (2, 3), 0.25, aligned=True),
        "Caffe ROIPooling": theirs.roi_pool(features, boxes, (2, 3), 0.25),
    }
    for name, y in expected.items():
        np.testing.assert_allclose(table[name].output, y[0].numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.torch
@pytest.mark.parametrize("ratio", [0, 1, 2])
@pytest.mark.parametrize("box", BOXES, ids=str)
def test_against_onnx_runtime(rng, box, ratio):
    # its numbers are stored above; where it is installed beside PyTorch, as in CI, they are made anew
    onnx, runtime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    x = rng.standard_normal((2, 9, 11)).astype(np.float32)
    table = explain.conventions(x, box, output_size=(2, 3), spatial_scale=0.25, sampling_ratio=ratio)

    def run(operator, opset, *inputs, **attributes):
        names = ["x", "rois", "batch"][: len(inputs)]
        node = onnx.helper.make_node(operator, names, ["y"], spatial_scale=0.25, **attributes)
        types = [onnx.helper.np_dtype_to_tensor_dtype(array.dtype) for array in inputs]
        declared = [
            onnx.helper.make_tensor_value_info(*each)
            for each in zip(names, types, (array.shape for array in inputs), strict=True)
        ]
        result = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)
        graph = onnx.helper.make_graph([node], "test", declared, [result])
        model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)], ir_version=8)
        options = runtime.SessionOptions()
        options.log_severity_level = 4
        session = runtime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return session.run(None, dict(zip(names, inputs, strict=True)))[0][0]

    boxes, batch = np.array([box], np.float32), np.zeros(1, np.int64)
    for (mode, half), name in ROW_OF.items():
        y = run(
            "RoiAlign", 16, x[None], boxes, batch, mode=mode, coordinate_transformation_mode=half,
            sampling_ratio=ratio, output_height=2, output_width=3,
        )  # fmt: skip
        np.testing.assert_allclose(table[name].output, y, rtol=1e-5, atol=1e-6, err_msg=name)
    y = run("MaxRoiPool", 13, x[None], np.insert(boxes, 0, 0, axis=1), pooled_shape=(2, 3))
    np.testing.assert_array_equal(table["Caffe ROIPooling"].output, y)


def test_table_and_json():
    table = explain.conventions()
    text = str(table)
    assert "box [1, 1, 3, 3], 2x2 bins, 1 cells per picture pixel" in text
    lines = [line for line in text.splitlines() if line.startswith("TensorFlow crop_and_resize  ")]
    assert " ".join(lines[0].split()[2:]) == "roi_align [0.5, 0.5, 3.7, 3.7], 2x2, 1, aligned 4.8 6.4 12.8 14.4 4.2"
    assert text.count("Not reproduced: ") == len(table.not_reproduced) == 2
    whole = json.loads(table.to_json())
    assert [row["name"] for row in whole["rows"]] == list(FORMULAS)
    assert whole["rows"][0]["defaults"] == {"aligned": False, "sampling_ratio": -1}
    with pytest.raises(KeyError, match="'Keras'; there are torchvision roi_align, "):
        table["Keras"]


def test_figure_shows_where_each_library_looks():
    figure = explain.conventions().figure()
    panels = {axes.get_title().replace("\n", " "): axes for axes in figure.axes if axes.get_title()}
    assert list(panels) == list(FORMULAS)
    samples = panels["TensorFlow crop_and_resize"].collections[-1].get_offsets()
    np.testing.assert_allclose(samples, [[0.8, 0.8], [2.4, 0.8], [0.8, 2.4], [2.4, 2.4]], rtol=1e-15)
    assert panels["torchvision roi_align"].get_xlabel().strip() == "9 10\n14 15"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"features": np.zeros((2, 1, 4, 4))}, "features has 2 pictures; expected one"),
        ({"roi": (1, 1, 1, 3)}, r"roi is \[1.0, 1.0, 1.0, 3.0\]; expected x2 above x1 and y2 above y1"),
        ({"output_size": 0}, "output_size is 0; expected"),
        ({"picture": 3}, "picture is 3; expected its height and width"),
        ({"picture": (0, 4)}, "picture is 0; expected a number above 0"),
        ({"spatial_scale": -2.0}, "spatial_scale is -2.0; expected more than 0"),
    ],
)
def test_what_does_not_fit_is_said(change, words):
    with pytest.raises(ValueError, match=words):
        explain.conventions(**change)


def test_json_has_no_nan():
    features = np.arange(25.0).reshape(5, 5)
    features[1, 1] = np.nan

    def refuse(name):
        raise AssertionError(f"{name} is no JSON")

    read = json.loads(explain.conventions(features).to_json(), parse_constant=refuse)
    assert read["features"][0][1] == [5, None, 7, 8, 9]
    gradients = explain.roi_gradients(features, (1, 1, 3, 3), output_size=2, dy=features[:2, :2][None, None], orders=0)
    assert json.loads(gradients.to_json(), parse_constant=refuse)["dy"] == [[[[0, 1], [5, None]]]]
