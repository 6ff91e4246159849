"""Stored numbers of torchvision for what is built from kernels: frozen batch normalisation, pooling from a pyramid."""

import numpy as np
import pytest
from reference_cases import load

import tinyseg
from tinyseg import Tensor, boxes, models, nn


def tensors(group, name):
    return next(case.tensors for case in load(group) if case.name == name)


@pytest.mark.parametrize("backend", ["naive", "cpu"])
@pytest.mark.parametrize(("name", "eps"), [("frozen_bn_eps1e-5", 1e-5), ("frozen_bn_eps0", 0.0)])
def test_frozen_batch_norm(name, eps, backend):
    case = tensors("batch_norm", name)
    layer = nn.FrozenBatchNorm2d(case["x"].shape[1], eps)
    state = {"weight": case["w"], "bias": case["b"]}
    layer.load_state_dict({**state, **{key: case[key] for key in ("running_mean", "running_var")}})
    x = Tensor(case["x"], requires_grad=True)
    with tinyseg.use_backend(backend):
        y = layer(x)
        y.backward(case["gy"])
    # x * scale + shift there, (x - mean) * inv_std * scale + shift here
    np.testing.assert_allclose(y.array, case["y"], rtol=2e-6, atol=2e-6)
    np.testing.assert_allclose(x.grad.array, case["g_x"], rtol=2e-6, atol=1e-7)


@pytest.mark.parametrize("backend", ["naive", "cpu"])
@pytest.mark.parametrize(("name", "size", "ratio"), [("pool7_sr2", 7, 2), ("pool3_sr0", 3, 0)])
def test_roi_align_on_a_pyramid(name, size, ratio, backend):
    case = tensors("fpn_roi", name)
    features = {str(n): Tensor(case[f"feat{n}"], requires_grad=True) for n in range(4)}
    pool = models.MultiScaleRoIPooling(("0", "1", "2", "3"), size, ratio)
    rois = [case["boxes0"], case["boxes1"]]
    np.testing.assert_array_equal(boxes.level_of(np.concatenate(rois)) - 2, case["levels"])
    with tinyseg.use_backend(backend):
        y = pool(features, rois, [(256, 320), (250, 300)])
        y.backward(case["gy"])
    np.testing.assert_allclose(y.array, case["y"], rtol=1e-5, atol=2e-6)
    for n in range(4):
        gradient = features[str(n)].grad
        found = np.zeros_like(case[f"g_feat{n}"]) if gradient is None else gradient.array
        np.testing.assert_allclose(found, case[f"g_feat{n}"], rtol=1e-5, atol=2e-6)
