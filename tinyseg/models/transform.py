"""What happens to pictures before a detector sees them, and to its results afterwards."""

import math
from dataclasses import dataclass

import numpy as np

from tinyseg import nn, ops, random
from tinyseg.backend import device_of, host_work, moved
from tinyseg.tensor import Tensor, array_of, tensor_over


@dataclass
class ImageList:
    """Pictures of different sizes as one batch.

    Attributes
    ----------
    tensors : Tensor
        ``(N, C, H, W)``: the pictures, each at the top left, zeros below and to its right.
    image_sizes : list of (int, int)
        Height and width of each picture.
    """

    tensors: Tensor
    image_sizes: list


class GeneralizedRCNNTransform(nn.Module):
    """Normalises pictures, resizes them with their truth, and joins them to a batch; and takes results back.

    Parameters
    ----------
    min_size : int, sequence of int, or None
        Length of the shorter side after resizing. Of several one is drawn at random in training, and the last is used
        in evaluation. None: pictures keep their size.
    max_size : int or None
        Bound of the longer side: it wins over ``min_size``. None: no bound.
    image_mean, image_std : sequence of float
        Subtracted from, then divided into, each channel.
    size_divisible : int
        Height and width of the batch are rounded up to multiples of it.

    Raises
    ------
    ValueError
        If a size is below 1 or the channels of mean and deviation differ.

    Notes
    -----
    As torchvision's class of this name: bilinear for pictures, nearest for masks.
    """

    def __init__(self, min_size, max_size, image_mean, image_std, size_divisible=32):
        super().__init__()
        sizes = min_size if isinstance(min_size, list | tuple) else (min_size,)
        for name, values in (("min_size", sizes), ("max_size", (max_size,)), ("size_divisible", (size_divisible,))):
            if not values or any(value is not None and not value >= 1 for value in values):
                raise ValueError(f"{name} is {values!r}; expected at least 1 pixel")
        if len(image_mean) != len(image_std) or not all(deviation > 0 for deviation in image_std):
            raise ValueError(
                f"image_mean is {image_mean!r} and image_std {image_std!r}; expected one number a channel, "
                "deviations above 0"
            )
        self.min_size, self.max_size = tuple(sizes), max_size
        self.image_mean, self.image_std = tuple(image_mean), tuple(image_std)
        self.size_divisible = size_divisible

    def forward(self, images, targets=None, generator=None):
        """Return the batch, and the truth that goes with it.

        Parameters
        ----------
        images : list of Tensor, ndarray or DeviceArray
            ``(C, H, W)`` floats, usually in [0, 1]; all of them on the host, or all on the device.
        targets : list of dict of ndarray, optional
            ``boxes`` ``(K, 4)`` in pixels, and where there are ``masks`` ``(K, H, W)``; left as they are.
        generator : numpy.random.Generator, optional
            Draws the size in training; tinyseg's own if left out.

        Returns
        -------
        images : ImageList
        targets : list of dict of ndarray, or None
            Boxes and masks in pixels of the resized pictures.
        """
        images = [self._normalised(image) for image in images]
        if targets is not None:
            targets = [dict(target) for target in targets]
        for i, image in enumerate(images):
            height, width = image.shape[1:]
            images[i] = self._resized(image, generator)
            if targets is not None:
                self._resize_target(targets[i], (height, width), images[i].shape[1:])
        sizes = [image.shape[1:] for image in images]
        return ImageList(self._batch(images), sizes), targets

    def _normalised(self, image):
        """Return an array (C, H, W), normalised in its own type."""
        array = array_of(image)
        if array.ndim != 3 or array.shape[0] != len(self.image_mean) or 0 in array.shape:
            raise ValueError(f"a picture has shape {array.shape}; expected ({len(self.image_mean)}, H, W) with pixels")
        if array.dtype not in (np.float32, np.float64):
            raise TypeError(f"a picture has dtype {array.dtype}; expected float32 or float64, usually from 0 to 1")
        numbers = np.array([self.image_mean, self.image_std], array.dtype)[:, :, None, None]
        numbers = moved(numbers, device_of(array))
        return (array - numbers[0]) / numbers[1]

    def _resized(self, image, generator):
        """Return a picture at the size of this transform."""
        sizes = self.min_size
        if self.training and len(sizes) > 1:
            wanted = sizes[(random.generator() if generator is None else generator).integers(len(sizes))]
        else:
            wanted = sizes[-1]
        height, width = image.shape[1:]
        factors = [wanted / min(height, width)] if wanted is not None else [1.0]
        if self.max_size is not None:
            factors.append(self.max_size / max(height, width))
        size = math.floor(height * min(factors)), math.floor(width * min(factors))
        if 0 in size:
            raise ValueError(f"a picture of {height}x{width} pixels becomes {size[0]}x{size[1]}; expected some pixels")
        if size == (height, width):
            return image  # interpolation at a factor of 1 gives the same numbers
        return ops.interpolate(tensor_over(image[None]), size=size, mode="bilinear").array[0]

    @staticmethod
    def _resize_target(target, before, after):
        """Bring boxes and masks, in place of those in ``target``, to the new size of their picture."""
        target["boxes"] = resize_boxes(target["boxes"], before, after)
        masks = target.get("masks")
        if masks is not None and masks.shape[1:] != tuple(after):
            rows, columns = (_nearest(old, new) for old, new in zip(before, after, strict=True))
            target["masks"] = masks[:, rows[:, None], columns]

    def _batch(self, images):
        """Return pictures of different sizes as one tensor, zeros where there is no picture."""
        height, width = (
            -(-max(image.shape[axis] for image in images) // self.size_divisible) * self.size_divisible
            for axis in (1, 2)
        )
        shape = len(images), images[0].shape[0], height, width
        batch = np.zeros(shape, images[0].dtype, like=images[0])
        for n, image in enumerate(images):
            batch[n, :, : image.shape[1], : image.shape[2]] = image
        return tensor_over(batch)

    def extra_repr(self):
        """Return the settings."""
        return (
            f"min_size={self.min_size}, max_size={self.max_size}, image_mean={self.image_mean}, "
            f"image_std={self.image_std}, size_divisible={self.size_divisible}"
        )


@host_work()
def _nearest(old, new):
    """Return which of ``old`` pixels in a row each of ``new`` ones takes its value from."""
    row = np.arange(old, dtype=np.float32).reshape(1, 1, 1, old)
    return ops.interpolate(Tensor(row), size=(1, new), mode="nearest").array.ravel().astype(np.int64)


def resize_boxes(boxes, before, after):
    """Return boxes in the pixels of a resized picture.

    Parameters
    ----------
    boxes : ndarray, shape (N, 4)
        Boxes (x1, y1, x2, y2), of a floating type.
    before, after : (int, int)
        Height and width of the picture, before and after.

    Returns
    -------
    ndarray, shape (N, 4)
    """
    y, x = (np.float32(new) / np.float32(old) for old, new in zip(before, after, strict=True))
    return boxes * np.array([x, y, x, y], boxes.dtype)
