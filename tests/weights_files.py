"""Builders of weights files for the tests: PyTorch's two formats around any pickle, and the pickle of a tensor."""

import io
import pathlib
import pickle
import struct
import zipfile

REFERENCE = pathlib.Path(__file__).parent / "reference" / "weights"

#: pickled by hand, so that the tests do not rest on the code that they test
ORDERED_DICT = b"ccollections\nOrderedDict\n)R"
MAGIC = 0x1950A86A20F9469CFC6C


def whole(number):
    """Return the pickle instructions of a whole number."""
    return b"J" + struct.pack("<i", number) if abs(number) < 2**31 else pickle.dumps(number, 2)[2:-1]


def text(string):
    """Return the pickle instructions of a string."""
    return b"X" + struct.pack("<I", len(string.encode())) + string.encode()


def tup(*items):
    """Return the pickle instructions of a tuple of instructions."""
    return b"(" + b"".join(items) + b"t"


def storage(key="0", count=4, kind=b"ctorch\nFloatStorage\n", *view):
    """Return the pickle instructions of a storage."""
    return tup(text("storage"), kind, text(key), text("cpu"), whole(count), *view) + b"Q"


def tensor(of=None, offset=0, shape=(4,), strides=(1,)):
    """Return the pickle instructions of a tensor over storage ``of``."""
    sizes = (tup(*map(whole, shape)), tup(*map(whole, strides)))
    of = storage() if of is None else of
    return b"ctorch._utils\n_rebuild_tensor_v2\n" + tup(of, whole(offset), *sizes, b"\x89", ORDERED_DICT) + b"R"


def state(**items):
    """Return the pickle of a state dict."""
    return b"\x80\x02}(" + b"".join(text(name) + item for name, item in items.items()) + b"u."


def torch_zip(path, description, storages=None, compression=zipfile.ZIP_STORED, **entries):
    """Write a file of PyTorch's zip format."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", description)
        for name, data in entries.items():
            archive.writestr(f"archive/{name}", data)
        for key, data in ({"0": bytes(16)} if storages is None else storages).items():
            archive.writestr(f"archive/data/{key}", data)
        archive.writestr("archive/version", b"3\n")
    return path


def torch_stream(path, description, storages=(("0", 4, bytes(16)),), protocol=1001):
    """Write a file of PyTorch's older format; each storage is (key, number of elements, bytes)."""
    parts = [pickle.dumps(item, 2) for item in (MAGIC, protocol, {"little_endian": True})]
    parts += [description, pickle.dumps([key for key, _, _ in storages], 2)]
    parts += [struct.pack("<q", count) + data for _, count, data in storages]
    path.write_bytes(b"".join(parts))
    return path


def rewritten(data, change):
    """Return the bytes of a zip archive, each entry put through ``change(name, data)``, with checksums that fit."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w") as new:
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))
    return out.getvalue()
