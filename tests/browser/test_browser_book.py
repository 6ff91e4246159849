"""The built book in a real browser; ``make book`` comes first. TINYSEG_BOOK: another folder than docs/_build/book."""

import os
import urllib.parse
from html.parser import HTMLParser
from pathlib import Path

import pytest

pytestmark = pytest.mark.browser

ROOT = Path(__file__).parents[2]
BOOK = Path(os.environ.get("TINYSEG_BOOK") or ROOT / "docs" / "_build" / "book").absolute()
LESSONS = sorted(path.stem for path in (ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
WIDE, NARROW = {"width": 1300, "height": 900}, {"width": 390, "height": 800}


@pytest.fixture(scope="module", autouse=True)
def book():
    assert (BOOK / "index.html").exists(), f"there is no book in {BOOK}: run 'make book' first"


@pytest.fixture
def visit(browser):
    """Return a function that opens a page of the book in a window; what the page asked for elsewhere fails the test."""
    foreign, contexts = [], []

    def call(address, viewport=WIDE):
        context = browser.new_context(viewport=viewport)
        contexts.append(context)
        page = context.new_page()
        page.on("request", lambda asked: asked.url.startswith(("file:", "data:")) or foreign.append(asked.url))
        page.goto(f"{BOOK.as_uri()}/{address}", wait_until="load")
        return page

    yield call
    for context in contexts:
        context.close()
    assert not foreign, f"the book asked for {foreign}"


def test_front_page_leads_to_the_course(visit, keep):
    page = visit("index.html")
    assert page.title().startswith("tinyseg")
    keep(page, "book_front_wide")
    page.click("article a:has-text('Semantic and instance segmentation')")
    page.wait_for_url("**/course/01_segmentation.html")
    assert page.inner_text("article h1").startswith("1. Semantic and instance segmentation")
    page.click(f"footer a[href*='{LESSONS[1]}']")  # on to the next one
    page.wait_for_url(f"**/course/{LESSONS[1]}.html")
    keep(visit("index.html", NARROW), "book_front_narrow")


@pytest.mark.parametrize("viewport", [WIDE, NARROW], ids=["wide", "narrow"])
@pytest.mark.parametrize("lesson", LESSONS)
def test_lesson_has_its_outputs_and_fits_the_window(visit, keep, lesson, viewport):
    page = visit(f"course/{lesson}.html", viewport)
    pictures = page.locator("article img").all()
    assert pictures
    for picture in pictures:
        picture.scroll_into_view_if_needed()  # some load when they come into sight
        page.wait_for_function("picture => picture.complete && picture.naturalWidth > 0", arg=picture.element_handle())
    assert page.locator("article .cell_output").count() >= len(pictures) > 0
    assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"], (
        "the page is wider than the window"
    )
    keep(page, f"book_{lesson}_{viewport['width']}")


def test_formulas_are_set_without_network(visit):
    page = visit("course/01_segmentation.html")
    page.wait_for_selector("mjx-container")


@pytest.mark.parametrize("word", ["RoIAlign", "receptive_field", "Dice"])
def test_search(visit, keep, word):
    page = visit("index.html")
    page.fill("input[name=q]", word)
    page.press("input[name=q]", "Enter")
    page.wait_for_selector("#search-results li a")
    keep(page, f"book_search_{word}")
    page.click("#search-results li a >> nth=0")
    page.wait_for_load_state()
    assert word.casefold() in page.inner_text("article").casefold()


class Links(HTMLParser):
    """The targets of a page's links, pictures and scripts, and the places in it that links may name."""

    def __init__(self, text):
        super().__init__()
        self.targets, self.ids = [], set()
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        for name, value in attributes:
            if name in ("href", "src") and value is not None:
                self.targets.append(value)
            elif name in ("id", "name"):
                self.ids.add(value)


def broken_links(folder):
    """Return the links of all pages of a folder that lead nowhere in it."""
    pages = {path.resolve(): Links(path.read_text("utf-8")) for path in folder.rglob("*.html")}
    broken = []
    for path, page in pages.items():
        for target in page.targets:
            parts = urllib.parse.urlsplit(target)
            if parts.scheme or parts.netloc:
                continue
            place = (path.parent / urllib.parse.unquote(parts.path)).resolve() if parts.path else path
            # from a page of source, Sphinx leads to the right page, by a place that is not there for what it re-exports
            fragment = "" if "_modules" in path.parts else urllib.parse.unquote(parts.fragment)
            if not place.is_file() or (fragment and place in pages and fragment not in pages[place].ids):
                broken.append(f"{path.relative_to(folder)}: {target}")
    return sorted(broken)


def test_links_lead_somewhere():
    assert broken_links(BOOK.resolve()) == []


def test_the_check_of_links_notices(tmp_path):
    (tmp_path / "a.html").write_text('<a id="here" href="b.html#there"></a><a href="#here"></a><img src="c.png">')
    (tmp_path / "b.html").write_text('<p id="there"><a href="a.html#gone"></a><a href="https://example.org/x"></a>')
    assert broken_links(tmp_path) == ["a.html: c.png", "b.html: a.html#gone"]
