"""U-Net: a picture goes down to few, rich pixels and up again, with a copy of each level handed across.

After the article whose parameter names it keeps: convolutions with padding, so the output has the input's size, and a
BatchNorm after each; the shape of the net is that of Ronneberger, Fischer and Brox (2015).
"""

from tinyseg import nn, ops
from tinyseg.nn.fused import conv_norm
from tinyseg.tensor import Tensor


class DoubleConv(nn.Module):
    """Twice: convolution 3x3, BatchNorm, ReLU.

    Parameters
    ----------
    in_channels, out_channels : int
        Channels of input and output.
    """

    def __init__(self, in_channels, out_channels):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.bn2 = nn.BatchNorm2d(out_channels)

    def forward(self, x, more=None):
        """Return ``(N, out_channels, H, W)`` for ``(N, in_channels, H, W)``, perhaps in two halves."""
        return conv_norm(self.conv2, self.bn2, conv_norm(self.conv1, self.bn1, x, more=more))


class UpConv(nn.Module):
    """Transposed convolution 2x2 with stride 2, which doubles height and width; BatchNorm, ReLU.

    Parameters
    ----------
    in_channels, out_channels : int
        Channels of input and output.
    """

    def __init__(self, in_channels, out_channels):
        super().__init__()
        self.conv1 = nn.ConvTranspose2d(in_channels, out_channels, 2, stride=2)
        self.bn1 = nn.BatchNorm2d(out_channels)

    def forward(self, x):
        """Return ``(N, out_channels, 2 H, 2 W)`` for ``(N, in_channels, H, W)``."""
        return conv_norm(self.conv1, self.bn1, x)


class UNet(nn.Module):
    """U-Net for pictures of any size.

    Parameters
    ----------
    in_channels : int
        Channels of the picture: 1 for grey, 3 for colour.
    out_channels : int
        1 for foreground against background, otherwise the number of classes.
    widths : sequence of int
        Channels of each level, from full size down; every level halves height and width. The default is the
        article's.

    Attributes
    ----------
    layer1_conv, ..., deconv1, ..., layer10_conv : Module
        With D levels: ``layer1_conv`` to ``layerD_conv`` down; ``deconv1`` with the layer after ``layerD_conv``, and so
        on, up; the last layer, number 2 D, makes the scores.

    Raises
    ------
    ValueError
        If there are no levels, or a number of channels is below 1.

    Notes
    -----
    Where height or width is no multiple of ``2 ** (D - 1)``, the picture is padded at the bottom and right, by
    reflection (where it is too small for that, by repeating its border), and the result cropped.

    Examples
    --------
    >>> import tinyseg
    >>> model = tinyseg.models.UNet(in_channels=3, out_channels=4, widths=(4, 8))
    >>> sum(parameter.size for parameter in model.parameters())
    1932
    """

    def __init__(self, in_channels=1, out_channels=1, widths=(8, 16, 32, 64, 128)):
        super().__init__()
        widths = tuple(widths)
        if not widths:
            raise ValueError("widths is empty; expected the number of channels of at least one level")
        self.in_channels, self.out_channels, self.widths = in_channels, out_channels, widths
        depth = len(widths)
        for level, (before, width) in enumerate(zip((in_channels, *widths), widths, strict=False), 1):
            self.add_module(f"layer{level}_conv", DoubleConv(before, width))
        for step, (below, width) in enumerate(zip(widths[:0:-1], widths[-2::-1], strict=True), 1):
            # computed the other way round; this is the order of the article's state dict
            self.add_module(f"layer{depth + step}_conv", DoubleConv(2 * width, width))
            self.add_module(f"deconv{step}", UpConv(below, width))
        self.add_module(f"layer{2 * depth}_conv", nn.Conv2d(widths[0], out_channels, 3, padding=1))

    def _layer(self, number):
        return getattr(self, f"layer{number}_conv")

    def logits(self, x):
        """Return the raw scores.

        Parameters
        ----------
        x : Tensor
            Pictures ``(N, in_channels, H, W)``, H and W at least 1.

        Returns
        -------
        Tensor
            ``(N, out_channels, H, W)``.

        Raises
        ------
        ValueError
            If the shape does not fit.
        """
        if x.ndim != 4 or x.shape[1] != self.in_channels or 0 in x.shape[2:]:
            raise ValueError(f"x has shape {x.shape}; expected (N, {self.in_channels}, H, W) with pixels")
        x = x if isinstance(x, Tensor) else Tensor(x)
        height, width = x.shape[2:]
        x = pad_to_multiple(x, 2 ** (len(self.widths) - 1))
        depth = len(self.widths)
        across = []  # what each level hands over to the way up
        for level in range(1, depth):
            x = self._layer(level)(x)
            across.append(x)
            x = ops.max_pool2d(x, 2)
        x = self._layer(depth)(x)
        for step in range(1, depth):
            x = getattr(self, f"deconv{step}")(x)
            x = self._layer(depth + step)(x, across.pop())
        x = self._layer(2 * depth)(x)
        return x if x.shape[2:] == (height, width) else x[:, :, :height, :width]

    def forward(self, x):
        """Return probabilities.

        Parameters
        ----------
        x : Tensor
            Pictures ``(N, in_channels, H, W)``.

        Returns
        -------
        Tensor
            ``(N, out_channels, H, W)``: the sigmoid of the scores where ``out_channels`` is 1, otherwise their
            softmax over the channels.
        """
        scores = self.logits(x)
        return ops.sigmoid(scores) if self.out_channels == 1 else ops.softmax(scores, dim=1)


def pad_to_multiple(x, multiple):
    """Pad pictures at the bottom and right to a height and width that ``multiple`` divides.

    Parameters
    ----------
    x : Tensor
        ``(N, C, H, W)``, H and W at least 1.
    multiple : int
        At least 1.

    Returns
    -------
    Tensor
        ``x`` itself where nothing is missing; otherwise padded by reflection, or by repeating the border along an
        axis that is too short to be mirrored.
    """
    bottom, right = (-size % multiple for size in x.shape[2:])
    for size, amount, border in ((x.shape[2], bottom, (0, 0, 0, bottom)), (x.shape[3], right, (0, right, 0, 0))):
        if amount:
            x = ops.pad(x, border, mode="reflect" if amount < size else "replicate")
    return x
