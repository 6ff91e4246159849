"""PyTorch's side of the networks: the same U-Net, torchvision's Mask R-CNN, ONNX Runtime. Imported where needed."""

import io
import warnings

import numpy as np
import torch
import torch.nn.functional as F

from benchmarks import networks


class DoubleConv(torch.nn.Module):
    """Twice: convolution 3x3, BatchNorm, ReLU."""

    def __init__(self, channels, outputs):
        super().__init__()
        self.conv1 = torch.nn.Conv2d(channels, outputs, 3, padding=1)
        self.conv2 = torch.nn.Conv2d(outputs, outputs, 3, padding=1)
        self.bn1 = torch.nn.BatchNorm2d(outputs)
        self.bn2 = torch.nn.BatchNorm2d(outputs)

    def forward(self, x):
        """Return the activations."""
        return torch.relu(self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x))))))


class UpConv(torch.nn.Module):
    """Transposed convolution 2x2 with stride 2, BatchNorm, ReLU."""

    def __init__(self, channels, outputs):
        super().__init__()
        self.conv1 = torch.nn.ConvTranspose2d(channels, outputs, 2, stride=2)
        self.bn1 = torch.nn.BatchNorm2d(outputs)

    def forward(self, x):
        """Return the activations."""
        return torch.relu(self.bn1(self.conv1(x)))


class UNet(torch.nn.Module):
    """`tinyseg.models.UNet` in PyTorch, with the same names."""

    def __init__(self, widths):
        super().__init__()
        self.depth = len(widths)
        for level, (before, width) in enumerate(zip((1, *widths), widths, strict=False), 1):
            setattr(self, f"layer{level}_conv", DoubleConv(before, width))
        for step, (below, width) in enumerate(zip(widths[:0:-1], widths[-2::-1], strict=True), 1):
            setattr(self, f"layer{self.depth + step}_conv", DoubleConv(2 * width, width))
            setattr(self, f"deconv{step}", UpConv(below, width))
        setattr(self, f"layer{2 * self.depth}_conv", torch.nn.Conv2d(widths[0], 1, 3, padding=1))

    def logits(self, x):
        """Return the raw scores."""
        across = []
        for level in range(1, self.depth):
            across.append(getattr(self, f"layer{level}_conv")(x))
            x = F.max_pool2d(across[-1], 2)
        x = getattr(self, f"layer{self.depth}_conv")(x)
        for step in range(1, self.depth):
            x = torch.cat([getattr(self, f"deconv{step}")(x), across.pop()], 1)
            x = getattr(self, f"layer{self.depth + step}_conv")(x)
        return getattr(self, f"layer{2 * self.depth}_conv")(x)

    def forward(self, x):
        """Return probabilities; in training raw scores."""
        scores = self.logits(x)
        return scores if self.training else torch.sigmoid(scores)


def load(model, ours):
    """Give a model the weights of ours, whose names are the same; return it."""
    state = {name: torch.from_numpy(np.array(tensor.numpy())) for name, tensor in ours.state_dict().items()}
    model.load_state_dict(state)
    return model


def unet(name):
    """Return the U-Net of that name with the weights that ours has."""
    return load(UNet(networks.UNETS[name][0]), networks.unet(name))


def unet_prediction(model, x):
    """Return a function that predicts, without a tape; ``x`` is a tensor."""
    model.eval()

    def predict():
        with torch.no_grad():
            return model(x)

    return predict


def unet_step(model, x, truth, forward=None):
    """Return a function that takes a training step and returns the loss; ``forward`` is the model, or it compiled."""
    model.train()
    forward = model if forward is None else forward  # a compiled model has no truth value
    optimiser = torch.optim.Adam(model.parameters(), networks.LEARNING_RATE)

    def step():
        optimiser.zero_grad()
        loss = F.binary_cross_entropy_with_logits(forward(x), truth)
        loss.backward()
        optimiser.step()
        return loss

    return step


def onnx_session(model, x, threads):
    """Return a function that predicts with ONNX Runtime."""
    import onnxruntime

    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # the older exporter needs nothing beside PyTorch and writes what a buffer holds
        torch.onnx.export(model.eval(), (x,), buffer, dynamo=False, input_names=["x"])
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(buffer.getvalue(), options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {"x": x.numpy()})[0]


def mask_rcnn():
    """Return torchvision's maskrcnn_resnet50_fpn with the weights that ours has."""
    from torchvision.models import detection

    theirs = detection.maskrcnn_resnet50_fpn(weights=None, weights_backbone=None, box_score_thresh=0.0)
    return load(theirs, networks.mask_rcnn())


def detection(model, picture):
    """Return a function that finds the objects of a picture."""
    picture = torch.from_numpy(picture).to(_device(model))
    model.eval()

    def find():
        with torch.no_grad():
            return model([picture])[0]

    return find


def detection_step(model, picture, truth):
    """Return a function that takes a training step and returns the losses."""
    device = _device(model)
    picture = torch.from_numpy(picture).to(device)
    truth = {name: torch.from_numpy(value).to(device) for name, value in truth.items()}
    model.train()
    for part in (model.rpn, model.roi_heads):
        part.fg_bg_sampler = _FirstOnes(part.fg_bg_sampler)
    optimiser = torch.optim.SGD(model.parameters(), networks.SMALL_RATE, momentum=0.9)

    def step():
        optimiser.zero_grad()
        losses = model([picture], [truth])
        sum(losses.values()).backward()
        optimiser.step()
        return losses

    return step


def _device(model):
    """Return where a model's weights lie."""
    return next(model.parameters()).device


class _FirstOnes:
    """Chooses as many objects and background as torchvision's sampler, not by chance but the first ones."""

    def __init__(self, sampler):
        self.counts = sampler.batch_size_per_image, sampler.positive_fraction

    def __call__(self, labels):
        """Return two lists of masks, one mask for each picture."""
        chosen = ([], [])
        for picture in labels:
            for masks, indices in zip(chosen, networks.first_ones(picture.cpu().numpy(), *self.counts), strict=True):
                mask = torch.zeros(len(picture), dtype=torch.uint8).index_fill(0, torch.from_numpy(indices), 1)
                masks.append(mask.to(picture.device))
        return chosen
