"""The demo: its files, and its page, which must need nothing else."""

from html.parser import HTMLParser

import pytest

from tinyseg.cli import main
from tinyseg.training import load_model


class Page(HTMLParser):
    """Collects what a page refers to, and whether its elements are closed in order."""

    void = {"meta", "img", "br", "hr", "link", "input"}

    def __init__(self, text):
        super().__init__()
        self.sources, self.open, self.alts, self.text = [], [], [], ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.sources += [attributes[name] for name in ("src", "href", "srcset", "data") if name in attributes]
        if tag == "img":
            self.alts.append(attributes.get("alt"))
        if tag not in self.void:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    out = tmp_path_factory.mktemp("demo") / "demo"
    assert main(["demo", "--steps", "2", "--out", str(out)]) == 0
    return out


def test_files(demo):
    assert sorted(path.name for path in demo.iterdir()) == ["demo.html", "pictures", "weights.safetensors"]
    kinds = {"picture", "truth", "probability", "mask", "errors"}
    assert {path.name for path in (demo / "pictures").iterdir()} == {f"{n}_{k}.png" for n in range(1, 7) for k in kinds}
    assert load_model(demo / "weights.safetensors")[1]["step"] == 2


def test_the_page_is_whole_and_needs_nothing_else(demo):
    text = (demo / "demo.html").read_text(encoding="utf-8")
    page = Page(text)
    assert page.open == [] and len(page.alts) == 6 * 5 + 1 and all(page.alts)
    assert all(source.startswith("data:image/png;base64,") for source in page.sources)
    assert "http" not in text and "url(" not in text and "@import" not in text and "<script" not in text
    assert 'name="viewport"' in text


def test_the_page_says_what_the_files_say(demo):
    page = Page((demo / "demo.html").read_text(encoding="utf-8"))
    dice = load_model(demo / "weights.safetensors")[1]["scores"]["dice"]
    assert f"{dice:.3f}" in page.text
    for word in ("probability", "mask", "found", "false alarm", "missed", "Dice", "IoU", "Pixel error"):
        assert word in page.text


def test_a_second_demo_replaces_the_first_but_nothing_else(demo, tmp_path, capsys):
    (tmp_path / "thesis.txt").write_text("precious")
    assert main(["demo", "--steps", "1", "--out", str(tmp_path)]) == 2
    assert "holds other files; choose another folder with --out" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
    assert main(["demo", "--steps", "1", "--out", str(demo)]) == 0
    assert load_model(demo / "weights.safetensors")[1]["step"] == 1
