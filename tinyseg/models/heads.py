"""The small networks that look at pooled proposals: vectors, classes, boxes and masks."""

from tinyseg import nn, ops
from tinyseg.models import old_names


class TwoMLPHead(nn.Module):
    """Two linear layers with ReLU: what is in a proposal, as a vector.

    Parameters
    ----------
    in_channels : int
        Values of a pooled proposal: channels times bins.
    representation_size : int
        Values of the vector.
    """

    def __init__(self, in_channels, representation_size):
        super().__init__()
        self.fc6 = nn.Linear(in_channels, representation_size)
        self.fc7 = nn.Linear(representation_size, representation_size)

    def forward(self, x):
        """Return ``(R, representation_size)`` for pooled proposals ``(R, C, h, w)``."""
        return ops.relu(self.fc7(ops.relu(self.fc6(ops.flatten(x, 1)))))


class FastRCNNPredictor(nn.Module):
    """Class and box of each proposal.

    Parameters
    ----------
    in_channels : int
        Values of a proposal's vector.
    num_classes : int
        Classes with the background.
    """

    def __init__(self, in_channels, num_classes):
        super().__init__()
        self.cls_score = nn.Linear(in_channels, num_classes)
        self.bbox_pred = nn.Linear(in_channels, 4 * num_classes)

    def forward(self, x):
        """Return class scores ``(R, num_classes)`` and box codes ``(R, 4 * num_classes)``."""
        x = ops.flatten(x, 1)
        return self.cls_score(x), self.bbox_pred(x)


class MaskRCNNHeads(nn.Sequential):
    """Convolutions 3x3 with ReLU on each pooled proposal.

    Parameters
    ----------
    in_channels : int
        Channels of a pooled proposal.
    layers : sequence of int
        Channels of each convolution.
    """

    def __init__(self, in_channels, layers=(256, 256, 256, 256)):
        befores = (in_channels, *layers)
        super().__init__(
            *(
                nn.Sequential(nn.Conv2d(before, after, 3, padding=1), nn.ReLU())
                for before, after in zip(befores, layers, strict=False)
            )
        )
        self.old_keys = old_names.mask_head(len(layers))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                nn.init.zeros_(module.bias)


class MaskRCNNPredictor(nn.Sequential):
    """Twice the size by a transposed convolution, then one mask for each class.

    Parameters
    ----------
    in_channels, dim_reduced : int
        Channels before and after the transposed convolution.
    num_classes : int
        Classes with the background.
    """

    def __init__(self, in_channels, dim_reduced, num_classes):
        super().__init__(
            {
                "conv5_mask": nn.ConvTranspose2d(in_channels, dim_reduced, 2, stride=2),
                "relu": nn.ReLU(),
                "mask_fcn_logits": nn.Conv2d(dim_reduced, num_classes, 1),
            }
        )
        for name, parameter in self.named_parameters():
            if name.endswith("weight"):
                nn.init.kaiming_normal_(parameter, mode="fan_out", nonlinearity="relu")
