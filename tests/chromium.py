"""Where a Chromium is that tests may drive."""

import importlib.util
import os
import shutil

NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")


def executable():
    """Return the path of a Chromium, that of the environment variable CHROMIUM if set; None where there is none."""
    return os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)


def works():
    """Whether there is a Chromium, and what drives it: the packages of the extra ``browser``."""
    packages = ("playwright", "jupyterlab", "anywidget")
    return executable() is not None and all(importlib.util.find_spec(name) for name in packages)
