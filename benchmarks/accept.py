"""Goals that take longer than the test suite should: ``make accept DATA=folder``, one line per goal.

DATA holds ``em_sstem`` (20 slices of electron microscopy: ``raw/00.tif`` and on, ``membranes/00.png`` and on),
``nuclei_dsb256`` (331 pictures of nuclei: ``images/*.png``, and ``labels/*.png`` with a number for each; see the README
for where both come from) and ``photos`` (any JPEG). Goals whose pictures are missing are named and not passed.
"""

import argparse
import csv
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import accept_objects

TINYSEG = [sys.executable, "-m", "tinyseg.cli"]


class Report:
    """Prints a line per goal, and remembers whether one was missed."""

    missed = False

    def line(self, goal, result, reached):
        """Print a goal, its result, and whether it was reached (None: not tried)."""
        self.missed |= not reached
        word = {True: "reached", False: "MISSED", None: "NOT TRIED"}[reached]
        print(f"{word:10} {goal}: {result}", flush=True)


def run(*arguments):
    """Run a command of tinyseg; return the seconds it took."""
    start = time.perf_counter()
    subprocess.run([*TINYSEG, *map(str, arguments)], check=True)
    return time.perf_counter() - start


def train_on_microscopy(data, work, report):
    """Train the article's U-Net on slices 00-15, score it on 16-19, and predict a slice and a photo."""
    goals = "mean Dice on slices 16-19 of at least 0.88", "seconds to that of at most 150, compilation included"
    if not (data / "em_sstem").is_dir():
        for goal in goals:
            report.line(goal, f"no folder {data / 'em_sstem'}", None)
        return
    out = work / "em"
    command = ["train", "unet", "--data", data / "em_sstem", "--train", "00-15", "--val", "16-19", "--out", out]
    run(*command, "--steps", 600, "--batch", 8, "--crop", 256)
    best = out / "best.safetensors"
    run("evaluate", "--weights", best, "--data", data / "em_sstem", "--val", "16-19", "--out", work / "scores")
    with open(out / "metrics.csv", encoding="utf-8") as file:
        rows = [(float(row["dice"]), float(row["seconds"])) for row in csv.DictReader(file)]
    dice, seconds = max(rows)[0], next((seconds for dice, seconds in rows if dice >= 0.88), float("inf"))
    report.line(goals[0], f"{dice:.4f}", dice >= 0.88)
    report.line(goals[1], f"{seconds:.0f}", seconds <= 150)
    photos = sorted((data / "photos").glob("*.jpg"))[:1]
    pictures = [data / "em_sstem" / "raw" / "16.tif", *photos]
    run("predict", "--weights", best, "--out", work / "masks", *pictures)
    written = sorted(path.name for path in (work / "masks").iterdir())
    report.line("masks, probabilities and overlays of a slice and an RGB photo", ", ".join(written), len(written) == 6)


def kill_and_resume(data, work, report, kills=10):
    """Kill a training run with SIGKILL at random moments; it must end in the weights of one never killed."""
    goal = f"weights after {kills} kills at random moments equal to those of a run never killed"
    if not (data / "em_sstem").is_dir():
        report.line(goal, f"no folder {data / 'em_sstem'}", None)
        return
    settings = ["train", "unet", "--data", data / "em_sstem", "--train", "00-03", "--val", "16", "--steps", 120]
    settings += ["--batch", 2, "--crop", 128, "--steps-per-epoch", 30, "--checkpoint-every", 2, "--quiet"]
    run(*settings, "--out", work / "whole")
    chance = random.Random(0)
    killed, steps = work / "killed", []
    for moment in sorted(chance.sample(range(100), kills)):  # by its progress: how fast it is depends on the day
        command = [*TINYSEG, *map(str, settings), "--out", str(killed), "--resume"]
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        while process.poll() is None and step_of(killed) < moment:
            time.sleep(0.05)
        time.sleep(chance.uniform(0, 0.5))
        process.kill()
        if process.wait() != 0:
            steps.append(step_of(killed))
    run(*settings, "--out", killed, "--resume")
    equal = same_weights(work / "whole", killed)
    words = "equal" if equal else "DIFFERENT"
    result = f"{words}, optimiser state included; killed {len(steps)} times, with these steps saved: {steps}"
    report.line(goal, result, equal and len(steps) == kills)


def step_of(folder):
    """Return how many steps the checkpoint of a run holds; -1 without one."""
    from tinyseg.training import checkpoint

    path = folder / "last.safetensors"
    return checkpoint.load(path)["history"]["step"] if path.exists() else -1


def same_weights(a, b):
    """Return whether two runs ended in the same bits: best weights, last weights, state of the optimiser."""
    from tinyseg import weights

    for file in ("best.safetensors", "last.safetensors"):
        first, second = weights.load(a / file), weights.load(b / file)
        if first.keys() != second.keys() or any(first[name].tobytes() != second[name].tobytes() for name in first):
            return False
    return True


def main(arguments=None):
    """Run every goal; exit with 1 if one was missed or could not be tried."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.accept", description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="folder with em_sstem and photos")
    parser.add_argument("--out", help="folder to keep what was written (default: a temporary one, removed)")
    parser.add_argument(
        "--only", choices=("microscopy", "kills", "nuclei", "shapes", "photos"), help="one part of it (default: all)"
    )
    parser.add_argument(
        "--torchvision",
        metavar="PYTHON",
        default=sys.executable,
        help="Python that has torchvision, to compare memory with (default: this one)",
    )
    options = parser.parse_args(arguments)
    if not options.data or not Path(options.data).is_dir():
        parser.error(f"--data is {options.data!r}; expected a folder of real pictures, as in: make accept DATA=folder")
    report = Report()
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(options.out or temporary)
        work.mkdir(parents=True, exist_ok=True)
        data = Path(options.data)
        parts = {
            "microscopy": lambda: train_on_microscopy(data, work, report),
            "kills": lambda: kill_and_resume(data, work, report),
            "nuclei": lambda: accept_objects.find_nuclei(data, work, report, run),
            "shapes": lambda: accept_objects.find_shapes(report),
            "photos": lambda: accept_objects.predict_photos(data, report, options.torchvision),
        }
        for name, part in parts.items():
            if options.only in (None, name):
                part()
    return 1 if report.missed else 0


if __name__ == "__main__":
    sys.exit(main())
