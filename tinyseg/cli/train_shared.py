"""What ``tinyseg train`` does alike for every network: options, settings of a resumed run, the call of `fit`."""

import sys

from tinyseg.cli.common import interval, number, whole_number

#: Names of the options of every network here and in the options of `tinyseg.training`.
OPTIONS = {
    "steps": "steps",
    "batch": "batch_size",
    "lr": "learning_rate",
    "optimiser": "optimiser",
    "schedule": "schedule",
    "weight_decay": "weight_decay",
    "clip": "clip_norm",
    "augment": "augment",
    "steps_per_epoch": "steps_per_epoch",
    "seed": "seed",
}


def default_words(defaults, name):
    """Return the words on a default for a help text."""
    value = defaults[name]
    return f"(default: {','.join(map(str, value)) if isinstance(value, tuple) else value})"


def add_choice_options(group, defaults):
    """Add the options that choose pictures to train on and to score."""
    group.add_argument(
        "--train",
        metavar="NAMES",
        help="pictures to train on: names, globs, ranges (00-15 or a*,b07), or a file of names (@names.txt)",
    )
    group.add_argument("--val", metavar="NAMES", help="pictures to score the network on while it learns")
    group.add_argument(
        "--val-fraction",
        type=number(0, 0.9),
        metavar="X",
        help="without --train and --val: share of the pictures (by --seed) to score on "
        + default_words(defaults, "val_fraction"),
    )


def add_run_options(group):
    """Add the options on the run's folder."""
    group.add_argument("--out", metavar="RUN", required=True, help="folder for the run; never written over")
    group.add_argument(
        "--resume",
        action="store_true",
        help="go on with the run in --out, to bit-identical weights; other options need not be repeated",
    )


def add_training_options(group, defaults, *, batch, schedules, augment):
    """Add the options on training; ``batch`` and ``augment`` are words for the help, ``schedules`` the choices."""

    def default(name):
        return default_words(defaults, name)

    group.add_argument("--steps", type=whole_number(1), metavar="N", help=f"optimiser steps {default('steps')}")
    group.add_argument("--batch", type=whole_number(1), metavar="N", help=f"{batch} per step {default('batch')}")
    group.add_argument("--lr", type=number(0, above=True), metavar="X", help=f"highest learning rate {default('lr')}")
    group.add_argument("--optimiser", choices=("adam", "adamw", "sgd"), help=default("optimiser"))
    group.add_argument("--schedule", choices=schedules, help=f"how the learning rate changes {default('schedule')}")
    group.add_argument("--weight-decay", type=number(0), metavar="X", help=default("weight_decay"))
    group.add_argument(
        "--clip", type=number(0), metavar="X", help=f"longest gradient; 0 sets no limit {default('clip')}"
    )
    group.add_argument(
        "--augment", choices=("turns", "strong", "photo", "none"), help=f"{augment} {default('augment')}"
    )
    group.add_argument(
        "--steps-per-epoch",
        type=whole_number(1),
        metavar="N",
        help=f"steps from one scoring to the next {default('steps_per_epoch')}",
    )
    group.add_argument("--seed", type=whole_number(0), metavar="N", help=f"of all chance {default('seed')}")
    group.add_argument(
        "--checkpoint-every",
        type=interval,
        default=("seconds", 60.0),
        metavar="N|TIME",
        help="write last.safetensors every N steps (100) or after a time (30s, 5m), besides after each epoch "
        "(default: 60s)",
    )
    group.add_argument("--quiet", action="store_true", help="no progress bar and no lines")


def stored_settings(args, folder, network):
    """Return the settings of the run to resume, by the names of the command line; empty for a new run."""
    from tinyseg.training import checkpoint

    if not args.resume or not folder.last.exists():
        return {}
    stored = checkpoint.load(folder.last)["info"].get("command", {})
    trained = stored.get("network", "unet")
    if trained != network:
        raise ValueError(
            f"{folder.path} holds a run of 'tinyseg train {trained}': go on with it by that command, or choose another "
            "folder"
        )
    return stored


def given_settings(args, names):
    """Return those settings that the command line gives."""
    return {name: getattr(args, name) for name in names if getattr(args, name, None) is not None}


def fit_options(settings, names=()):
    """Return the settings of `OPTIONS`, and of more names that are the same in both places, as `fit` takes them."""
    options = {ours: settings[name] for name, ours in OPTIONS.items()}
    options["clip_norm"] = options["clip_norm"] or None
    return {**options, **{name: settings[name] for name in names}}


def sayer(args):
    """Return what prints a line, unless ``--quiet``."""
    return (lambda text: None) if args.quiet else print


def train(args, folder, network, model, train, val, info, options, describe):
    """Train, say what came out and what to do next; return the exit code.

    ``describe(best)`` gives the best row of a validated run in words; ``options`` go to `tinyseg.training.fit`.
    """
    from tinyseg.training import Interrupted, fit

    say = sayer(args)
    if args.resume and not folder.last.exists():
        say("nothing to resume there yet: starting from the beginning")
    try:
        history = fit(
            model,
            train,
            val,
            out=folder.path,
            resume=args.resume,
            checkpoint_every=args.checkpoint_every,
            progress=not args.quiet,
            info=info,
            **options,
        )
    except Interrupted as stop:
        print(f"tinyseg: {stop}:\n  tinyseg train {network} --resume --out {quoted(args.out)}", file=sys.stderr)
        return 130
    words = describe(history.best)
    if words:
        say(f"best after step {history.best['step']}: {words}")
    say(f"{history.step} steps in {history.seconds:.0f} s. Next:")
    say(f"  tinyseg predict --weights {quoted(folder.best)} PICTURE... --out masks")
    return 0


def quoted(text):
    """Return a path as a shell takes it."""
    import shlex

    return shlex.quote(str(text)) if sys.platform != "win32" else f'"{text}"'
