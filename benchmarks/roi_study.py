"""RoIPool against RoIAlign, not aligned and aligned: does it matter where an object is read from the map?

    python -m benchmarks.roi_study --out study --seeds 3 --steps 700

Mask R-CNN (He et al., arXiv:1703.06870, table 2c) says that it does, above all for masks and for maps of a large
stride. Here the same small Mask R-CNN, on one map of stride 16, learns made-up shapes with each operator, from the same
first weights and the same batches for each seed, and is scored on pictures it has not seen. A second part trains
nothing: it moves boxes by parts of a cell and looks how the pooled numbers follow.

Everything goes to the folder --out: study.json, study.md and two figures. A run that is done is not run again, so the
study may be stopped and started anew.
"""

import argparse
import json
import platform
import sys
import time
from pathlib import Path

import numpy as np

from tinyseg import data, files, manual_seed, models, ops
from tinyseg.evaluation import evaluate_detector
from tinyseg.training import fit

#: Options of each operator.
VARIANTS = {
    "RoIPool": {"roi_op": "pool"},
    "RoIAlign": {"roi_op": "align", "aligned": False},
    "RoIAlign, aligned": {"roi_op": "align", "aligned": True},
}
SCORES = [(kind, score) for kind in ("box", "mask") for score in ("AP", "AP50", "AP75")]
SHAPES = {"size": 128, "count": (1, 6), "radius": (6, 30), "max_overlap": 0.3}
TRAIN, TEST = 1000, 200


# ---- trained -------------------------------------------------------------------------------------------------------


def detector(options):
    """Return the small Mask R-CNN on the third stage of a ResNet-18 of half the width: 128 channels, stride 16."""
    return models.mask_rcnn(
        4,
        "resnet18",
        fpn=False,
        returned_layers=[3],
        width=32,
        anchor_sizes=[[12, 20, 32, 48, 64]],
        representation_size=256,
        mask_channels=64,
        box_batch_size_per_image=64,
        rpn_pre_nms_top_n_train=600,
        rpn_post_nms_top_n_train=300,
        rpn_pre_nms_top_n_test=300,
        rpn_post_nms_top_n_test=100,
        **options,
    )


def train_and_score(variant, seed, steps, batch):
    """Train one network; return its scores on the held-out pictures and the seconds it took."""
    manual_seed(seed)
    model = detector(VARIANTS[variant])
    start = time.perf_counter()
    shapes = data.SyntheticShapes(TRAIN, seed=1000 + seed, **SHAPES)
    fit(model, [shapes[i] for i in range(TRAIN)], steps=steps, batch_size=batch, seed=seed, steps_per_epoch=steps)
    seconds = time.perf_counter() - start
    summary = evaluate_detector(
        model, data.SyntheticShapes(TEST, seed=99, **SHAPES), normalisation="standardise"
    ).summary()
    return {**{f"{kind} {score}": summary[kind][score] for kind, score in SCORES}, "seconds": seconds}


def run_all(folder, settings, seeds):
    """Train what is not yet in the folder; return {variant: {seed: scores}}."""
    done = {variant: {} for variant in VARIANTS}
    for seed in range(seeds):  # seed by seed: a study that is stopped early still compares like with like
        for variant in VARIANTS:
            path = folder / "runs" / f"{variant.replace(', ', '_')}_{seed}.json"
            if path.exists():
                record = json.loads(path.read_text("utf-8"))
                if record["settings"] != settings:
                    raise ValueError(f"{path} has the settings {record['settings']}; give another --out for {settings}")
            else:
                print(f"{variant}, seed {seed}", flush=True)
                record = {"settings": settings, "scores": train_and_score(variant, seed, **settings)}
                files.make_folder(path.parent)
                files.write_text(path, json.dumps(record, indent=1))
            scores = record["scores"]
            print(f"{variant}, seed {seed}: " + ", ".join(f"{name} {value:.3f}" for name, value in scores.items()))
            done[variant][seed] = scores
    return done


# ---- not trained ---------------------------------------------------------------------------------------------------

CELLS, BINS, BOXES = 48, 7, 200
SHIFTS = np.linspace(0, 1, 41)


