"""Atomic files: the old one or the whole new one, and one clear sentence where neither is possible."""

import errno
import os
import subprocess
import sys

import numpy as np
import pytest

from tinyseg import files


def test_writes_bytes_text_and_arrays(tmp_path):
    files.write_bytes(tmp_path / "a.bin", b"\x00\r\n\xff")
    files.write_text(tmp_path / "a.txt", "Dice é\n")
    files.write_npz(tmp_path / "a.npz", {"x": np.arange(3), "layer.weight": np.eye(2)})
    assert (tmp_path / "a.bin").read_bytes() == b"\x00\r\n\xff"
    assert (tmp_path / "a.txt").read_bytes() == "Dice é\n".encode()
    with np.load(tmp_path / "a.npz") as stored:
        assert stored["x"].tolist() == [0, 1, 2] and stored["layer.weight"].shape == (2, 2)
    assert sorted(os.listdir(tmp_path)) == ["a.bin", "a.npz", "a.txt"]


def test_the_old_file_stays_until_the_new_one_is_complete(tmp_path):
    path = tmp_path / "weights"
    files.write_bytes(path, b"old")
    with files.atomic_write(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("no"), FileNotFoundError(errno.ENOENT, "other")])
def test_an_error_in_the_block_passes_through_and_leaves_the_old_file(tmp_path, error):
    path = tmp_path / "weights"
    files.write_bytes(path, b"old")
    with pytest.raises(type(error)) as caught, files.atomic_write(path) as file:
        file.write(b"half")
        raise error
    assert caught.value is error
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["weights"]


@pytest.mark.parametrize("number, words", [(errno.ENOSPC, "no space is left"), (errno.EIO, "disk reports an error")])
@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_full_disk_is_one_sentence(tmp_path, monkeypatch, number, words, step):
    path = tmp_path / "weights"
    files.write_bytes(path, b"old")

    def fail(*arguments):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(OSError, match=f"^cannot write .*weights: .*{words}") as caught:
        files.write_bytes(path, b"new")
    monkeypatch.undo()
    assert caught.value.errno == number
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["weights"]


def test_a_disk_that_fills_while_writing_is_one_sentence(tmp_path):
    resource = pytest.importorskip("resource", reason="a limit on file sizes needs a POSIX system")
    del resource
    program = (
        "import resource, sys\n"
        "from tinyseg import files\n"
        "files.write_bytes(sys.argv[1], b'old')\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try:\n    files.write_bytes(sys.argv[1], bytes(100_000))\n"
        "except OSError as error:\n    print(error)\n"
    )
    path = tmp_path / "weights"
    run = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True)
    assert run.stdout == f"cannot write {path}: the file would be larger than the system allows\n"
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["weights"]


def test_killed_while_writing_leaves_the_old_file_and_a_leftover_that_can_be_removed(tmp_path):
    program = (
        "import os, sys\n"
        "from tinyseg import files\n"
        "with files.atomic_write(sys.argv[1]) as file:\n"
        "    file.write(b'half'); file.flush(); os._exit(9)\n"
    )
    path = tmp_path / "weights"
    path.write_bytes(b"old")
    (tmp_path / ".hidden").write_bytes(b"mine")
    run = subprocess.run([sys.executable, "-c", program, str(path)], check=False)
    assert run.returncode == 9
    assert path.read_bytes() == b"old" and len(os.listdir(tmp_path)) == 3
    (removed,) = files.remove_unfinished(tmp_path)
    assert removed.startswith(".weights.")
    assert sorted(os.listdir(tmp_path)) == [".hidden", "weights"]


def test_places_that_cannot_be_written_are_named(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="^cannot write .*gone.x: the folder does not exist$"):
        files.write_bytes(tmp_path / "gone" / "x", b"")
    with pytest.raises(OSError, match="^cannot write .*folder: there is a folder of that name$"):
        files.write_bytes(tmp_path / "folder", b"")
    with pytest.raises(OSError, match="^cannot write .*file.x: "):
        files.write_bytes(tmp_path / "file" / "x", b"")
    with pytest.raises(OSError, match="^cannot make the folder .*file.x: "):
        files.make_folder(tmp_path / "file" / "x")
    with pytest.raises(OSError, match="^cannot make the folder .*file: there is a file of that name$"):
        files.make_folder(tmp_path / "file")
    with pytest.raises(ValueError, match="^mode is 'rb'"), files.atomic_write(tmp_path / "x", "rb"):
        pass


def test_a_folder_that_refuses_files_is_named(tmp_path, monkeypatch):
    def refuse(self, **options):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("pathlib.Path.touch", refuse)
    with pytest.raises(PermissionError, match="^cannot write in the folder .*out: permission denied$"):
        files.make_folder(tmp_path / "out")


def test_make_folder_makes_the_ones_above_and_leaves_nothing_in_it(tmp_path):
    folder = files.make_folder(tmp_path / "a" / "b")
    assert files.make_folder(folder) == folder
    assert os.listdir(folder) == []


def test_a_link_is_followed(tmp_path):
    (tmp_path / "real").write_bytes(b"old")
    try:
        (tmp_path / "link").symlink_to(tmp_path / "real")
    except OSError:  # Windows allows links to administrators only: then there is nothing to follow
        return
    files.write_bytes(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "real").read_bytes() == b"new"
