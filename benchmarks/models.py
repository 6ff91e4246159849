"""Whole networks: inference and a training step, each with the same weights in every library."""

import numpy as np

import tinyseg
from benchmarks import layers, networks
from benchmarks.entrants import OURS, on_gpu
from benchmarks.measure import Entrant
from benchmarks.operator_case import text
from tinyseg import Tensor, no_grad, ops, optim

#: A training step computes two gradients beside the forward pass, each as long as it.
_PASSES = {"inference": 1, "training_step": 3}
#: After so many calls on a GPU no new memory is asked for.
_CALLS_TO_WARM_UP = 2


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
        """Return who runs this network: one of `entrants.OURS`, or of `libraries`; on a GPU, with arrays there."""
        watch = None
        if on_gpu(name):
            from benchmarks.gpu_clock import Stopwatch

            watch = Stopwatch(_CALLS_TO_WARM_UP)
        if name not in OURS:
            return self.theirs(name, direction)._replace(stopwatch=watch)
        with tinyseg.use_backend(name):
            call, collect = self.ours(direction, np.float32, "cuda" if on_gpu(name) else "cpu")

        def call_with_backend():
            with tinyseg.use_backend(name):
                return call()

        return Entrant(call_with_backend, collect, watch)

    def reference(self, direction):
        """Return a function that pairs results with those of the other library, or with our own in float64."""

        def pairs(results):
            judge = next((name for name in (self.judge, f"{self.judge}.cuda", "naive") if name in results), None)
            if judge is None:
                call, collect = self.ours(direction, np.float64, "cpu")
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

    def ours(self, direction, dtype, device):
        """Return our call, and how to collect its result."""
        model = networks.unet(self.name).to(device, dtype)
        x, truth = (Tensor(array.astype(dtype)).to(device) for array in networks.pictures(networks.UNETS[self.name][1]))
        if direction == "inference":
            model.eval()
            return _without_tape(lambda: model(x)), lambda y: [_on_host(y)]
        optimiser = optim.Adam(model.train().parameters(), networks.LEARNING_RATE)

        def step():
            optimiser.zero_grad()
            loss = ops.binary_cross_entropy_with_logits(model.logits(x), truth)
            loss.backward()
            optimiser.step()
            return loss

        return step, lambda loss: [_on_host(loss), _joined(_on_host(p.grad) for p in model.parameters())]

    def libraries(self, direction):
        """Return the names of the other libraries that can run this."""
        return ("torch", "torch.cuda", "torch.compile", "onnxruntime")[: 4 if direction == "inference" else 3]

    def theirs(self, name, direction):
        """Return another library's entrant."""
        x, truth = networks.pictures(networks.UNETS[self.name][1])
        import torch

        from benchmarks import torch_nets

        device = "cuda" if on_gpu(name) else "cpu"
        model = torch_nets.unet(self.name).to(device)
        x, truth = torch.from_numpy(x).to(device), torch.from_numpy(truth).to(device)
        if name == "onnxruntime":
            return Entrant(torch_nets.onnx_session(model, x, torch.get_num_threads()), lambda y: [y])
        forward = model
        if name == "torch.compile":
            torch._dynamo.reset()
            forward = torch.compile(model)
        if direction == "inference":
            model.eval()
            return Entrant(torch_nets.unet_prediction(forward, x), lambda y: [_on_host(y)])
        step = torch_nets.unet_step(model, x, truth, forward)
        gradients = lambda: _joined(_on_host(p.grad) for p in model.parameters())  # noqa: E731
        return Entrant(step, lambda loss: [_on_host(loss), gradients()])


class MaskRCNNRun(Network):
    """maskrcnn_resnet50_fpn on one photo: the objects found; losses, gradients and a step of SGD."""

    judge = "torchvision"
    tolerance = 1e-2  # of 100 layers; of boxes in pixels, of scores and of masks that they are cut out by

    def __init__(self):
        super().__init__("maskrcnn", "1x3x" + text(*networks.PHOTO))

    def ours(self, direction, dtype, device):
        """Return our call, and how to collect its result."""
        model = networks.mask_rcnn().to(device, dtype)
        picture, truth = networks.photo()
        picture = picture.astype(dtype) if device == "cpu" else Tensor(picture.astype(dtype)).to(device)
        if direction == "inference":
            model.eval()
            return _without_tape(lambda: model([picture])[0]), lambda found: [_on_host(part) for part in found.values()]
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
            np.array([_on_host(losses[key]) for key in sorted(losses)]),
            _joined(_on_host(p.grad) for p in trained),
        ]

    def libraries(self, direction):
        """Return the names of the other libraries that can run this."""
        return (self.judge, f"{self.judge}.cuda")

    def theirs(self, name, direction):
        """Return torchvision's entrant."""
        from benchmarks import torch_nets

        model = torch_nets.mask_rcnn().to("cuda" if on_gpu(name) else "cpu")
        picture, truth = networks.photo()
        if direction == "inference":
            find = torch_nets.detection(model, picture)
            return Entrant(find, lambda found: [_on_host(part) for part in found.values()])
        step = torch_nets.detection_step(model, picture, truth)
        trained = [p for p in model.parameters() if p.requires_grad]
        return Entrant(
            step,
            lambda losses: [
                np.array([_on_host(losses[key]) for key in sorted(losses)]),
                _joined(_on_host(p.grad) for p in trained),
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


def _on_host(tensor):
    """Return the values of a tensor of ours, or of PyTorch's, as an array of the host."""
    return tensor.detach().to("cpu").numpy()


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
