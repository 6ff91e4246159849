"""Whole networks: inference and a training step, each with the same weights in every library."""

import numpy as np

import kernels
import tinyseg
from benchmarks import layers, networks
from benchmarks.measure import Entrant
from benchmarks.operator_case import text
from tinyseg import Tensor, no_grad, ops, optim

#: A training step computes two gradients beside the forward pass, each as long as it.
_PASSES = {"inference": 1, "training_step": 3}


class Network:
    """What the networks share: who takes part, and how results are checked.

    Attributes
    ----------
    flops : dict of str to int
        Multiplications and additions of the convolutions and matrix products, per direction.
    judge : str
        Whose results are right, where it takes part.
    checked : str
        What results were compared with.
    """

    directions = tuple(_PASSES)
    judge = "torch"

    def __init__(self, name, arrays):
        self.name, self.arrays = name, arrays
        forward = sum(layers.flops(layer) * layer["count"] for layer in layers.stored()[name])
        self.flops = {direction: forward * passes for direction, passes in _PASSES.items()}

    def allowed(self, direction):
        """Return how far a result may be off, relative to the largest number."""
        return self.tolerance

    def bytes_read(self, direction):
        """Return 0: what a network must read and write depends on how its layers are joined."""
        return 0

    def entrant(self, name, direction):
        """Return who runs this network: a backend, or one of `libraries`."""
        if name not in kernels.BACKENDS:
            return self.theirs(name, direction)
        call, collect = self.ours(direction, np.float32)

        def call_with_backend():
            with tinyseg.use_backend(name):
                return call()

        return Entrant(call_with_backend, collect)

    def reference(self, direction):
        """Return a function that pairs results with those of the other library, or with our own in float64."""

        def pairs(results):
            judge = next((name for name in (self.judge, "naive") if name in results), None)
            if judge is None:
                call, collect = self.ours(direction, np.float64)
                wanted = collect(call())
            else:
                wanted = results[judge]
            self.checked = judge or "float64"
            return {name: self.paired(found, wanted, direction) for name, found in results.items() if name != judge}

        return pairs

    def paired(self, found, wanted, direction):
        """Return pairs (found, wanted); all gradients as one array, in which the largest counts."""
        return list(zip(found, wanted, strict=True))


class UNetRun(Network):
    """A U-Net of `networks.UNETS`: a batch of pictures to probabilities; loss, gradients and a step of Adam."""

    #: A network of 20 layers adds up their rounding, and a ReLU may let a value through that is 0 up to rounding.
    tolerance = 2e-3

    def __init__(self, name):
        super().__init__(name, text(*networks.UNETS[name][1]))

    def ours(self, direction, dtype):
        """Return our call, and how to collect its result."""
        model = networks.unet(self.name).to(dtype)
        x, truth = (Tensor(array.astype(dtype)) for array in networks.pictures(networks.UNETS[self.name][1]))
        if direction == "inference":
            model.eval()
            return _without_tape(lambda: model(x)), lambda y: [y.numpy()]
        optimiser = optim.Adam(model.train().parameters(), networks.LEARNING_RATE)

        def step():
            optimiser.zero_grad()
            loss = ops.binary_cross_entropy_with_logits(model.logits(x), truth)
            loss.backward()
            optimiser.step()
            return loss

        return step, lambda loss: [loss.numpy(), _joined(p.grad.numpy() for p in model.parameters())]

    def libraries(self, direction):
        """Return the names of the other libraries that can run this."""
        return ("torch", "torch.compile", "onnxruntime")[: 3 if direction == "inference" else 2]

    def theirs(self, name, direction):
        """Return another library's entrant."""
        x, truth = networks.pictures(networks.UNETS[self.name][1])
        import torch

        from benchmarks import torch_nets

        model = torch_nets.unet(self.name)
        if name == "onnxruntime":
            return Entrant(torch_nets.onnx_session(model, x, torch.get_num_threads()), lambda y: [y])
        forward = model
        if name == "torch.compile":
            torch._dynamo.reset()
            forward = torch.compile(model)
        if direction == "inference":
            model.eval()
            return Entrant(torch_nets.unet_prediction(forward, x), lambda y: [y.numpy()])
        step = torch_nets.unet_step(model, x, truth, forward)
        return Entrant(step, lambda loss: [loss.detach().numpy(), _joined(p.grad.numpy() for p in model.parameters())])


class MaskRCNNRun(Network):
    """maskrcnn_resnet50_fpn on one photo: the objects found; losses, gradients and a step of SGD."""

    judge = "torchvision"
    tolerance = 1e-2  # of 100 layers; of boxes in pixels, of scores and of masks that they are cut out by

    def __init__(self):
        super().__init__("maskrcnn", "1x3x" + text(*networks.PHOTO))

    def ours(self, direction, dtype):
        """Return our call, and how to collect its result."""
        model = networks.mask_rcnn().to(dtype)
        picture, truth = networks.photo()
        picture = picture.astype(dtype)
        if direction == "inference":
            model.eval()
            return _without_tape(lambda: model([picture])[0]), lambda found: [part.numpy() for part in found.values()]
        model.train()
        for part in (model.rpn, model.roi_heads):
            part.sampler = _first_ones(part.sampler)
        optimiser = optim.SGD(model.parameters(), networks.SMALL_RATE, momentum=0.9)
        trained = [p for p in model.parameters() if p.requires_grad]

        def step():
            optimiser.zero_grad()
            losses = model([picture], [truth])
            sum(losses.values()).backward()
            optimiser.step()
            return losses

        return step, lambda losses: [
            np.array([losses[key].numpy() for key in sorted(losses)]),
            _joined(p.grad.numpy() for p in trained),
        ]

    def libraries(self, direction):
        """Return the names of the other libraries that can run this."""
        return (self.judge,)

    def theirs(self, name, direction):
        """Return torchvision's entrant."""
        from benchmarks import torch_nets

        model = torch_nets.mask_rcnn()
        picture, truth = networks.photo()
        if direction == "inference":
            find = torch_nets.detection(model, picture)
            return Entrant(find, lambda found: [part.numpy() for part in found.values()])
        step = torch_nets.detection_step(model, picture, truth)
        trained = [p for p in model.parameters() if p.requires_grad]
        return Entrant(
            step,
            lambda losses: [
                np.array([losses[key].detach().numpy() for key in sorted(losses)]),
                _joined(p.grad.numpy() for p in trained),
            ],
        )

    def paired(self, found, wanted, direction):
        """Return pairs; an object found belongs to the nearest box of its class."""
        if direction != "inference" or found[0].shape != wanted[0].shape:
            return super().paired(found, wanted, direction)
        apart = np.abs(found[0][:, None] - wanted[0][None]).max(axis=2)
        apart += 1e6 * (found[1][:, None] != wanted[1][None])
        nearest = apart.argmin(axis=0)
        return [(part[nearest], other) for part, other in zip(found, wanted, strict=True)]


def _without_tape(call):
    """Return a function that calls without recording for gradients."""

    def run():
        with no_grad():
            return call()

    return run


def _first_ones(sampler):
    """Return a sampler with the counts of ours that leaves nothing to chance."""
    counts = sampler.keywords["size"], sampler.keywords["positive_fraction"]
    return lambda labels, generator=None: networks.first_ones(np.asarray(labels), *counts)


def _joined(gradients):
    """Return all gradients as one array, each as large as it is beside the others."""
    return np.concatenate([gradient.ravel() for gradient in gradients])
