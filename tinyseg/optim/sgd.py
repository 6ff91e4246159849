"""Stochastic gradient descent."""

import numpy as np

from tinyseg.backend import kernel
from tinyseg.optim.optimizer import Optimizer


class SGD(Optimizer):
    """Stochastic gradient descent with momentum, with PyTorch's arguments and formulas.

    Parameters
    ----------
    params : iterable of Tensor, or of dict
        Parameters, or groups of them.
    lr : float
        Learning rate.
    momentum : float
        Share of the last step's direction that is kept.
    dampening : float
        Share of the gradient that is left out of the direction.
    weight_decay : float
        Factor of the parameter that is added to its gradient.
    nesterov : bool
        Look one step of momentum ahead (Sutskever et al., 2013). Needs momentum, and no dampening.
    maximize : bool
        Climb instead.

    Raises
    ------
    ValueError
        If a setting is out of range.
    """

    def __init__(
        self, params, lr=1e-3, momentum=0.0, dampening=0.0, weight_decay=0.0, nesterov=False, *, maximize=False
    ):
        settings = {
            "lr": lr,
            "momentum": momentum,
            "dampening": dampening,
            "weight_decay": weight_decay,
            "nesterov": nesterov,
            "maximize": maximize,
        }
        super().__init__(params, settings)

    def check(self, group):
        """Check the settings of a group."""
        super().check(group)
        if group["nesterov"] and (group["momentum"] <= 0 or group["dampening"] != 0):
            raise ValueError("nesterov is True; expected a momentum above 0 and dampening 0 with it")

    def update(self, values, gradients, states, group):
        """Take one step."""
        settings = {name: group[name] for name in self.defaults}
        if not group["momentum"]:
            kernel("sgd_step")(values, gradients, **settings)
            return
        fresh = ["momentum_buffer" not in state for state in states]
        for state, array in zip(states, values, strict=True):
            if "momentum_buffer" not in state:
                state["momentum_buffer"] = np.zeros_like(array)
        kernel("sgd_step")(values, gradients, [state["momentum_buffer"] for state in states], fresh, **settings)
