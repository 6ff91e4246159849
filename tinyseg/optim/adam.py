"""Adam, and AdamW."""

import numpy as np

from tinyseg.optim.optimizer import Optimizer


class Adam(Optimizer):
    """Adam (Kingma and Ba, 2015), with PyTorch's arguments and formulas.

    Parameters
    ----------
    params : iterable of Tensor, or of dict
        Parameters, or groups of them.
    lr : float
        Learning rate.
    betas : (float, float)
        How slowly the running means of the gradient and of its square forget.
    eps : float
        Added to the root of the mean square.
    weight_decay : float
        Factor of the parameter that is added to its gradient.
    amsgrad : bool
        Divide by the largest mean square so far (Reddi et al., 2018).
    maximize : bool
        Climb instead.

    Raises
    ------
    ValueError
        If a setting is out of range.
    """

    def __init__(
        self, params, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, amsgrad=False, *, maximize=False
    ):
        settings = {
            "lr": lr,
            "betas": tuple(betas),
            "eps": eps,
            "weight_decay": weight_decay,
            "amsgrad": amsgrad,
            "maximize": maximize,
        }
        super().__init__(params, settings)

    def decay(self, values, gradient, group):
        """Return the gradient with weight decay in it."""
        return gradient + group["weight_decay"] * values if group["weight_decay"] else gradient

    def update(self, values, gradient, state, group):
        """Take one step."""
        beta1, beta2 = group["betas"]
        gradient = self.decay(values, gradient, group)
        if not state:
            state["step"] = 0
            state["exp_avg"] = np.zeros_like(values)
            state["exp_avg_sq"] = np.zeros_like(values)
            if group["amsgrad"]:
                state["max_exp_avg_sq"] = np.zeros_like(values)
        state["step"] += 1
        mean, mean_square = state["exp_avg"], state["exp_avg_sq"]
        mean += (1 - beta1) * (gradient - mean)
        mean_square *= beta2
        mean_square += (1 - beta2) * gradient * gradient
        if group["amsgrad"]:
            np.maximum(state["max_exp_avg_sq"], mean_square, out=state["max_exp_avg_sq"])
            mean_square = state["max_exp_avg_sq"]
        # both means start at 0: make up for what they lack
        correction1, correction2 = 1 - beta1 ** state["step"], 1 - beta2 ** state["step"]
        scale = np.sqrt(mean_square, out=np.empty_like(values))  # out: an array also for a single number
        scale /= correction2**0.5
        scale += group["eps"]
        np.divide(mean, scale, out=scale)
        scale *= group["lr"] / correction1
        values -= scale


class AdamW(Adam):
    """Adam with weight decay apart from the gradient (Loshchilov and Hutter, 2019), as in PyTorch.

    Parameters
    ----------
    params : iterable of Tensor, or of dict
        Parameters, or groups of them.
    lr : float
        Learning rate.
    betas : (float, float)
        How slowly the running means of the gradient and of its square forget.
    eps : float
        Added to the root of the mean square.
    weight_decay : float
        Share of the parameter that is taken off at each step, times ``lr``.
    amsgrad : bool
        Divide by the largest mean square so far.
    maximize : bool
        Climb instead.

    Raises
    ------
    ValueError
        If a setting is out of range.
    """

    def __init__(
        self, params, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=1e-2, amsgrad=False, *, maximize=False
    ):
        super().__init__(params, lr, betas, eps, weight_decay, amsgrad, maximize=maximize)

    def decay(self, values, gradient, group):
        """Shrink the parameter itself; return the gradient as it is."""
        values *= 1 - group["lr"] * group["weight_decay"]
        return gradient
