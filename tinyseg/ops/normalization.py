"""Batch normalisation, alone or with what usually follows it."""

from tinyseg.backend import has_kernel, kernel
from tinyseg.function import Function
from tinyseg.ops.activation import relu


class BatchNorm(Function):
    gradients_are_new = True

    def forward(self, x, weight, bias, *, running_mean, running_var, training, momentum, eps):
        y, mean, inv_std = kernel("batch_norm_forward")(
            x, weight, bias, running_mean, running_var, training, momentum, eps
        )
        if mean is running_mean:  # the buffer will move on; backward needs what was used
            mean = mean.copy()
        self.saved = x, weight, mean, inv_std
        self.training = training
        return y

    def backward(self, dy):
        x, weight, mean, inv_std = self.saved
        return kernel("batch_norm_backward")(dy, x, weight, mean, inv_std, self.training)


def batch_norm(input, running_mean, running_var, weight=None, bias=None, training=False, momentum=0.1, eps=1e-5):
    """Normalise each channel to mean 0 and variance 1, then scale and shift it. Arguments follow PyTorch.

    Parameters
    ----------
    input : Tensor
        ``(N, C, H, W)``.
    running_mean, running_var : Tensor or None
        ``(C,)``. Used where ``training`` is False; updated in place where it is True, the variance with its unbiased
        estimate. None only in training.
    weight, bias : Tensor, optional
        ``(C,)``: scale and shift.
    training : bool
        Normalise with the batch's own mean and variance.
    momentum : float
        Weight of the batch in the running statistics.
    eps : float
        Added to the variance.

    Returns
    -------
    Tensor
        ``(N, C, H, W)``.

    Raises
    ------
    ValueError
        If shapes do not fit, or in training a channel has one value only.
    """
    _check_running(running_mean, running_var)
    y = BatchNorm.apply(
        input,
        weight,
        bias,
        running_mean=None if running_mean is None else running_mean.array,
        running_var=None if running_var is None else running_var.array,
        training=training,
        momentum=momentum,
        eps=eps,
    )
    _note_update(running_mean, running_var, training)
    return y


class BatchNormRelu(Function):
    gradients_are_new = True

    def forward(self, x, weight, bias, residual, *, running_mean, running_var, training, momentum, eps):
        y, statistics = kernel("batch_norm_relu_forward")(
            x, weight, bias, running_mean, running_var, training, momentum, eps, residual
        )
        self.saved = x, statistics, None if residual is None else y
        self.training = training
        return y

    def backward(self, dy):
        x, statistics, y = self.saved
        affine = self.needs[1] or self.needs[2]
        return kernel("batch_norm_relu_backward")(dy, x, statistics, self.training, y, affine)


def batch_norm_relu(
    input,
    running_mean,
    running_var,
    weight=None,
    bias=None,
    training=False,
    momentum=0.1,
    eps=1e-5,
    residual=None,
):
    """Return ``relu(batch_norm(input) + residual)``: the same numbers as the three operators, in less time and memory.

    Parameters
    ----------
    input, running_mean, running_var, weight, bias, training, momentum, eps
        As in `batch_norm`.
    residual : Tensor, optional
        ``(N, C, H, W)``: what is added before the ReLU.

    Returns
    -------
    Tensor
        ``(N, C, H, W)``.

    Raises
    ------
    ValueError
        As in `batch_norm`; if ``residual`` does not have the shape of ``input``.
    """
    if residual is not None and residual.shape != input.shape:
        raise ValueError(f"residual has shape {residual.shape}; expected {input.shape}, the shape of input")
    if not has_kernel("batch_norm_relu_forward", input):
        y = batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)
        return relu(y if residual is None else y + residual)
    _check_running(running_mean, running_var)
    y = BatchNormRelu.apply(
        input,
        weight,
        bias,
        residual,
        running_mean=None if running_mean is None else running_mean.array,
        running_var=None if running_var is None else running_var.array,
        training=training,
        momentum=momentum,
        eps=eps,
    )
    _note_update(running_mean, running_var, training)
    return y


def _check_running(running_mean, running_var):
    """Refuse running statistics that gradients are wanted of."""
    for name, running in (("running_mean", running_mean), ("running_var", running_var)):
        if running is not None and running.requires_grad:
            raise ValueError(f"{name} requires gradients; expected running statistics without")


def _note_update(running_mean, running_var, training):
    """Count the change that training makes to running statistics."""
    if training and running_mean is not None and running_var is not None:
        running_mean.mark_changed()
        running_var.mark_changed()