def smooth_map(seed=0, channels=16):
    """Return a random map (1, C, 48, 48) that varies over about two cells, of mean 0 and deviation 1."""
    rng = np.random.default_rng(seed)
    frequency = np.fft.fftfreq(CELLS)
    gain = np.exp(-2 * np.pi**2 * 1.2**2 * (frequency[:, None] ** 2 + frequency**2))
    noise = np.fft.fft2(rng.standard_normal((channels, CELLS, CELLS)))
    field = np.fft.ifft2(noise * gain).real
    field = (field - field.mean((1, 2), keepdims=True)) / field.std((1, 2), keepdims=True)
    return field[None].astype(np.float32)


def pool(variant, field, boxes, sampling_ratio=2):
    """Return the pooled numbers of boxes, in cells, by one of the operators."""
    options = VARIANTS[variant]
    if options["roi_op"] == "pool":
        return ops.roi_pool(field, [boxes], BINS).array
    return ops.roi_align(field, [boxes], BINS, 1.0, sampling_ratio, aligned=options["aligned"]).array


def movement():
    """Move boxes to the right by parts of a cell; return how the numbers of each operator follow.

    ``moved`` is the mean change of a pooled number since shift 0, in deviations of the map; ``jump`` its largest change
    from one shift to the next (a fortieth of a cell); ``still`` the share of steps in which nothing changed at all;
    ``lag`` how far a bin lies from where it should be, in cells, read off a map whose value is its column.
    """
    rng = np.random.default_rng(1)
    field = smooth_map()
    ramp = np.broadcast_to(np.arange(CELLS, dtype=np.float32), (1, 1, CELLS, CELLS)).copy()
    corner = rng.uniform(4, 24, (BOXES, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(5, 16, (BOXES, 2))], axis=1).astype(np.float32)
    width = (boxes[:, 2] - boxes[:, 0])[:, None] / BINS
    centres = boxes[:, :1] + width * (np.arange(BINS) + 0.5)  # of each bin's column, as a place on the map
    result = {}
    for variant in VARIANTS:
        pooled, lags = [], []
        for shift in SHIFTS:
            there = boxes + np.array([shift, 0, shift, 0], np.float32)
            pooled.append(pool(variant, field, there))
            # cell k covers k to k + 1, so the value of the ramp at place x is x - 0.5
            lags.append(pool(variant, ramp, there)[:, 0, 0] - (centres + shift - 0.5))
        steps = np.abs(np.diff(pooled, axis=0))
        result[variant] = {
            "moved": [float(np.abs(now - pooled[0]).mean()) for now in pooled],
            "jump": float(steps.max()),
            "still": float((steps.reshape(len(steps), BOXES, -1).max(2) == 0).mean()),
            "lag mean": float(np.mean(lags)),
            "lag deviation": float(np.std(lags)),
        }
    return result


# ---- results -------------------------------------------------------------------------------------------------------


def table(runs):
    """Return the scores as a Markdown table: mean and, behind it, the standard deviation over the seeds."""
    names = [f"{kind} {score}" for kind, score in SCORES]
    lines = ["| operator | " + " | ".join(names) + " | seeds |", "| --- |" + " --- |" * (len(names) + 1)]
    for variant, by_seed in runs.items():
        cells = []
        for name in names:
            values = np.array([scores[name] for scores in by_seed.values()])
            spread = f" ± {values.std(ddof=1):.3f}" if len(values) > 1 else ""
            cells.append(f"{values.mean():.3f}{spread}")
        lines.append(f"| {variant} | " + " | ".join(cells) + f" | {len(by_seed)} |")
    return "\n".join(lines)


def differences(runs):
    """Return what RoIAlign gains over RoIPool with the same seed, in words."""
    lines = []
    for variant in list(VARIANTS)[1:]:
        for kind, score in SCORES:
            name = f"{kind} {score}"
            gains = np.array([runs[variant][seed][name] - runs["RoIPool"][seed][name] for seed in runs["RoIPool"]])
            span = f"{gains.mean():+.3f} (from {gains.min():+.3f} to {gains.max():+.3f})"
            lines.append(f"- {variant} minus RoIPool, {name}: {span}")
    return "\n".join(lines)


