"""Backbones of detectors: a residual network's maps, and the feature pyramid that makes all of them rich.

In a residual network the fine maps know little about the picture as a whole, and the maps that know much are coarse. A
feature pyramid network (Lin et al., arXiv:1612.03144) takes what the coarse maps know down to the fine ones.
"""

from tinyseg import nn, ops
from tinyseg.models import old_names
from tinyseg.nn import fused


class FeatureLayers(nn.Module):
    """The layers of a `ResNet` up to the last one asked for, without its classifier.

    Parameters
    ----------
    resnet : ResNet
        Whose layers are taken; they are shared, not copied.
    returned_layers : sequence of int
        Which of the stages 1 to 4 are returned, in rising order.
    """

    def __init__(self, resnet, returned_layers=(1, 2, 3, 4)):
        super().__init__()
        self.returned = {f"layer{stage}": str(number) for number, stage in enumerate(returned_layers)}
        last = f"layer{returned_layers[-1]}"
        for name, module in resnet.named_children():
            self.add_module(name, module)
            if name == last:
                break

    def forward(self, x):
        """Return a dictionary of maps, the finest, ``"0"``, first, for pictures ``(N, 3, H, W)``."""
        features, layers = {}, []
        for name, module in self.named_children():
            layers.append(module)
            if name in self.returned:
                x, layers = fused.run(layers, x), []
                features[self.returned[name]] = x
        return features


class FeaturePyramidNetwork(nn.Module):
    """Maps of equal width, each with what the coarser ones know.

    From the coarsest down: a convolution 1x1 brings a map to the common width, the next coarser result is enlarged to
    its size and added, and a convolution 3x3 makes the output of that level.

    Parameters
    ----------
    in_channels : sequence of int
        Channels of each map, the finest first.
    out_channels : int
        Channels of every output.

    Attributes
    ----------
    inner_blocks, layer_blocks : ModuleList
        The convolutions 1x1 and 3x3 of each level.

    Notes
    -----
    With a further level ``"pool"`` of every second cell of the coarsest output, as torchvision has it for anchors of
    large objects.
    """

    def __init__(self, in_channels, out_channels=256):
        super().__init__()
        self.inner_blocks, self.layer_blocks = nn.ModuleList(), nn.ModuleList()
        for channels in in_channels:
            self.inner_blocks.append(nn.Sequential(nn.Conv2d(channels, out_channels, 1)))
            self.layer_blocks.append(nn.Sequential(nn.Conv2d(out_channels, out_channels, 3, padding=1)))
        self.old_keys = old_names.pyramid(len(in_channels))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_uniform_(module.weight, a=1)
                nn.init.zeros_(module.bias)

    def forward(self, features):
        """Return a dictionary with the keys of ``features``, and ``"pool"``, of maps ``(N, out_channels, h, w)``."""
        names, maps = list(features), list(features.values())
        above, outputs = None, []
        for level in reversed(range(len(maps))):
            above = _joined(self.inner_blocks[level], maps[level], above)
            outputs.append(self.layer_blocks[level](above))
        outputs.reverse()
        return {**dict(zip(names, outputs, strict=True)), "pool": ops.max_pool2d(outputs[-1], 1, 2)}


def _joined(inner_block, x, above):
    """Return a map brought to the common width, plus the one above, enlarged, where there is one."""
    if above is None:
        return inner_block(x)
    above = ops.interpolate(above, size=x.shape[2:], mode="nearest")
    if inner_block._hooks:  # somebody wants to see what it gives
        return inner_block(x) + above
    (convolution,) = inner_block
    return fused.conv_norm(convolution, None, x, relu=False, residual=above)


class BackboneWithFPN(nn.Module):
    """A residual network with a feature pyramid on top.

    Parameters
    ----------
    resnet : ResNet
        Its layers are taken.
    returned_layers : sequence of int
        Stages, 1 to 4, that the pyramid stands on, in rising order.
    out_channels : int
        Channels of every level.

    Attributes
    ----------
    body : FeatureLayers
    fpn : FeaturePyramidNetwork
    out_channels : int
    pooled_names : tuple of str
        Keys of the maps that objects are pooled from: all but ``"pool"``.
    """

    def __init__(self, resnet, returned_layers=(1, 2, 3, 4), out_channels=256):
        super().__init__()
        returned_layers = _checked_layers(returned_layers)
        self.body = FeatureLayers(resnet, returned_layers)
        self.fpn = FeaturePyramidNetwork([resnet.stage_channels[n - 1] for n in returned_layers], out_channels)
        self.out_channels = out_channels
        self.pooled_names = tuple(self.body.returned.values())

    def forward(self, x):
        """Return a dictionary of maps for pictures ``(N, 3, H, W)``: ``"0"``, the finest, to the coarsest, ``"pool"``.

        With all four stages they have 1/4, 1/8, 1/16, 1/32 and 1/64 of the picture's height and width.
        """
        return self.fpn(self.body(x))


class SingleLevelBackbone(nn.Module):
    """A residual network up to one stage: one map, as in the first Faster R-CNN.

    Parameters
    ----------
    resnet : ResNet
        Its layers are taken.
    returned_layer : int
        The last stage, 1 to 4; the map has a stride of 4, 8, 16 or 32 pixels.

    Attributes
    ----------
    body : FeatureLayers
    out_channels : int
    pooled_names : tuple of str
        ``("0",)``.
    """

    def __init__(self, resnet, returned_layer=3):
        super().__init__()
        (returned_layer,) = _checked_layers((returned_layer,))
        self.body = FeatureLayers(resnet, (returned_layer,))
        self.out_channels = resnet.stage_channels[returned_layer - 1]
        self.pooled_names = ("0",)

    def forward(self, x):
        """Return ``{"0": (N, out_channels, h, w)}`` for pictures ``(N, 3, H, W)``."""
        return self.body(x)


def freeze_layers(backbone, trainable_layers):
    """Stop training the first layers of a backbone.

    Parameters
    ----------
    backbone : BackboneWithFPN or SingleLevelBackbone
        Whose ``body`` is meant.
    trainable_layers : int
        From 0 to 5: how many of layer4, layer3, layer2, layer1 and the stem go on training, in this order.

    Raises
    ------
    ValueError
        If the number is another.
    """
    if trainable_layers not in range(6):
        raise ValueError(f"trainable_layers is {trainable_layers!r}; expected a whole number from 0 to 5")
    order = ("layer4", "layer3", "layer2", "layer1", "conv1")[:trainable_layers]
    trained = (*order, "bn1") if trainable_layers == 5 else order
    for name, module in backbone.body.named_children():
        if name not in trained:
            module.requires_grad_(False)


def _checked_layers(layers):
    """Return stages as a tuple, or raise ValueError."""
    layers = tuple(layers)
    if not layers or any(n not in (1, 2, 3, 4) for n in layers) or list(layers) != sorted(set(layers)):
        raise ValueError(f"returned_layers is {layers!r}; expected stages from 1 to 4, in rising order")
    return layers
