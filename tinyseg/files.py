"""Files that are either the old one or the whole new one, never half of it."""

import errno
import io
import os
import secrets
from contextlib import contextmanager, suppress
from pathlib import Path

#: How the name of a file that is not finished yet ends. It begins with a dot.
UNFINISHED = ".unfinished"

_REASONS = {
    errno.ENOSPC: "no space is left on the disk",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file would be larger than the system allows",
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
    errno.EROFS: "the disk can only be read",
    errno.ENOENT: "the folder does not exist",
    errno.ENOTDIR: "a part of the path is a file, not a folder",
    errno.EISDIR: "there is a folder of that name",
    errno.EEXIST: "there is a file of that name",
    errno.EIO: "the disk reports an error",
    errno.ENAMETOOLONG: "the name is too long",
}


def _cannot(verb, path, error):
    """Return the OSError to raise in place of ``error``: one sentence, and the same ``errno``."""
    reason = _REASONS.get(error.errno) or error.strerror or str(error) or type(error).__name__
    clear = type(error)(f"cannot {verb} {path}: {reason}")
    clear.errno = error.errno
    return clear


def make_folder(path):
    """Make a folder, with those above it, and check that files can be written in it.

    Parameters
    ----------
    path : str or path-like
        The folder. It may exist already.

    Returns
    -------
    pathlib.Path
        The folder.

    Raises
    ------
    OSError
        If it cannot be made or written to; one sentence that says why.
    """
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _cannot("make the folder", folder, error) from error
    probe = folder / f".{secrets.token_hex(4)}{UNFINISHED}"
    try:  # asking the system whether it would work is not reliable: root, network disks
        probe.touch(exist_ok=False)
        probe.unlink()
    except OSError as error:
        raise _cannot("write in the folder", folder, error) from error
    return folder


@contextmanager
def atomic_write(path, mode="wb"):
    """Open a file that appears under its name only when it is complete and on the disk.

    What the block writes goes to a hidden file in the same folder; at the end of the block that is synchronised to
    the disk and renamed. If the block raises, or the process is killed, an older file of that name stays as it was.

    Parameters
    ----------
    path : str or path-like
        The file. A symbolic link is followed.
    mode : {"wb", "w"}
        Bytes, or text in UTF-8 with the line ends as written.

    Yields
    ------
    file
        Open for writing; seekable.

    Raises
    ------
    OSError
        If the file cannot be written; one sentence that says why.
    ValueError
        If ``mode`` is another.
    """
    if mode not in ("wb", "w"):
        raise ValueError(f"mode is {mode!r}; expected 'wb' or 'w'")
    target = Path(os.path.realpath(path))
    unfinished = target.with_name(f".{target.name[:60]}.{secrets.token_hex(4)}{UNFINISHED}")
    encoding, newline = ("utf-8", "") if mode == "w" else (None, None)
    raised_by_caller = None
    try:
        if target.is_dir():  # some systems would rename over an empty one
            raise OSError(errno.EISDIR, "is a folder")
        with open(unfinished, mode.replace("w", "x"), encoding=encoding, newline=newline) as file:
            try:
                yield file
            except BaseException as error:
                raised_by_caller = error
                raise
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, target)
        _synchronise_folder(target.parent)
    except OSError as error:
        _remove(unfinished)
        if error is raised_by_caller and error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO):
            raise  # not about this file
        raise _cannot("write", path, error) from error
    except BaseException:
        _remove(unfinished)
        raise


def write_bytes(path, data):
    """Write bytes, whole or not at all, as `atomic_write` does.

    Parameters
    ----------
    path : str or path-like
        The file.
    data : bytes-like
        What it is to hold.

    Raises
    ------
    OSError
        If the file cannot be written; one sentence that says why.
    """
    with atomic_write(path) as file:
        file.write(data)


def write_text(path, text):
    """Write text in UTF-8, whole or not at all, as `atomic_write` does.

    Parameters
    ----------
    path : str or path-like
        The file.
    text : str
        What it is to hold; line ends stay as they are.

    Raises
    ------
    OSError
        If the file cannot be written; one sentence that says why.
    """
    with atomic_write(path, "w") as file:
        file.write(text)


def write_npz(path, arrays):
    """Write arrays in NumPy's npz format, uncompressed, whole or not at all, as `atomic_write` does.

    Parameters
    ----------
    path : str or path-like
        The file.
    arrays : dict
        From names to arrays.

    Raises
    ------
    OSError
        If the file cannot be written; one sentence that says why.
    """
    import numpy as np

    buffer = io.BytesIO()  # zipfile closes badly on a full disk: build first, write then
    np.savez(buffer, **arrays)
    write_bytes(path, buffer.getbuffer())


def remove_unfinished(folder):
    """Remove what killed processes left behind in a folder that no other process is writing to.

    Parameters
    ----------
    folder : str or path-like
        The folder; those in it are not searched.

    Returns
    -------
    list of str
        The names of the files removed.
    """
    leftovers = sorted(Path(folder).glob(f".*{UNFINISHED}"))
    for path in leftovers:
        _remove(path)
    return [path.name for path in leftovers]


def _remove(path):
    """Remove a file if that is possible."""
    with suppress(OSError):
        os.unlink(path)


def _synchronise_folder(folder):
    """Put a renaming on the disk, where the system has a way to."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:  # Windows opens no folders
        return
    try:
        os.fsync(handle)
    except OSError:  # nor do some network disks synchronise them
        pass
    finally:
        os.close(handle)
