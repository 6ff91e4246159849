"""What the optimisers share: groups of parameters with their settings, and a state per parameter."""

import numpy as np

from tinyseg.backend import is_on_device, moved
from tinyseg.tensor import Tensor


class Optimizer:
    """Changes parameters by their gradients. Subclasses say how, in ``update``.

    Parameters
    ----------
    params : iterable of Tensor, or of dict
        The parameters; or groups of them, each a dictionary with the key ``"params"`` and settings of its own.
    defaults : dict
        Settings of the groups that do not name their own.

    Attributes
    ----------
    param_groups : list of dict
        Per group the ``"params"`` and the settings, ``"lr"`` among them. They may be changed between steps.
    state : dict
        Per parameter what the optimiser remembers of past steps.

    Raises
    ------
    TypeError, ValueError
        If there are no parameters, one is no leaf that requires gradients, or one comes twice.
    """

    def __init__(self, params, defaults):
        if isinstance(params, Tensor | dict):
            raise TypeError(f"params is a {type(params).__name__}; expected a list of parameters or of groups")
        params = list(params)
        if not params:
            raise ValueError("params is empty; expected at least one parameter")
        self.defaults = defaults
        self.param_groups = []
        self.state = {}
        for group in params if isinstance(params[0], dict) else [{"params": params}]:
            self.add_param_group(group)

    def add_param_group(self, group):
        """Add parameters with settings of their own.

        Parameters
        ----------
        group : dict
            ``{"params": [...], "lr": ...}``. Settings that are left out are the optimiser's.
        """
        if "params" not in group:
            raise ValueError(f"a group of parameters has no 'params', only {sorted(group)}")
        unknown = set(group) - {"params", "initial_lr"} - set(self.defaults)
        if unknown:
            raise ValueError(f"a group of parameters has the settings {sorted(unknown)}; known: {list(self.defaults)}")
        params = group["params"]
        params = [params] if isinstance(params, Tensor) else list(params)
        taken = {id(p) for other in self.param_groups for p in other["params"]}
        for parameter in params:
            if not isinstance(parameter, Tensor):
                raise TypeError(f"params has a {type(parameter).__name__}; expected parameters")
            if parameter.dtype.kind != "f" or not parameter.is_leaf:
                raise ValueError(f"params has {parameter!r:.100}; expected a floating-point leaf, no operator's result")
            if id(parameter) in taken:
                raise ValueError(f"params has a parameter of shape {parameter.shape} twice")
            taken.add(id(parameter))
        group = {**self.defaults, **group, "params": params}
        self.check(group)
        self.param_groups.append(group)

    def check(self, group):
        """Check the settings of a group."""
        for name in ("lr", "weight_decay", "eps", "momentum"):
            if not 0 <= group.get(name, 0) < np.inf:
                raise ValueError(f"{name} is {group[name]!r}; expected a number of at least 0")
        for beta in group.get("betas", ()):
            if not 0 <= beta < 1:
                raise ValueError(f"betas is {group['betas']!r}; expected numbers of at least 0 and below 1")

    def zero_grad(self):
        """Set the gradients of all parameters to None."""
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.grad = None

    def step(self):
        """Change each parameter that has a gradient, in place."""
        for group in self.param_groups:
            moving = [parameter for parameter in group["params"] if parameter.grad is not None]
            for dtype in sorted({parameter.dtype for parameter in moving}, key=str):
                self._step([parameter for parameter in moving if parameter.dtype == dtype], group)

    def _step(self, parameters, group):
        """Change parameters of one type and one group."""
        # no copies, unless the layout or the type is unusual
        values = [parameter.array.astype(parameter.dtype, "C", copy=False) for parameter in parameters]
        gradients = [parameter.grad.array.astype(parameter.dtype, copy=False) for parameter in parameters]
        self.update(values, gradients, [self.state.setdefault(parameter, {}) for parameter in parameters], group)
        for parameter, array in zip(parameters, values, strict=True):
            if array is not parameter.array:
                parameter.array[...] = array
            parameter.mark_changed()

    def update(self, values, gradients, states, group):
        """Change the arrays ``values`` in place.

        Parameters
        ----------
        values, gradients : list of numpy.ndarray or kernels.cuda.DeviceArray
            Parameters of one type, C-contiguous, and their gradients, which stay as they are.
        states : list of dict
            Kept for the next step of each parameter; empty at first.
        group : dict
            The settings.
        """
        raise NotImplementedError

    def state_dict(self):
        """Return what is needed to go on later: numbers, strings and NumPy arrays only.

        Returns
        -------
        dict
            ``"state"``: per number of the parameter, counted through the groups, a dictionary of copied arrays and
            numbers. ``"param_groups"``: per group the settings, and under ``"params"`` the numbers of its parameters.
        """
        state, groups, number = {}, [], 0
        for group in self.param_groups:
            settings = {key: value for key, value in group.items() if key != "params"}
            groups.append({**settings, "params": list(range(number, number + len(group["params"])))})
            for parameter in group["params"]:
                if parameter in self.state:
                    state[number] = {key: _copy(value) for key, value in self.state[parameter].items()}
                number += 1
        return {"state": state, "param_groups": groups}

    def load_state_dict(self, state_dict):
        """Go on where ``state_dict`` was taken. Nothing is changed if anything does not fit.

        Parameters
        ----------
        state_dict : dict
            As ``state_dict()`` returns it. The numbers of the parameters may have become strings, as JSON makes them.

        Raises
        ------
        ValueError
            If groups, numbers of parameters or shapes differ.
        """
        groups, states = state_dict["param_groups"], {int(k): v for k, v in state_dict["state"].items()}
        sizes, own = [len(g["params"]) for g in groups], [len(g["params"]) for g in self.param_groups]
        if sizes != own:
            raise ValueError(f"the state has groups of {sizes} parameters; the optimiser has groups of {own}")
        loaded: dict[Tensor, dict] = {}
        parameters = [parameter for group in self.param_groups for parameter in group["params"]]
        for number, parameter in enumerate(parameters):
            for key, value in states.get(number, {}).items():
                array = np.asarray(value)
                if array.ndim and array.shape != parameter.shape:
                    raise ValueError(
                        f"{key!r} of parameter {number} has shape {array.shape}; expected {parameter.shape}"
                    )
                if array.ndim or key not in _COUNTS:
                    value = moved(array.astype(parameter.dtype, order="C"), parameter.device)
                else:
                    value = int(array)
                loaded.setdefault(parameter, {})[key] = value
        self.state = loaded
        for group, settings in zip(self.param_groups, groups, strict=True):
            group.update({k: tuple(v) if isinstance(v, list) else v for k, v in settings.items() if k != "params"})

    def __repr__(self):
        lines = []
        for number, group in enumerate(self.param_groups):
            lines.append(f"  group {number}: {len(group['params'])} parameters")
            lines += [f"    {key}: {value}" for key, value in group.items() if key != "params"]
        return f"{type(self).__name__} (\n" + "\n".join(lines) + "\n)"


#: State that is a whole number, not an array.
_COUNTS = ("step",)


def _copy(value):
    if is_on_device(value):
        return moved(value, "cpu")
    return value.copy() if isinstance(value, np.ndarray) else value
