"""What explanations say of arguments that are something else: one sentence, that names the argument."""

import numpy as np
import pytest

from tinyseg import explain, models, nn

RAMP = np.arange(25.0).reshape(5, 5)
BOX = (1, 1, 3, 3)
ON_ROIS = [explain.roi_compare, explain.roi_drag, explain.roi_gradients, explain.conventions, explain.roi_lab]
ON_NETWORKS = {
    explain.plan: (1, 1, 8, 8), explain.graph: (1, 1, 8, 8), explain.receptive_field: (1, 8, 8),
    explain.feature_maps: np.zeros((8, 8), np.float32), explain.detector: np.zeros((3, 8, 8), np.float32),
}  # fmt: skip


@pytest.mark.parametrize("function", ON_ROIS, ids=lambda function: function.__name__)
@pytest.mark.parametrize(
    "wrong",
    [
        {"features": "map"}, {"features": np.zeros((0, 5))}, {"features": [[1, 2], [3]]},
        {"features": 1j * RAMP}, {"roi": "box"}, {"roi": (np.nan, 1, 2, 3)}, {"roi": (1, 2, 3)}, {"roi": [[1, 2], [3]]},
        {"output_size": None}, {"output_size": 1.5}, {"output_size": True}, {"output_size": (1, 2, 3)},
        {"spatial_scale": 0}, {"spatial_scale": "1"}, {"spatial_scale": np.inf}, {"spatial_scale": (1, 1)},
        {"sampling_ratio": 1.5}, {"sampling_ratio": None},
    ],
    ids=str,
)  # fmt: skip
def test_boxes_and_maps(function, wrong):
    arguments = {"features": RAMP, "roi": BOX, "output_size": 2} | wrong
    with pytest.raises(
        (TypeError, ValueError), match=r"^(row 0 of )?(" + "|".join(wrong) + r")s? (is|has) .*; expected "
    ):
        function(arguments.pop("features"), arguments.pop("roi"), **arguments)


@pytest.mark.parametrize("function", ON_NETWORKS, ids=lambda function: function.__name__)
@pytest.mark.parametrize("model", ["unet", None, 3, models.UNet, [nn.ReLU()]], ids=str)
def test_models_that_are_none(function, model):
    with pytest.raises(TypeError, match=r"^model is (a|the) .*; expected a "):
        function(model, ON_NETWORKS[function])


@pytest.mark.parametrize("shape", [None, 3, "1188", (1, 1, 8.5, 8), (1, True, 8, 8)], ids=str)
@pytest.mark.parametrize("function", list(ON_NETWORKS)[:3], ids=lambda function: function.__name__)
def test_shapes_that_are_none(function, shape):
    with pytest.raises(TypeError, match="^shape is .*; expected whole numbers"):
        function(models.UNet(widths=(2,)), shape)


def test_arrays_that_hold_no_numbers():
    for function in (explain.plan, explain.graph):
        with pytest.raises(TypeError, match="^shape is an array of dtype <U1; expected"):
            function(models.UNet(widths=(2,)), np.full((1, 1, 8, 8), "x"))


@pytest.mark.parametrize("peaks", ["fast", 3, {"flops": 1e9}, {"flops": 0, "bytes": 1e9}], ids=str)
def test_peaks_that_are_none(peaks):
    with pytest.raises(ValueError, match=r"^peaks.* is .*; expected a "):
        explain.plan(models.UNet(widths=(2,)), (1, 1, 8, 8), peaks=peaks)
    with pytest.raises(ValueError, match=r"^peaks.* is .*; expected a "):
        explain.roofline([("a", 1.0, 1.0, 1.0)], peaks)


@pytest.mark.parametrize(
    "measured", ["fast", None, [3], [("a", 1, 2)], [("a", "b", 1, 1)], [("a", np.nan, 1, 1)]], ids=str
)
def test_measurements_that_are_none(measured):
    with pytest.raises((TypeError, ValueError), match="^measured (is|has) .*; expected "):
        explain.roofline(measured, {"flops": 1e11, "bytes": 1e10})


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"titles": 3}, "titles is 3; expected a list"),
        ({"marks": ["a"]}, "mark 0 is 'a'; expected a Mark"),
        ({"marks": [(0, 0, 0, 1, 1, "a", "no colour")]}, "marks has colour 'no colour'; expected one of orange,"),
        ({"origins": [(0,)]}, r"origins is \(0,\); expected row and column"),
        ({"scale": (1, 2, 3)}, r"scale is \(1, 2, 3\); expected 'own', 'shared' or \(low, high\)"),
        ({"scale": (np.nan, 1)}, "scale is .* expected 'own'"),
        ({"digits": 0}, "digits is 0; expected at least 1"),
        ({"width": 0}, "width is 0; expected a number above 0"),
    ],
    ids=str,
)
def test_looks_of_maps(wrong, words):
    with pytest.raises((TypeError, ValueError), match=words):
        explain.maps(RAMP, **wrong)


def test_pictures_and_layers_that_are_none():
    model = models.UNet(widths=(2,))
    with pytest.raises(ValueError, match="^picture has rows of different lengths"):
        explain.feature_maps(model, [[1.0, 2.0], [3.0]])
    with pytest.raises(TypeError, match="^layers is 3; expected names of layers"):
        explain.feature_maps(model, np.zeros((8, 8), np.float32), 3)


def test_functions_that_return_no_tensor():
    with pytest.raises(TypeError, match="^the output has a int; expected Tensors"):
        explain.check_gradients(lambda x: 3, np.ones(2))
    with pytest.raises(ValueError, match="^inputs has no array of floats"):
        explain.check_gradients(lambda: 3, [])
