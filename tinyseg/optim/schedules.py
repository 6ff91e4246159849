"""Learning-rate schedules, with PyTorch's names, arguments and rates.

Each is a formula of the number of steps done, so a schedule that is loaded in the middle goes on exactly.
"""

import math
from bisect import bisect_right

from tinyseg.optim.optimizer import Optimizer


class Schedule:
    """What the schedules share. Making one sets the first rate; ``step()`` after each step (or epoch) sets the next.

    Parameters
    ----------
    optimizer : Optimizer
        Whose ``param_groups`` are set.

    Attributes
    ----------
    last_epoch : int
        How often ``step`` was called.
    base_lrs : list of float
        The rate of each group that the schedule starts from.
    """

    #: What ``state_dict`` holds besides.
    kept: tuple = ()

    def __init__(self, optimizer):
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"optimizer is a {type(optimizer).__name__}; expected an Optimizer")
        self.optimizer = optimizer
        for group in optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])
        self.base_lrs = [group["initial_lr"] for group in optimizer.param_groups]
        self.last_epoch = 0
        self.set_rates()

    def rate(self, base, number):
        """Return the rate of group ``number``, which started from ``base``, after ``last_epoch`` steps."""
        raise NotImplementedError

    def set_rates(self):
        """Set the rate of each group."""
        for number, (group, base) in enumerate(zip(self.optimizer.param_groups, self.base_lrs, strict=True)):
            group["lr"] = float(self.rate(base, number))

    def step(self):
        """Count one step, and set the rates for the next."""
        self.last_epoch += 1
        self.set_rates()

    def get_last_lr(self):
        """Return the rate of each group."""
        return [group["lr"] for group in self.optimizer.param_groups]

    def state_dict(self):
        """Return what is needed to go on later: a dictionary of plain numbers and lists."""
        return {"last_epoch": self.last_epoch, "base_lrs": list(self.base_lrs)}

    def load_state_dict(self, state_dict):
        """Go on where ``state_dict`` was taken, and set the rates of that moment."""
        base_lrs = [float(rate) for rate in state_dict["base_lrs"]]
        if len(base_lrs) != len(self.base_lrs):
            raise ValueError(f"the state has {len(base_lrs)} groups of parameters; expected {len(self.base_lrs)}")
        self.base_lrs, self.last_epoch = base_lrs, int(state_dict["last_epoch"])
        self.set_rates()


class LambdaLR(Schedule):
    """The first rate times what a function makes of the number of steps done.

    Parameters
    ----------
    optimizer : Optimizer
        Whose rates are set.
    lr_lambda : callable, or list of callable
        One for all groups, or one for each. It is not part of ``state_dict``.
    """

    def __init__(self, optimizer, lr_lambda):
        groups = len(optimizer.param_groups)
        self.lr_lambdas = list(lr_lambda) if isinstance(lr_lambda, list | tuple) else [lr_lambda] * groups
        if len(self.lr_lambdas) != groups:
            raise ValueError(f"lr_lambda has {len(self.lr_lambdas)} functions; expected {groups}, one per group")
        super().__init__(optimizer)

    def rate(self, base, number):
        """Return the rate of one group."""
        return base * self.lr_lambdas[number](self.last_epoch)