def movement_table(moves):
    """Return the second part as a Markdown table."""
    lines = [
        "| operator | moved by half a cell | largest jump | steps without change | lag of a bin, cells |",
        "| --- | --- | --- | --- | --- |",
    ]
    half = int(np.flatnonzero(SHIFTS == 0.5)[0])
    for variant, one in moves.items():
        lines.append(
            f"| {variant} | {one['moved'][half]:.3f} | {one['jump']:.3f} | {one['still']:.0%} "
            f"| {one['lag mean']:+.2f} ± {one['lag deviation']:.2f} |"
        )
    return "\n".join(lines)


def figures(folder, runs, moves):
    """Draw scores.png and movement.png."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    colours = dict(zip(VARIANTS, ("#b5651d", "#1f5fa8", "#1a7f4b"), strict=True))
    figure, axes = plt.subplots(1, len(SCORES), figsize=(11, 3.2), sharey=True, layout="constrained")
    for axis, (kind, score) in zip(axes, SCORES, strict=True):
        for place, variant in enumerate(VARIANTS):
            values = [scores[f"{kind} {score}"] for scores in runs[variant].values()]
            axis.plot([place] * len(values), values, "o", color=colours[variant], alpha=0.5)
            axis.plot([place - 0.3, place + 0.3], [np.mean(values)] * 2, color=colours[variant], linewidth=2.5)
        axis.set_title(f"{kind} {score}", fontsize=10)
        axis.set_xticks(range(len(VARIANTS)), ["Pool", "Align", "Align,\naligned"], fontsize=8)
        axis.set_xlim(-0.6, len(VARIANTS) - 0.4)
        axis.grid(axis="y", alpha=0.3)
    axes[0].set_ylabel("average precision")
    with files.atomic_write(folder / "scores.png") as file:
        figure.savefig(file, format="png", dpi=120)
    figure, axis = plt.subplots(figsize=(6, 3.6), layout="constrained")
    for variant, one in moves.items():
        axis.plot(SHIFTS, one["moved"], color=colours[variant], label=variant)
    axis.set_xlabel("box moved by, cells")
    axis.set_ylabel("mean change of a pooled number,\nstandard deviations of the map")
    axis.legend(frameon=False)
    axis.grid(alpha=0.3)
    with files.atomic_write(folder / "movement.png") as file:
        figure.savefig(file, format="png", dpi=120)


def main(arguments=None):
    """Run the study; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.roi_study", description=__doc__.splitlines()[0])
    parser.add_argument("--out", default="roi_study", metavar="DIR", help="folder to write to (default: roi_study)")
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="runs of each operator (default: 3)")
    parser.add_argument("--steps", type=int, default=700, metavar="N", help="training steps of a run (default: 700)")
    parser.add_argument("--batch", type=int, default=4, metavar="N", help="pictures a step (default: 4)")
    parser.add_argument("--only-movement", action="store_true", help="only the part that trains nothing")
    options = parser.parse_args(arguments)
    if min(options.seeds, options.steps, options.batch) < 1:
        parser.error("--seeds, --steps and --batch are at least 1")
    folder = Path(options.out)
    files.make_folder(folder)
    moves = movement()
    print(movement_table(moves))
    if options.only_movement:
        return 0
    settings = {"steps": options.steps, "batch": options.batch}
    try:
        runs = run_all(folder, settings, options.seeds)
    except KeyboardInterrupt:
        print(
            f"stopped; the runs that are done are in {folder / 'runs'}, and the same command goes on", file=sys.stderr
        )
        return 130
    about = f"{TRAIN} pictures to learn from, {TEST} held out; {options.steps} steps of {options.batch} pictures"
    text = [f"# RoIPool against RoIAlign\n\n{about}; {platform.processor() or platform.machine()}."]
    text += [f"## Average precision, mean ± standard deviation over seeds\n\n{table(runs)}\n\n{differences(runs)}"]
    text += [f"## Moving boxes by parts of a cell\n\n{movement_table(moves)}\n\n{' '.join(movement.__doc__.split())}"]
    files.write_text(folder / "study.md", "\n\n".join(text) + "\n")
    files.write_text(
        folder / "study.json", json.dumps({"settings": settings, "runs": runs, "movement": moves}, indent=1)
    )
    figures(folder, runs, moves)
    print(table(runs))
    print(f"study.md, study.json, scores.png and movement.png are in {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
