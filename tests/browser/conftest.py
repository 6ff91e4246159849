"""A headless Chromium and a JupyterLab for it, both of this machine. TINYSEG_SCREENSHOTS=folder keeps pictures."""

import json
import os
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from chromium import executable

import tinyseg

ROOT = Path(__file__).parents[2]

#: All cells of a notebook are on the page, and nothing asks for news.
SETTINGS = {
    "@jupyterlab/notebook-extension/tracker": {"windowingMode": "none"},
    "@jupyterlab/apputils-extension/notification": {"checkForUpdates": False, "fetchNews": "false"},
}


@pytest.fixture(scope="session")
def browser():
    """Return a running Chromium, as Playwright's Browser."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # pages come from this machine alone, so that the sandbox, which root may not use, is not needed
        found = playwright.chromium.launch(executable_path=executable(), args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture(scope="session")
def jupyter(tmp_path_factory):
    """Return a running JupyterLab: the folder that it serves, and a function from a notebook's name to its address."""
    tinyseg.explain.roi_lab()  # compiles what the notebooks need, which may take longer than a browser waits
    base = tmp_path_factory.mktemp("jupyter")
    folder = base / "notebooks"
    folder.mkdir()
    for name, settings in SETTINGS.items():
        path = base / "settings" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(settings), encoding="utf-8")
    places = {"JUPYTER_CONFIG_DIR": "config", "JUPYTER_DATA_DIR": "data", "JUPYTER_RUNTIME_DIR": "runtime"}
    places |= {
        "JUPYTERLAB_SETTINGS_DIR": "settings",
        "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
        "IPYTHONDIR": "ipython",
    }
    environment = {**os.environ, **{name: str(base / place) for name, place in places.items()}}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), environment.get("PYTHONPATH")]))
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ServerApp.port=0"]
    with open(base / "log", "w", encoding="utf-8") as log:
        server = subprocess.Popen([*command, f"--ServerApp.root_dir={folder}"], env=environment, stdout=log, stderr=log)
    try:
        address, token = _wait_for(server, base)
        yield folder, lambda name: f"{address}lab/tree/{name}?reset&token={token}"
    finally:
        server.terminate()
        server.wait(30)


def _wait_for(server, base, patience=120):
    """Return address and token of a server once it answers."""
    end = time.monotonic() + patience
    while server.poll() is None and time.monotonic() < end:
        for path in (base / "runtime").glob(f"jpserver-{server.pid}.json"):
            try:
                known = json.loads(path.read_text(encoding="utf-8"))
                with urllib.request.urlopen(f"{known['url']}api?token={known['token']}"):
                    return known["url"], known["token"]
            except (OSError, ValueError):
                pass  # not written, or not listening yet
        time.sleep(0.2)
    raise RuntimeError(f"JupyterLab did not start: {(base / 'log').read_text(encoding='utf-8')[-2000:]}")


@pytest.fixture(scope="session")
def keep(tmp_path_factory):
    """Return a function that takes a picture of a page or a part of it, to look at."""
    folder = Path(os.environ.get("TINYSEG_SCREENSHOTS") or tmp_path_factory.mktemp("screenshots"))
    folder.mkdir(parents=True, exist_ok=True)
    return lambda what, name: what.screenshot(path=folder / f"{name}.png")
