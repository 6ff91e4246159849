"""What is checked on a GPU before anything is timed: the tests of its kernels, and NVIDIA's compute-sanitizer."""

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from numba import config

ROOT = Path(__file__).parents[1]
#: What the sanitizer looks at, which makes kernels ten to a hundred times as slow.
SANITIZED = ("tests/test_cuda_unet.py", "tests/test_cuda_rois.py", "tests/test_cuda_convolution.py")
TOOLS = ("memcheck", "racecheck")
_FOUND = 86  # the exit code that compute-sanitizer is told to end with where it finds something
_USUAL_PLACE = Path("/usr/local/cuda/bin/compute-sanitizer")


class Check(NamedTuple):
    """What came of a check.

    Attributes
    ----------
    outcome : {"passed", "FAILED", "not run"}
    words : str
        One sentence: what was run, or why it was not.
    seconds : float
    """

    outcome: str
    words: str
    seconds: float = 0.0


def names():
    """Return the names of all checks."""
    return ["tests", *(f"sanitizer/{tool}" for tool in TOOLS)]


def check(name, minutes):
    """Run a check.

    Parameters
    ----------
    name : str
        Of `names`.
    minutes : float
        When to give up.

    Returns
    -------
    Check
    str
        All that it printed.
    """
    if find_spec("pytest") is None:
        return Check("not run", "pytest is not installed"), ""
    if not (ROOT / "tests").is_dir():
        return Check("not run", "the tests come with a checkout of the project, which this is not"), ""
    if name == "tests":
        return _outcome(_pytest(SANITIZED[:1] if config.ENABLE_CUDASIM else files_of_tests()), minutes, 1)
    program = shutil.which("compute-sanitizer") or (str(_USUAL_PLACE) if _USUAL_PLACE.is_file() else None)
    if program is None:
        return Check("not run", "compute-sanitizer, which comes with NVIDIA's CUDA toolkit, is not installed"), ""
    tool = name.rpartition("/")[2]
    # Numba asks the driver for symbols that need not be there: errors of such calls are none of ours
    options = ["--tool", tool, "--error-exitcode", str(_FOUND), "--target-processes", "all"]
    options += ["--report-api-errors", "no"] if tool == "memcheck" else []
    return _outcome([program, *options, *_pytest(SANITIZED)], minutes, _FOUND)


def files_of_tests():
    """Return the files that have tests for a GPU: others may need packages that are not here."""
    found = sorted((ROOT / "tests").glob("test_*.py"))
    return [f"tests/{path.name}" for path in found if "pytest.mark.cuda" in path.read_text(encoding="utf-8")]


def _pytest(files):
    return [sys.executable, "-m", "pytest", "-q", "-m", "cuda", "-p", "no:cacheprovider", *files]


def _outcome(command, minutes, failing):
    """Run a command; return its `Check` and output. ``failing`` is the exit code that tells of something found."""
    start = time.monotonic()
    try:
        code, output = _run(command, 60 * minutes)
    except OSError as error:
        return Check("not run", f"{command[0]} could not be started: {error.strerror}"), ""
    seconds = time.monotonic() - start
    lines = [line for line in output.splitlines() if line.strip()]
    said = "; ".join(line.strip("= ") for line in lines if _says_how_many(line)) or (lines[-1] if lines else "nothing")
    if code is None:
        return Check("FAILED", f"not finished in {minutes:g} minutes: {said}", seconds), output
    if code == 0:
        return Check("passed", said, seconds), output
    what = "" if code == failing else f"ended with {code}: "
    return Check("FAILED", what + said, seconds), output


def _says_how_many(line):
    """Return whether a line sums up a run of pytest or of compute-sanitizer."""
    return bool(re.search(r"\bin \d+\.\d+s\b|SUMMARY|no tests ran|Error:|Device not supported", line))


def _run(command, seconds):
    """Run a command in the project's folder and print what it says; return its exit code, None if it was ended."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)])}
    late, lines = threading.Event(), []
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        errors="replace", start_new_session=True,
    ) as process:  # fmt: skip

        def end():
            late.set()
            _end(process)

        timer = threading.Timer(seconds, end)
        timer.start()
        try:
            for line in process.stdout:
                lines.append(line)
                print(f"  {line}", end="", flush=True)
            code = process.wait()
        except BaseException:
            _end(process)
            raise
        finally:
            timer.cancel()
    return (None if late.is_set() else code), "".join(lines)


def _end(process):
    """End a process with those that it started."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (AttributeError, ProcessLookupError, PermissionError):  # Windows has no groups
        process.kill()
