"""Adam, and AdamW."""

import numpy as np

from tinyseg.backend import kernel
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

    #: Whether weight decay shrinks the parameter itself.
    decoupled = False

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

    def update(self, values, gradients, states, group):
        """Take one step."""
        names = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq") if group["amsgrad"] else ("exp_avg", "exp_avg_sq")
        for state, array in zip(states, values, strict=True):
            state["step"] = state.get("step", 0) + 1
            for name in names:
                if name not in state:
                    state[name] = np.zeros_like(array)
        means, squares, *largest = ([state[name] for state in states] for name in names)
        kernel("adam_step")(
            values,
            gradients,
            means,
            squares,
            largest[0] if largest else None,
            [state["step"] for state in states],
            group["lr"],
            *group["betas"],
            group["eps"],
            group["weight_decay"],
            self.decoupled,
            group["maximize"],
        )


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

    decoupled = True

    def __init__(
        self, params, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=1e-2, amsgrad=False, *, maximize=False
    ):
        super().__init__(params, lr, betas, eps, weight_decay, amsgrad, maximize=maximize)