class StepLR(Schedule):
    """Times ``gamma`` every ``step_size`` steps.

    Parameters
    ----------
    optimizer : Optimizer
        Whose rates are set.
    step_size : int
        Steps from one change to the next.
    gamma : float
        Factor.
    """

    def __init__(self, optimizer, step_size, gamma=0.1):
        if step_size < 1:
            raise ValueError(f"step_size is {step_size}; expected at least 1")
        self.step_size, self.gamma = step_size, gamma
        super().__init__(optimizer)

    def rate(self, base, number):
        """Return the rate of one group."""
        return base * self.gamma ** (self.last_epoch // self.step_size)


class MultiStepLR(Schedule):
    """Times ``gamma`` at each milestone.

    Parameters
    ----------
    optimizer : Optimizer
        Whose rates are set.
    milestones : sequence of int
        Numbers of steps.
    gamma : float
        Factor.
    """

    def __init__(self, optimizer, milestones, gamma=0.1):
        self.milestones, self.gamma = sorted(milestones), gamma
        super().__init__(optimizer)

    def rate(self, base, number):
        """Return the rate of one group."""
        return base * self.gamma ** bisect_right(self.milestones, self.last_epoch)


class ExponentialLR(Schedule):
    """Times ``gamma`` at every step.

    Parameters
    ----------
    optimizer : Optimizer
        Whose rates are set.
    gamma : float
        Factor.
    """

    def __init__(self, optimizer, gamma):
        self.gamma = gamma
        super().__init__(optimizer)

    def rate(self, base, number):
        """Return the rate of one group."""
        return base * self.gamma**self.last_epoch


class LinearLR(Schedule):
    """From ``start_factor`` to ``end_factor`` times the first rate in a straight line: a warm-up.

    Parameters
    ----------
    optimizer : Optimizer
        Whose rates are set.
    start_factor, end_factor : float
        Factors at the first step, and from step ``total_iters`` on.
    total_iters : int
        Length of the line in steps.
    """

    def __init__(self, optimizer, start_factor=1.0 / 3, end_factor=1.0, total_iters=5):
        if not 0 < start_factor <= 1 or not 0 <= end_factor <= 1:
            raise ValueError(
                f"start_factor is {start_factor} and end_factor {end_factor}; expected numbers from 0 to 1"
            )
        self.start_factor, self.end_factor, self.total_iters = start_factor, end_factor, total_iters
        super().__init__(optimizer)

    def rate(self, base, number):
        """Return the rate of one group."""
        done = min(self.last_epoch / self.total_iters, 1.0) if self.total_iters else 1.0
        return base * (self.start_factor + (self.end_factor - self.start_factor) * done)


class CosineAnnealingLR(Schedule):
    """Down along half a cosine in ``T_max`` steps (Loshchilov and Hutter, 2017); beyond that, up again.

    Parameters
    ----------
    optimizer : Optimizer
        Whose rates are set.
    T_max : int
        Steps down to the lowest rate.
    eta_min : float
        The lowest rate.
    """

    def __init__(self, optimizer, T_max, eta_min=0.0):
        if T_max < 1:
            raise ValueError(f"T_max is {T_max}; expected at least 1")
        self.T_max, self.eta_min = T_max, eta_min
        super().__init__(optimizer)

    def rate(self, base, number):
        """Return the rate of one group."""
        return self.eta_min + (base - self.eta_min) * (1 + math.cos(math.pi * self.last_epoch / self.T_max)) / 2


class OneCycleLR(Schedule):
    """Up to ``max_lr``, then down to nearly nothing; momentum the other way round (Smith and Topin, 2018).

    Parameters
    ----------
    optimizer : Optimizer
        Whose rates, and momentum or first beta, are set.
    max_lr : float or list of float
        The highest rate, one for all groups or one for each.
    total_steps : int, optional
        Length of the cycle in steps; ``epochs * steps_per_epoch`` if left out.
    epochs, steps_per_epoch : int, optional
        Another way to give the length.
    pct_start : float
        Share of the steps on the way up.
    anneal_strategy : {"cos", "linear"}
        Along half a cosine, or in a straight line.
    cycle_momentum : bool
        Whether to set the momentum too.
    base_momentum, max_momentum : float
        Momentum at the highest rate, and at the lowest.
    div_factor : float
        The first rate is ``max_lr / div_factor``.
    final_div_factor : float
        The last rate is the first rate divided by this.
    three_phase : bool
        Back down to the first rate as quickly as up, and only then to the last.

    Raises
    ------
    ValueError
        If the length is not given, a setting is out of range, or the optimiser has no momentum to cycle.
    """

    def __init__(
        self,
        optimizer,
        max_lr,
        total_steps=None,
        epochs=None,
        steps_per_epoch=None,
        pct_start=0.3,
        anneal_strategy="cos",
        cycle_momentum=True,
        base_momentum=0.85,
        max_momentum=0.95,
        div_factor=25.0,
        final_div_factor=1e4,
        three_phase=False,
    ):
        if total_steps is None:
            if epochs is None or steps_per_epoch is None:
                raise ValueError("total_steps is None; expected it, or both epochs and steps_per_epoch")
            total_steps = epochs * steps_per_epoch
        if total_steps < 1:
            raise ValueError(f"total_steps is {total_steps}; expected at least 1")
        if not 0 <= pct_start <= 1:
            raise ValueError(f"pct_start is {pct_start}; expected a share from 0 to 1")
        if anneal_strategy not in ("cos", "linear"):
            raise ValueError(f"anneal_strategy is {anneal_strategy!r}; expected 'cos' or 'linear'")
        groups = optimizer.param_groups
        self.max_lrs = list(max_lr) if isinstance(max_lr, list | tuple) else [max_lr] * len(groups)
        if len(self.max_lrs) != len(groups):
            raise ValueError(f"max_lr has {len(self.max_lrs)} rates; expected {len(groups)}, one per group")
        if cycle_momentum and not all("momentum" in group or "betas" in group for group in groups):
            raise ValueError("cycle_momentum is True; expected an optimiser with momentum or betas")
        self.total_steps, self.anneal_strategy = total_steps, anneal_strategy
        self.cycle_momentum, self.base_momentum, self.max_momentum = cycle_momentum, base_momentum, max_momentum
        self.div_factor, self.final_div_factor = div_factor, final_div_factor
        # (last step of the phase, rate at its end as one of the three marks)
        up = float(pct_start * total_steps) - 1
        if three_phase:
            self.phases = [(up, "max"), (2 * up, "initial"), (total_steps - 1, "final")]
        else:
            self.phases = [(up, "max"), (total_steps - 1, "final")]
        for group, highest in zip(groups, self.max_lrs, strict=True):
            group["initial_lr"] = highest / div_factor
        super().__init__(optimizer)

    def _between(self, marks):
        """Return the value after ``last_epoch`` steps on the way between the marks at the ends of the phases."""
        start, before = 0.0, marks["initial"]
        for number, (end, mark) in enumerate(self.phases):
            if self.last_epoch <= end or number == len(self.phases) - 1:
                done = (self.last_epoch - start) / (end - start) if end != start else 1.0
                if self.anneal_strategy == "linear":
                    return (marks[mark] - before) * done + before
                return marks[mark] + (before - marks[mark]) / 2 * (math.cos(math.pi * done) + 1)
            start, before = end, marks[mark]

    def rate(self, base, number):
        """Return the rate of one group."""
        initial = self.max_lrs[number] / self.div_factor
        marks = {"initial": initial, "max": self.max_lrs[number], "final": initial / self.final_div_factor}
        return self._between(marks)

    def set_rates(self):
        """Set the rate and the momentum of each group."""
        if self.last_epoch >= self.total_steps:
            raise ValueError(
                f"step() was called {self.last_epoch} times; expected fewer than total_steps={self.total_steps}"
            )
        super().set_rates()
        if not self.cycle_momentum:
            return
        momentum = self._between({"initial": self.max_momentum, "max": self.base_momentum, "final": self.max_momentum})
        for group in self.optimizer.param_groups:
            if "betas" in group:
                group["betas"] = (momentum, *group["betas"][1:])
            else:
                group["momentum"] = momentum
