"""Residual networks (He, Zhang, Ren and Sun, arXiv:1512.03385): each block adds a correction to what came in.

The stride of a bottleneck sits in its 3x3 convolution, and the parameter names are those of torchvision, so that its
weights fit.
"""

from tinyseg import nn, ops
from tinyseg.nn.fused import conv_norm


class BasicBlock(nn.Module):
    """Two convolutions 3x3 beside a shortcut.

    Parameters
    ----------
    in_channels, channels : int
        Channels of the input and of the convolutions.
    stride : int
        Of the first convolution.
    norm : callable
        Makes the normalisation for a number of channels.
    """

    expansion = 1

    def __init__(self, in_channels, channels, stride=1, norm=nn.BatchNorm2d):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, padding=1, bias=False)
        self.bn1 = norm(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = norm(channels)
        self.downsample = _shortcut(in_channels, channels, stride, norm)

    def forward(self, x):
        """Return ``(N, channels, H / stride, W / stride)`` for ``(N, in_channels, H, W)``."""
        y = conv_norm(self.conv1, self.bn1, x)
        return conv_norm(self.conv2, self.bn2, y, residual=x if self.downsample is None else self.downsample(x))


class Bottleneck(nn.Module):
    """Convolution 1x1 to few channels, 3x3 among them, 1x1 to four times as many; beside a shortcut.

    Parameters
    ----------
    in_channels, channels : int
        Channels of the input and of the 3x3 convolution.
    stride : int
        Of the 3x3 convolution.
    norm : callable
        Makes the normalisation for a number of channels.
    """

    expansion = 4

    def __init__(self, in_channels, channels, stride=1, norm=nn.BatchNorm2d):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 1, bias=False)
        self.bn1 = norm(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride, padding=1, bias=False)
        self.bn2 = norm(channels)
        self.conv3 = nn.Conv2d(channels, 4 * channels, 1, bias=False)
        self.bn3 = norm(4 * channels)
        self.downsample = _shortcut(in_channels, 4 * channels, stride, norm)

    def forward(self, x):
        """Return ``(N, 4 * channels, H / stride, W / stride)`` for ``(N, in_channels, H, W)``."""
        y = conv_norm(self.conv1, self.bn1, x)
        y = conv_norm(self.conv2, self.bn2, y)
        return conv_norm(self.conv3, self.bn3, y, residual=x if self.downsample is None else self.downsample(x))


def _shortcut(in_channels, out_channels, stride, norm):
    """Return what brings the input to the size of the output, or None where nothing has to change."""
    if stride == 1 and in_channels == out_channels:
        return None
    return nn.Sequential(nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), norm(out_channels))


class ResNet(nn.Module):
    """A residual network that classifies pictures; detectors take its layers as backbone.

    Parameters
    ----------
    block : type
        `BasicBlock` or `Bottleneck`.
    layers : sequence of int
        Blocks in each of the four stages.
    num_classes : int
        Classes.
    width : int
        Channels of the stem and of the first stage's blocks; each later stage has twice as many.
    norm_layer : callable, optional
        Makes the normalisation for a number of channels; `tinyseg.nn.BatchNorm2d` if left out.

    Attributes
    ----------
    conv1, bn1, relu, maxpool : Module
        The stem: a quarter of the picture's height and width.
    layer1, layer2, layer3, layer4 : Sequential
        The stages; each but the first halves height and width.
    fc : Linear
        Scores of the classes from the mean over the last map.
    stage_channels : tuple of int
        Channels that each stage gives.

    Raises
    ------
    ValueError
        If ``layers`` does not have four entries.
    """

    def __init__(self, block, layers, num_classes=1000, *, width=64, norm_layer=None):
        super().__init__()
        if len(layers) != 4:
            raise ValueError(f"layers is {layers!r}; expected the number of blocks of each of four stages")
        norm = nn.BatchNorm2d if norm_layer is None else norm_layer
        self.conv1 = nn.Conv2d(3, width, 7, 2, padding=3, bias=False)
        self.bn1 = norm(width)
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool2d(3, 2, padding=1)
        self.stage_channels = tuple(width * 2**stage * block.expansion for stage in range(4))
        before = width
        for stage, blocks in enumerate(layers):
            channels, stride = width * 2**stage, 1 if stage == 0 else 2
            made = [block(before, channels, stride, norm)]
            before = channels * block.expansion
            made += [block(before, channels, 1, norm) for _ in range(1, blocks)]
            self.add_module(f"layer{stage + 1}", nn.Sequential(*made))
        self.fc = nn.Linear(before, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x):
        """Return scores ``(N, num_classes)`` for pictures ``(N, 3, H, W)``."""
        x = self.maxpool(conv_norm(self.conv1, self.bn1, x))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(ops.mean(x, axis=(2, 3)))


def resnet18(num_classes=1000, *, width=64, norm_layer=None):
    """Return a residual network of 18 layers: basic blocks, 2 in each stage.

    Parameters
    ----------
    num_classes, width, norm_layer
        See `ResNet`.

    Returns
    -------
    ResNet
    """
    return ResNet(BasicBlock, (2, 2, 2, 2), num_classes, width=width, norm_layer=norm_layer)


def resnet34(num_classes=1000, *, width=64, norm_layer=None):
    """Return a residual network of 34 layers: basic blocks, 3, 4, 6 and 3.

    Parameters
    ----------
    num_classes, width, norm_layer
        See `ResNet`.

    Returns
    -------
    ResNet
    """
    return ResNet(BasicBlock, (3, 4, 6, 3), num_classes, width=width, norm_layer=norm_layer)


def resnet50(num_classes=1000, *, width=64, norm_layer=None):
    """Return a residual network of 50 layers: bottlenecks, 3, 4, 6 and 3.

    Parameters
    ----------
    num_classes, width, norm_layer
        See `ResNet`.

    Returns
    -------
    ResNet
    """
    return ResNet(Bottleneck, (3, 4, 6, 3), num_classes, width=width, norm_layer=norm_layer)


def resnet101(num_classes=1000, *, width=64, norm_layer=None):
    """Return a residual network of 101 layers: bottlenecks, 3, 4, 23 and 3.

    Parameters
    ----------
    num_classes, width, norm_layer
        See `ResNet`.

    Returns
    -------
    ResNet
    """
    return ResNet(Bottleneck, (3, 4, 23, 3), num_classes, width=width, norm_layer=norm_layer)
