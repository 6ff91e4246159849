"""A U-Net trained on the device: one step equals the host's, and no map or parameter is copied on the way."""

import numpy as np
import pytest

import tinyseg
from kernels import cuda
from tinyseg import Tensor, models, nn, ops, optim

pytestmark = pytest.mark.cuda


def step_of(model, x, target, make):
    """Take a training step and return its loss."""
    optimiser = make(model.parameters())
    loss = ops.binary_cross_entropy_with_logits(model.logits(x), target)
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    return loss


def test_a_training_step_equals_the_hosts(rng):
    tinyseg.manual_seed(3)
    host = models.UNet(widths=(1, 2)).to(np.float64)
    device = models.UNet(widths=(1, 2)).to(np.float64)
    device.load_state_dict(host.state_dict())
    device.to("cuda")
    # an odd side is padded and cropped on the device
    picture, mask = rng.standard_normal((1, 1, 3, 4)), rng.integers(0, 2, (1, 1, 3, 4)).astype(np.float64)
    expected = step_of(host, Tensor(picture), Tensor(mask), lambda p: optim.Adam(p, lr=0.01))
    x, target = Tensor(picture).to("cuda"), Tensor(mask).to("cuda")
    before = cuda.transfers()
    loss = step_of(device, x, target, lambda p: optim.Adam(p, lr=0.01))
    after = cuda.transfers()
    # but for a table of seven numbers for each parameter: where it, its gradient and its states lie, and their sizes
    assert after.to_host == before.to_host and after.to_device - before.to_device <= 1
    assert after.to_device_bytes - before.to_device_bytes <= 8 * 7 * len(list(device.parameters()))
    assert abs(loss.item() - expected.item()) < 1e-12
    for (name, here), (_, there) in zip(host.named_parameters(), device.named_parameters(), strict=True):
        gradient, own = here.grad.numpy(), there.grad.to("cpu").numpy()
        np.testing.assert_allclose(own, gradient, rtol=1e-9, atol=1e-12, err_msg=name)
        if np.abs(gradient).min() > 1e-9:  # Adam's first step divides a gradient by its own size
            np.testing.assert_allclose(there.to("cpu").numpy(), here.numpy(), rtol=1e-9, atol=1e-9, err_msg=name)
    for (name, here), (_, there) in zip(host.named_buffers(), device.named_buffers(), strict=True):
        np.testing.assert_allclose(there.to("cpu").numpy(), here.numpy(), rtol=1e-10, err_msg=name)


def test_evaluation_without_a_tape(rng):
    tinyseg.manual_seed(3)
    model = models.UNet(out_channels=2, widths=(2, 2)).eval()
    picture = rng.standard_normal((1, 1, 2, 2)).astype(np.float32)
    with tinyseg.no_grad():
        expected = model(Tensor(picture))
        got = model.to("cuda")(Tensor(picture).to("cuda"))
    np.testing.assert_allclose(got.to("cpu").numpy(), expected.numpy(), rtol=1e-4, atol=1e-6)


def test_a_model_made_on_the_device(rng):
    with tinyseg.use_backend("cuda"):
        model = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.ReLU())
        y = model(Tensor(rng.standard_normal((1, 1, 3, 3)).astype(np.float32)))
        y.sum().backward()
    assert y.device == model[0].weight.device == model[0].weight.grad.device == "cuda"
