"""What the options of a run stand for: its optimiser, its learning rate, the moments at which it saves."""

import math

from tinyseg import optim


def make_optimiser(model, options):
    """Return the optimiser that `Options` names, over all parameters of a model that are trained."""
    settings = {"lr": options.learning_rate, "weight_decay": options.weight_decay}
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if options.optimiser == "sgd":
        return optim.SGD(parameters, momentum=0.9, **settings)
    return {"adam": optim.Adam, "adamw": optim.AdamW}[options.optimiser](parameters, **settings)


def make_schedule(optimiser, options):
    """Return the learning-rate schedule that `Options` names, or None for a constant rate."""
    if options.schedule == "constant":
        return None
    if options.schedule == "one-cycle":
        return optim.OneCycleLR(optimiser, options.learning_rate, total_steps=options.steps)
    return optim.LambdaLR(optimiser, falling(options.schedule, options.steps, options.warm_up))


def falling(shape, steps, warm_up):
    """Return a rate that rises from nearly 0, then falls to nearly 0, as a function of the number of steps done.

    Parameters
    ----------
    shape : {"cosine", "linear"}
        How it falls.
    steps : int
        Steps of the run.
    warm_up : int
        Steps over which it rises in a straight line; no more than a fifth of all steps are taken.

    Returns
    -------
    callable
        From a number of steps, 0 to ``steps - 1``, to a factor above 0, at most 1.
    """
    rising = min(warm_up, steps // 5)

    def factor(step):
        if step < rising:
            return (step + 1) / (rising + 1)
        done = (step - rising) / max(1, steps - rising)
        return 1 - done if shape == "linear" else (1 + math.cos(math.pi * done)) / 2

    return factor


def checked_interval(value):
    """Return ``checkpoint_every`` of `tinyseg.training.fit`, a pair or None; anything else is a ValueError."""
    if value is None:
        return None
    kind, length = value if isinstance(value, tuple) and len(value) == 2 else (None, None)
    if kind not in ("steps", "seconds") or not isinstance(length, (int, float)) or length <= 0:
        raise ValueError(f"checkpoint_every is {value!r}; expected ('steps', n), ('seconds', s) or None")
    return kind, length
