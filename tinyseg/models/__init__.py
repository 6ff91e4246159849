"""The networks."""

from tinyseg.models.unet import UNet

__all__ = ["UNet"]
