"""``tinyseg explain roi``: what it prints and writes, and how it names mistakes."""

import json
import xml.etree.ElementTree

import numpy as np
import pytest
from PIL import Image

from tinyseg import cli, explain

BOX = ["--box", "0", "0", "2", "2"]


def run(*arguments):
    assert cli.main(["explain", "roi", *map(str, arguments)]) == 0


def test_without_options_all_operators_on_the_ramp(capsys):
    run(*BOX)
    text = capsys.readouterr().out
    comparison = explain.roi_compare(np.arange(25.0).reshape(5, 5), (0, 0, 2, 2), output_size=2)
    assert text == "\n\n".join(map(str, comparison.traces)) + "\n"


def test_one_operator_with_options(capsys):
    run(*BOX, "--op", "roi_align_aligned", "--ratio", 2, "--output-size", "2x1")
    trace = explain.roi(
        np.arange(25.0).reshape(5, 5), (0, 0, 2, 2), output_size=(2, 1), sampling_ratio=2, aligned=True
    )  # fmt: skip
    assert capsys.readouterr().out == f"{trace}\n"


def test_files_of_each_kind(tmp_path, capsys):
    x = np.random.default_rng(0).standard_normal((3, 8, 9)).astype(np.float32)
    np.save(tmp_path / "map.npy", x)
    how = ["--box", -4, 8, 90.5, 70, "--map", tmp_path / "map.npy", "--scale", 0.125, "--channel", 2, "--bin", 1, 0]
    for op in (["roi_pool"], ["roi_align", "roi_align_aligned"]):
        for end in ("svg", "png", "html", "json"):
            run(*how, "--op", *op, "--out", tmp_path / f"roi.{end}", "--overwrite")
            assert capsys.readouterr().out.endswith(f"saved in {tmp_path / f'roi.{end}'}\n")
        made = explain.roi_compare(x, (-4, 8, 90.5, 70), output_size=2, spatial_scale=0.125, ops=op)
        made = made if len(op) > 1 else made.traces[0]
        assert (tmp_path / "roi.json").read_text("utf-8") == made.to_json(2)
        assert (tmp_path / "roi.svg").read_text("utf-8") == made.svg(2, (1, 0))
        assert (tmp_path / "roi.html").read_text("utf-8") == made.html(2)
        xml.etree.ElementTree.parse(tmp_path / "roi.svg")
        with Image.open(tmp_path / "roi.png") as picture:
            assert picture.width > 600
    assert len(json.loads((tmp_path / "roi.json").read_text("utf-8"))["traces"]) == 2
    assert {path.name for path in tmp_path.iterdir()} == {"map.npy", "roi.svg", "roi.png", "roi.html", "roi.json"}


def test_a_picture_s_grey_values(tmp_path, capsys):
    values = np.arange(20, dtype=np.uint8).reshape(4, 5) * 12
    Image.fromarray(values).save(tmp_path / "grey.png")
    run("--box", 0, 0, 1, 1, "--map", tmp_path / "grey.png", "--op", "roi_pool", "--output-size", 1)
    assert f"{values[1, 1] / 255:.6g} (row 1, column 1)" in capsys.readouterr().out


def test_mistakes_are_one_line(fails, tmp_path):
    np.save(tmp_path / "five.npy", np.zeros((1, 1, 1, 4, 4)))
    np.save(tmp_path / "words.npy", np.array(["a", "b"]).reshape(1, 2))
    np.save(tmp_path / "pickled.npy", np.array([[{}]], object), allow_pickle=True)
    (tmp_path / "broken.npy").write_bytes(b"\x93NUMPY")
    (tmp_path / "there.svg").write_text("mine")
    for arguments, words in (
        (["--out", tmp_path / "roi.pdf"], "expected a name that ends with .svg, .png, .html, .json"),
        (["--out", tmp_path / "there.svg"], "is there already; add --overwrite, or choose another --out"),
        (["--out", tmp_path / "none" / "roi.svg"], "the folder does not exist"),
        (["--map", tmp_path / "none.npy"], "none.npy: no such file"),
        (["--map", tmp_path / "five.npy"], "holds an array of shape (1, 1, 1, 4, 4); expected (H, W) or (C, H, W)"),
        (["--map", tmp_path / "words.npy"], "features has dtype <U1; expected numbers"),
        (["--map", tmp_path / "pickled.npy"], "is no .npy file of an array of numbers"),
        (["--map", tmp_path / "broken.npy"], "is no .npy file of an array of numbers"),
        (["--map", tmp_path / "there.svg"], "there.svg"),
        (["--channel", 1], "channel is 1; expected a whole number from 0 to 0"),
        (["--bin", 0, 2], "px is 2; expected a whole number from 0 to 1"),
        (["--output-size", "2x0"], "'2x0' is no number of bins such as 7 or 2x3"),
        (["--scale", 0], "argument --scale"),
        (["--op", "roi_align", "roi_align"], "expected different operators"),
        (["--op", "roi"], "argument --op: invalid choice: 'roi'"),
        (["--op", "roi_pool", "--ratio", 2], "--ratio is 2, but --op has no roi_align"),
        (["--box", 0, "nan", 1, 1], "row 0 of rois has y1 nan; expected a finite number"),
        (["--box", 3, 0, 1, 1], "row 0 of rois has x2 1, less than x1 3; expected no reversed box"),
    ):
        assert words in fails("explain", "roi", *BOX, *arguments), arguments
    assert (tmp_path / "there.svg").read_text() == "mine"
    assert "the following arguments are required: --box" in fails("explain", "roi")


def test_help_is_for_newcomers(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["explain", "roi", "--help"])
    text = capsys.readouterr().out
    assert stop.value.code == 0 and "region of interest" in text and "tinyseg explain roi --box 0.4 0.6 3.1 2.5" in text
