"""CONTRIBUTING.md's worked example, carried out on a copy of the project."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# "... New file `path`:", "... In `path`, below `line`...:", "... At the end of `path`:", just before a block of Python
_BLOCK = re.compile(r"^(?P<where>[^\n]*):\n```python\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)


def carry_out(steps, project):
    """Apply each block of Python in ``steps`` to the copy of the project; return how many there were."""
    count = 0
    for block in _BLOCK.finditer(steps):
        quoted = re.findall(r"`([^`]+)`", block["where"])
        path = next(text for text in quoted if text.endswith(".py"))
        file = project / path
        if "New file" in block["where"]:
            assert not file.exists(), f"{path} exists already"
            file.write_text(block["code"], encoding="utf-8")
        elif "below" in block["where"]:
            lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
            (at,) = (i for i, line in enumerate(lines) if quoted[-1] in line)
            file.write_text("".join([*lines[: at + 1], block["code"], *lines[at + 1 :]]), encoding="utf-8")
        else:
            assert "the end of" in block["where"], block["where"]
            file.write_text(file.read_text(encoding="utf-8") + "\n\n" + block["code"], encoding="utf-8")
        count += 1
    return count


@pytest.mark.slow
def test_the_worked_example_works(tmp_path):
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    steps = text[text.index("## Where a new operator goes") :]
    for folder in ("kernels", "tinyseg", "tests"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__", "reference"))
    shutil.copy(ROOT / "setup.cfg", tmp_path)
    assert carry_out(steps, tmp_path) == steps.count("```python") == 16
    run_tests(tmp_path)
    run_tests(tmp_path, "-m", "cuda", NUMBA_ENABLE_CUDASIM="1")


def run_tests(project, *options, **variables):
    """Run the new operator's tests in the copy of the project."""
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(project / "cache"), **variables}
    run = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            *options,
            "tests/test_group_norm.py",
        ],
        cwd=project,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout + run.stderr
