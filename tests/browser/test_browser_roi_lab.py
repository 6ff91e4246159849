"""The RoI lab in JupyterLab, in a real browser: what is shown is what the kernels give for the box that is shown."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tinyseg import Tensor, ops

ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.browser, pytest.mark.slow]

#: The notebook that everybody opens: it must hold a lab. The other tests have a notebook of their own, of two cells.
NOTEBOOK = ROOT / "notebooks" / "06_roi_pool_roi_align.ipynb"
CELLS = ("import tinyseg\nlab = tinyseg.explain.roi_lab()\nlab", "lab.box = (2, 1, 5.5, 4.25)\nlab.box")


def write_notebook(path, cells):
    """Write a notebook of these cells of code."""
    made = [
        {"cell_type": "code", "id": f"c{i}", "execution_count": None, "metadata": {}, "outputs": [], "source": source}
        for i, source in enumerate(cells)
    ]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    path.write_text(json.dumps({"cells": made, "metadata": kernel, "nbformat": 4, "nbformat_minor": 5}), "utf-8")


def open_notebook(page, address):
    """Open a notebook, without the column of files beside it."""
    page.goto(address, wait_until="domcontentloaded")
    page.locator(".jp-Notebook .jp-CodeCell").first.wait_for(timeout=120_000)
    page.get_by_text("Python 3 (ipykernel) | Idle").wait_for(timeout=120_000)  # before, it would ask for a kernel
    if page.locator("#jp-left-stack").is_visible():
        page.keyboard.press("Control+b")


def run_all(page):
    """Run all cells by the menu, and return the first lab."""
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    found = page.locator(".tinyseg-roi-lab").first
    found.wait_for(timeout=300_000)
    page.get_by_text("Python 3 (ipykernel) | Idle").wait_for(timeout=300_000)  # a kernel that is busy answers late
    return found


# ---- what a lab shows ------------------------------------------------------------------------------------------------


def box(lab):
    """Return the box whose numbers are shown."""
    return json.loads(lab.get_attribute("data-box"))


def shown(lab, operator):
    """Return the pooled numbers, as they are written, and as they are to the last bit."""
    cells = lab.locator(f".{operator} .output").all()
    size = json.loads(lab.get_attribute("data-settings"))["output_size"]
    written = [float(cell.inner_text().replace("−", "-")) for cell in cells]
    exact = [float(cell.get_attribute("data-value")) for cell in cells]
    return np.reshape(written, size), np.reshape(exact, size)


def gradient(lab, operator, shape):
    """Return the gradient of the map that is shown."""
    dx = np.zeros(shape)
    for text in lab.locator(f".{operator} .gradient title").all_text_contents():
        row, column, value = re.fullmatch(r"row (\d+), column (\d+): (\S+)", text).groups()
        dx[int(row), int(column)] = float(value)
    return dx


def features(lab):
    """Return the map, from the page."""
    values = lab.locator(".roi-pool .values text").evaluate_all("all => all.map((node) => Number(node.dataset.value))")
    across = lab.locator(".roi-pool .values text").evaluate_all(
        "all => new Set(all.map((node) => node.getAttribute('x'))).size"
    )
    return np.reshape(values, (-1, across)).astype(lab.get_attribute("data-dtype"))


def assert_shows_the_kernels_numbers(lab):
    """Compute what is shown anew, from the box, the settings and the map on the page."""
    settings = json.loads(lab.get_attribute("data-settings"))
    scale, size = float(lab.get_attribute("data-scale")), settings["output_size"]
    fields = [float(value) for value in lab.locator(".box-fields input").evaluate_all("all => all.map((n) => n.value)")]
    assert fields == box(lab)
    shown_map = features(lab)
    rois = np.array([[0, *box(lab)]], shown_map.dtype)
    for operator in ("roi-pool", "roi-align"):
        x = Tensor(shown_map[None, None], requires_grad=True)
        if operator == "roi-pool":
            y = ops.roi_pool(x, rois, tuple(size), scale)
        else:
            how = {name: settings[name] for name in ("sampling_ratio", "aligned")}
            y = ops.roi_align(x, rois, tuple(size), scale, **how)
        dy = np.ones(y.shape, shown_map.dtype)
        if settings["gradient_of"] == "cell":
            dy[:] = 0
            dy[(0, 0, *settings["cell"])] = 1
        (y * Tensor(dy)).sum().backward()
        written, exact = shown(lab, operator)
        np.testing.assert_array_equal(exact, y.numpy()[0, 0])
        np.testing.assert_allclose(written, y.numpy()[0, 0], rtol=1e-3)  # three digits at least
        np.testing.assert_array_equal(gradient(lab, operator, x.shape[2:]), x.grad.numpy()[0, 0])


def wait_for_box(page, lab, expected=None, other_than=None):
    """Wait until the numbers of another box are shown, or of this one, and no question is open."""
    page.wait_for_function(
        """([root, expected, before]) => {
            const fields = [...root.querySelectorAll('.box-fields input')].map((node) => Number(node.value));
            const now = JSON.parse(root.dataset.box);
            return String(now) === String(fields)
                && (expected ? String(now) === String(expected) : String(now) !== String(before));
        }""",
        arg=[lab.element_handle(), expected, other_than],
        timeout=20_000,
    )


def wait_for_settings(page, lab, **settings):
    """Wait until numbers are shown for these settings."""
    page.wait_for_function(
        """([root, wanted]) => {
            const now = JSON.parse(root.dataset.settings);
            return Object.entries(wanted).every(([name, value]) => String(now[name]) === String(value));
        }""",
        arg=[lab.element_handle(), settings],
        timeout=20_000,
    )


def middle(locator):
    """Return the middle of something on the page, in view."""
    locator.scroll_into_view_if_needed()
    place = locator.bounding_box()
    return place["x"] + place["width"] / 2, place["y"] + place["height"] / 2


def cell_width(lab, operator="roi-align"):
    """Return how many pixels of the screen a cell of the map is wide."""
    return lab.locator(f".{operator} .map image").bounding_box()["width"] / features(lab).shape[1]


def drag(page, start, by, steps=12):
    """Drag by the mouse."""
    page.mouse.move(*start)
    page.mouse.down()
    page.mouse.move(start[0] + by[0], start[1] + by[1], steps=steps)
    page.mouse.up()


# ---- the tests -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def page(browser, jupyter):
    """Return a page with a notebook of two cells, the first of which has run."""
    folder, address = jupyter
    write_notebook(folder / "lab.ipynb", CELLS)
    page = browser.new_page(viewport={"width": 1200, "height": 1300})
    open_notebook(page, address("lab.ipynb"))
    page.locator(".jp-CodeCell .cm-content").first.click()
    page.keyboard.press("Shift+Enter")
    page.locator(".tinyseg-roi-lab").first.wait_for(timeout=120_000)
    yield page
    page.close()


@pytest.fixture
def lab(page):
    return page.locator(".tinyseg-roi-lab").first


def test_all_cells_of_the_notebook_run_and_the_box_follows_the_mouse(browser, jupyter, keep):
    folder, address = jupyter
    if NOTEBOOK.exists():
        shutil.copy(NOTEBOOK, folder / NOTEBOOK.name)
    else:
        write_notebook(folder / NOTEBOOK.name, CELLS[:1])
    page = browser.new_page(viewport={"width": 1300, "height": 1200})
    open_notebook(page, address(NOTEBOOK.name))
    lab = run_all(page)
    assert_shows_the_kernels_numbers(lab)
    before = box(lab), [shown(lab, operator)[1] for operator in ("roi-pool", "roi-align")]
    step = cell_width(lab)
    drag(page, middle(lab.locator(".roi-align .body")), (0.8 * step, 1.1 * step))
    wait_for_box(page, lab, other_than=before[0])
    moved = np.subtract(box(lab), before[0])
    assert (moved[:2] > 0).all() and np.allclose(moved[:2], moved[2:])  # both corners, to the right and down
    for operator, old in zip(("roi-pool", "roi-align"), before[1], strict=True):
        assert (shown(lab, operator)[1] != old).any()
    assert_shows_the_kernels_numbers(lab)
    keep(page, "roi_lab_dragged")
    page.close()


def test_the_picture_for_readers_without_a_front_end_is_hidden(page, lab):
    still = page.locator(".tinyseg-roi-lab-still")
    assert still.count() == 1 and not still.is_visible()


def test_corners_and_edges_are_dragged(page, lab):
    step = cell_width(lab)
    for part, changed in (("handle.bottom-right", [2, 3]), ("handle.top-left", [0, 1]), ("edge.left", [0])):
        before = box(lab)
        drag(page, middle(lab.locator(f".roi-pool .{part}")), (-0.4 * step, -0.3 * step))
        wait_for_box(page, lab, other_than=before)
        assert np.flatnonzero(np.subtract(box(lab), before)).tolist() == changed
        assert_shows_the_kernels_numbers(lab)


def test_a_corner_stops_at_the_opposite_one_and_the_box_at_the_margin(page, lab):
    drag(page, middle(lab.locator(".roi-pool .handle.bottom-right")), (-900, 0))
    before = box(lab)
    page.wait_for_timeout(300)
    wait_for_box(page, lab, expected=box(lab))
    assert box(lab)[2] == box(lab)[0], before
    assert_shows_the_kernels_numbers(lab)
    drag(page, middle(lab.locator(".roi-pool .handle.bottom-right")), (2 * cell_width(lab), 0))
    drag(page, middle(lab.locator(".roi-pool .body")), (-900, -900))
    page.wait_for_timeout(300)
    wait_for_box(page, lab, expected=box(lab))
    assert box(lab)[:2] == [-1, -1]
    assert_shows_the_kernels_numbers(lab)


def test_python_moves_the_box(page, lab):
    page.locator(".jp-CodeCell .cm-content").nth(1).click()
    page.keyboard.press("Shift+Enter")
    wait_for_box(page, lab, expected=[2, 1, 5.5, 4.25])
    assert_shows_the_kernels_numbers(lab)
    page.locator(".jp-OutputArea-output", has_text="(2.0, 1.0, 5.5, 4.25)").wait_for()


def test_arrow_keys_move_the_box_and_its_corners(page, lab):
    before = box(lab)
    lab.locator(".roi-align .body").focus()
    for key in ("ArrowRight", "ArrowRight", "Shift+ArrowDown", "ArrowUp"):
        page.keyboard.press(key)
    expected = [before[0] + 2 / 16, before[1] + 15 / 16, before[2] + 2 / 16, before[3] + 15 / 16]
    wait_for_box(page, lab, expected=expected)
    assert_shows_the_kernels_numbers(lab)
    page.keyboard.press("Tab")  # to the first corner
    page.keyboard.press("ArrowLeft")
    expected[0] -= 1 / 16
    wait_for_box(page, lab, expected=expected)
    assert page.evaluate("document.activeElement.getAttribute('aria-label')").startswith("top left corner")
    assert_shows_the_kernels_numbers(lab)
    # a screen reader is told once the box rests
    page.wait_for_function("root => root.querySelector('[aria-live]').textContent", arg=lab.element_handle())
    spoken = lab.locator("[aria-live]")
    page.wait_for_function(
        "([node, text]) => node.textContent.includes(text)", arg=[spoken.element_handle(), f"Box {expected[0]}"]
    )
    assert lab.locator(".roi-pool .output").first.inner_text() in spoken.text_content()


def test_settings(page, lab):
    for name, value in (("height", "3"), ("width", "4"), ("ratio", "-1"), ("gradient", "cell")):
        lab.locator(f"select[name={name}]").select_option(value)
    lab.locator("input[name=aligned]").uncheck()
    wait_for_settings(page, lab, output_size=[3, 4], sampling_ratio=-1, gradient_of="cell", aligned=False)
    assert_shows_the_kernels_numbers(lab)
    lab.locator(".roi-align .output").nth(6).click()  # row 1, column 2
    page.wait_for_function("root => String(JSON.parse(root.dataset.settings).cell) === '1,2'", arg=lab.element_handle())
    assert_shows_the_kernels_numbers(lab)
    assert lab.locator(".roi-align .detail").inner_text().startswith("Output (1, 2)")
    page.keyboard.press("ArrowRight")
    page.wait_for_function("root => String(JSON.parse(root.dataset.settings).cell) === '1,3'", arg=lab.element_handle())
    lab.locator(".roi-pool .output").nth(0).hover()  # for as long as the mouse is there
    page.wait_for_function("root => String(JSON.parse(root.dataset.settings).cell) === '0,0'", arg=lab.element_handle())
    page.mouse.move(5, 5)
    page.wait_for_function("root => String(JSON.parse(root.dataset.settings).cell) === '1,3'", arg=lab.element_handle())
    lab.locator("select[name=height]").select_option("1")  # the chosen output is gone: the nearest takes its place
    page.wait_for_function("root => String(JSON.parse(root.dataset.settings).cell) === '0,3'", arg=lab.element_handle())
    assert_shows_the_kernels_numbers(lab)


def test_a_box_is_typed_and_what_no_operator_takes_goes_back(page, lab):
    field = lab.locator("input[name=x1]")
    field.fill("1.3")
    field.press("Enter")
    wait_for_box(page, lab, expected=[1.3, *box(lab)[1:]])
    assert_shows_the_kernels_numbers(lab)
    before = box(lab)
    field.fill("1e300")
    field.press("Enter")
    wait_for_box(page, lab, expected=before)


def test_a_reversed_box_is_refused_by_one_operator_in_the_kernel_s_words(page, lab):
    lab.locator("input[name=aligned]").check()
    field = lab.locator("input[name=x1]")
    field.fill("9")
    field.press("Enter")
    error = lab.locator(".roi-align .error")
    error.wait_for()
    assert "reversed box" in error.inner_text() and lab.locator(".roi-pool .output").first.is_visible()
    field.fill("1")
    field.press("Enter")
    error.wait_for(state="detached")
    lab.locator("select[name=ratio]").select_option("2")


def test_narrow_and_dark(page, lab, keep):
    for width, height, theme in (
        (1200, 1300, "light"),
        (430, 2300, "light"),
        (430, 2300, "dark"),
        (1200, 1300, "dark"),
    ):
        page.set_viewport_size({"width": width, "height": height})
        if theme == "dark" and lab.get_attribute("data-theme") == "light":
            page.get_by_role("menuitem", name="Settings", exact=True).click()
            page.get_by_text("Theme", exact=True).first.hover()
            page.get_by_text("JupyterLab Dark", exact=True).click()
        page.wait_for_function(
            "([root, theme]) => root.dataset.theme === theme", arg=[lab.element_handle(), theme], timeout=20_000
        )
        page.wait_for_timeout(500)
        keep(lab, f"roi_lab_{width}_{theme}")
        assert lab.evaluate("root => root.scrollWidth <= root.clientWidth + 1"), "it is wider than its place"
        tops = [lab.locator(f".{operator} .map").bounding_box()["y"] for operator in ("roi-pool", "roi-align")]
        assert (tops[0] == tops[1]) == (width > 600)
        paper, ink = (lab.evaluate(f"root => getComputedStyle(root).{name}") for name in ("backgroundColor", "color"))
        light = [np.mean([int(part) for part in re.findall(r"\d+", colour)[:3]]) for colour in (paper, ink)]
        assert (light[0] > 200 and light[1] < 60) if theme == "light" else (light[0] < 60 and light[1] > 200)
        before = box(lab)
        drag(page, middle(lab.locator(".roi-align .body")), (0.5 * cell_width(lab), 0))
        wait_for_box(page, lab, other_than=before)
        assert_shows_the_kernels_numbers(lab)


def test_touch(browser, jupyter):
    folder, address = jupyter
    write_notebook(folder / "touch.ipynb", CELLS[:1])
    context = browser.new_context(viewport={"width": 800, "height": 1200}, has_touch=True)
    page = context.new_page()
    open_notebook(page, address("touch.ipynb"))
    lab = run_all(page)
    before, step = box(lab), cell_width(lab)
    x, y = middle(lab.locator(".roi-align .body"))
    place = lab.bounding_box()
    touch = context.new_cdp_session(page)
    for i, kind in enumerate(["touchStart", *["touchMove"] * 8, "touchEnd"]):
        points = [] if kind == "touchEnd" else [{"x": x + i / 8 * 1.5 * step, "y": y - i / 8 * 0.5 * step}]
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    across, down = (round(cells * 16) / 16 for cells in (1.5, -0.5))
    wait_for_box(page, lab, expected=[before[0] + across, before[1] + down, before[2] + across, before[3] + down])
    assert lab.bounding_box() == place  # the page has not scrolled
    assert_shows_the_kernels_numbers(lab)
    context.close()


def test_a_notebook_that_was_run_and_made_a_page_has_the_picture(browser, tmp_path, keep):
    write_notebook(tmp_path / "page.ipynb", CELLS[:1])
    command = ["-m", "nbconvert", "--to", "html", "--execute", str(tmp_path / "page.ipynb")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    run = subprocess.run([sys.executable, *command], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    context = browser.new_context(viewport={"width": 700, "height": 900}, offline=True)
    page = context.new_page()
    page.goto((tmp_path / "page.html").as_uri())
    picture = page.locator(".tinyseg-roi-lab-still img")
    assert picture.is_visible() and picture.evaluate("image => image.naturalWidth") > 500
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    keep(page, "roi_lab_page")
    context.close()
