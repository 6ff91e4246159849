"""Every distinct layer of the networks that are measured, as the networks themselves say.

``layers.json`` holds what running the networks showed; ``python -m benchmarks.layers`` writes it anew.
"""

import json
from functools import cache
from pathlib import Path

from benchmarks import networks
from benchmarks.convolutions import conv2d, conv_transpose2d, linear
from tinyseg import Tensor, files, nn, no_grad

PATH = Path(__file__).with_name("layers.json")

_KINDS = {nn.Conv2d: "conv2d", nn.ConvTranspose2d: "conv_transpose2d", nn.Linear: "linear"}


@cache
def stored():
    """Return the layers from the file, as `seen` returns them, by network."""
    return json.loads(PATH.read_text(encoding="utf-8"))


def seen(model, run):
    """Run a network and return its distinct convolutions and matrix products.

    Parameters
    ----------
    model : Module
        The network.
    run : callable
        Calls it.

    Returns
    -------
    list of dict
        In the order of their first use: ``kind``, the shapes ``x`` and ``weight``, the settings, and ``count``, how
        often the network computes just that.

    Raises
    ------
    RuntimeError
        If a layer of the network was not called.
    """
    layers, called, handles = {}, set(), []

    def record(module, args, output):
        called.add(id(module))
        layer = describe(module, args[0].shape)
        key = json.dumps(layer)
        layers[key] = {**layer, "count": layers.get(key, {}).get("count", 0) + 1}

    modules = [module for _, module in model.named_modules() if type(module) in _KINDS]
    for module in modules:
        handles.append(module.register_forward_hook(record))
    try:
        with no_grad():
            run(model)
    finally:
        for handle in handles:
            handle.remove()
    if len(called) != len(modules):
        raise RuntimeError(f"only {len(called)} of {len(modules)} layers were called")
    return list(layers.values())


def describe(module, shape):
    """Return what tells one layer from another: its kind, shapes and settings."""
    kind = _KINDS[type(module)]
    settings = {"linear": (), "conv_transpose2d": ("stride",), "conv2d": ("stride", "padding", "dilation", "groups")}
    values = {name: getattr(module, name) for name in settings[kind]}
    return {"kind": kind, "x": list(shape), "weight": list(module.weight.shape), **values}


def flops(layer):
    """Return how many multiplications and additions the textbook needs for a layer."""
    return operator(layer).flops["forward"]


def operator(layer, tag=""):
    """Return the `Operator` that computes just such a layer."""
    make = {"conv2d": conv2d, "conv_transpose2d": conv_transpose2d, "linear": linear}[layer["kind"]]
    settings = {name: value for name, value in layer.items() if name not in ("kind", "count")}
    return make(**settings, tag=tag)


def of_unet(name):
    """Return the layers of a U-Net of `networks.UNETS`."""
    picture = Tensor(networks.pictures(networks.UNETS[name][1])[0])
    return seen(networks.unet(name).eval(), lambda model: model(picture))


def of_mask_rcnn():
    """Return the layers of maskrcnn_resnet50_fpn on a photo, of which 100 objects are found."""
    return seen(networks.mask_rcnn().eval(), lambda model: model([networks.photo()[0]]))


def main():
    """Write ``layers.json`` anew."""
    found = {name: of_unet(name) for name in networks.UNETS}
    found["maskrcnn"] = of_mask_rcnn()
    lines = ",\n".join(
        f' "{name}": [\n  ' + ",\n  ".join(map(json.dumps, layers)) + "\n ]" for name, layers in found.items()
    )
    files.write_text(PATH, f"{{\n{lines}\n}}\n")
    print(f"{PATH}: " + ", ".join(f"{len(layers)} layers of {name}" for name, layers in found.items()))


if __name__ == "__main__":
    main()
