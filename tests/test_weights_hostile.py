"""Weights files that are damaged, or made to do harm: each ends in one sentence, and nothing of it is run."""

import builtins
import functools
import io
import os
import pathlib
import pickle
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from weights_files import (
    MAGIC,
    ORDERED_DICT,
    REFERENCE,
    rewritten,
    state,
    storage,
    tensor,
    text,
    torch_stream,
    torch_zip,
    tup,
    whole,
)

from tinyseg import weights


def refusal(path):
    """Return why a file is refused: one line that names it."""
    with pytest.raises(ValueError) as caught:
        weights.load(path)
    message = str(caught.value)
    assert message.startswith(f"weights file {str(path)!r}: ") and "\n" not in message and len(message) < 600
    return message.split(": ", 1)[1]


class Harm:
    """Pickles as a call of any function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


# ---- pickles that would run something --------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("write", [torch_zip, torch_stream])
@pytest.mark.parametrize(
    ("function", "argument"),
    [
        (os.mkdir, "{folder}"),
        (os.system, 'mkdir "{folder}"'),
        (builtins.eval, "__import__('os').mkdir(r'{folder}')"),
        (builtins.exec, "import os; os.mkdir(r'{folder}')"),
        (pathlib.Path.mkdir, pathlib.Path("{folder}")),
    ],
)
def test_functions_are_refused_by_name_and_not_called(tmp_path, function, argument, write, protocol):
    folder = tmp_path / "harm"
    filled = type(argument)(str(argument).format(folder=folder))
    description = pickle.dumps({"a": Harm(function, filled)}, protocol)
    reason = refusal(write(tmp_path / "a.pth", description))
    assert "not part of a tensor: refused, and nothing of it was run" in reason
    assert sorted(os.listdir(tmp_path)) == ["a.pth"]
    pickle.loads(description)
    assert folder.is_dir()  # so it would have run


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        (b"cos\nsystem\n" + tup(text("x")) + b"R", "it refers to 'os.system'"),
        (text("os") + text("system") + b"\x93" + tup(text("x")) + b"R", "it refers to 'os.system'"),
        (b"](e" + text("system") + b"\x93", "by a list and a 'system'"),
        (b"ctorch.storage\n_load_from_bytes\n", "it refers to 'torch.storage._load_from_bytes'"),
        (b"ctorch\\X\nSize\n", r"it refers to 'torch\\X.Size'"),
        (b"ctorch\xff\nSize\n", "at the pickle instruction GLOBAL"),
        (b"ctorch\nload\n", "it refers to 'torch.load'"),
        (b"ctorch\nSize\n" + tup(whole(1)) + b"\x81", "instruction NEWOBJ"),
        (b"(ios\nsystem\n", "instruction INST"),
        (b"(o", "instruction OBJ"),
        (b"\x82\x01", "instruction EXT1"),
        (b"\x97", "instruction NEXT_BUFFER"),
        (b"P0\n", "instruction PERSID"),
        (text("x") + tup() + b"R", "it calls 'x' in a way that describes no tensor"),
        (tensor() + tup() + b"R", "it calls tensor in a way that describes no tensor"),
        (b"ctorch\nSize\n" + text("x") + b"R", "it calls torch.Size without arguments"),
        (b"ctorch\nFloatStorage\n" + tup(whole(5)) + b"R", "it calls torch.FloatStorage in a way"),
        (tup(text("module"), text("x"), text("y"), text("z"), text("u")) + b"Q", "the outside object 'module'"),
        (text("storage") + b"Q", "an outside object by a 'storage'"),
        (b")Q", "an outside object by a tuple"),
        (tensor() + b"}b", "it sets attributes of a tensor"),
        (ORDERED_DICT + text("x") + b"b", "it sets attributes of a dictionary"),
        (b")" + text("x") + b"a", "it appends to a tuple"),
        (b"]" + text("x") + text("y") + b"s", "it sets items of a list"),
        (b"})" + text("y") + b"s", "a dictionary has a tuple as a key"),
        (b"}G" + bytes(8) + text("y") + b"s", "a dictionary has a float as a key"),
        (b"}" + whole(2**61 - 1) + text("y") + b"s", "a dictionary has a int as a key"),
        (whole(2**70), "a whole number of 71 bits"),
        (b"I" + b"9" * 5000 + b"\n", "instruction INT"),
        (b"\x8b" + struct.pack("<i", 2**30), "instruction LONG4"),
        (b"X" + struct.pack("<I", 2**31), "cut short or damaged, at the pickle instruction BINUNICODE"),
        (b"\x8d" + struct.pack("<Q", 2**62), "cut short or damaged, at the pickle instruction BINUNICODE8"),
        (b"j" + struct.pack("<I", 2**31), "recalls an item that was never stored"),
        (b"t", "ends a group that never began"),
        (b"\x87", "uses an item that is not there"),
        (b"\xff", "byte ff is no instruction of a pickle"),
        (b"]", "entry 'a' is a list"),
        (b"}" + text("b") + tensor() + b"s", "entry 'a' is a dictionary"),
        (ORDERED_DICT[:-2] + b"]]a\x85R", "an OrderedDict is not made of pairs"),
    ],
)
def test_every_instruction_and_call_outside_a_tensor_is_refused(tmp_path, item, reason):
    assert reason in refusal(torch_zip(tmp_path / "a.pth", state(a=item)))


def test_the_top_must_be_a_dictionary_of_tensors_by_name(tmp_path):
    assert "holds a tensor; expected a dictionary" in refusal(
        torch_zip(tmp_path / "a.pth", b"\x80\x02" + tensor() + b".")
    )
    numbered = b"\x80\x02}" + whole(1) + tensor() + b"s."
    assert "has the number 1 as its name" in refusal(torch_zip(tmp_path / "b.pth", numbered))
    assert "uses an item that is not there" in refusal(torch_zip(tmp_path / "c.pth", b"\x80\x02."))
    assert "has no end" in refusal(torch_zip(tmp_path / "d.pth", b"\x80\x02}"))


def test_depth_and_sharing_cost_nothing(tmp_path):
    deep = b"]" * 100_000 + b"a" * 99_999
    assert "entry 'a' is a list" in refusal(torch_zip(tmp_path / "deep.pth", state(a=deep)))
    laughs = b")" + b"".join(b"q\x00h\x00\x86" for _ in range(100))  # 2**100 empty tuples, each pair one tuple twice
    assert "entry 'a' is a tuple" in refusal(torch_zip(tmp_path / "laughs.pth", state(a=laughs)))
    assert "has a tuple as a key" in refusal(torch_zip(tmp_path / "key.pth", state(a=b"}" + laughs + whole(1) + b"s")))
    assert "by a tuple and a tuple" in refusal(torch_zip(tmp_path / "name.pth", state(a=laughs + laughs + b"\x93")))
    shape = tensor()[: -len(tup(whole(1)) + b"\x89" + ORDERED_DICT + b"tR")]
    odd = shape + laughs + b"\x89" + ORDERED_DICT + b"tR"
    assert "not whole numbers" in refusal(torch_zip(tmp_path / "stride.pth", state(a=odd)))
    itself = b"]q\x00h\x00a"
    assert "entry 'a' is a list" in refusal(torch_zip(tmp_path / "itself.pth", state(a=itself)))


def test_a_program_that_takes_too_long_is_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(weights.unpickling, "MOST_STEPS", 1000)
    assert "takes more than 1000 steps" in refusal(torch_zip(tmp_path / "a.pth", state(a=b"]" * 2000)))


# ---- tensors that reach beyond their storage, or would fill the memory -----------------------------------------------


@pytest.mark.parametrize(
    ("view", "reason"),
    [
        (tensor(shape=(5,)), "reaches beyond its storage '0' of 16 bytes"),
        (tensor(offset=1), "reaches beyond its storage"),
        (tensor(shape=(2, 2), strides=(3, 1)), "reaches beyond its storage"),
        (tensor(shape=(1,), offset=2**62), "reaches beyond its storage"),
        (tensor(storage(count=5)), "storage '0' has 16 bytes; expected 20"),
        (tensor(storage(count=2**61)), f"storage '0' has 16 bytes; expected {2**63}"),
        (tensor(storage("../../0")), "storage '../../0' is missing"),
        (tensor(storage(kind=b"ctorch\ndevice\n")), "a storage without a type, name or length"),
        (tensor(storage("0", -4)), "a storage without a type, name or length"),
        (tensor(text("0")), "lacks a storage, a shape or strides"),
        (tensor(offset=-1), "not whole numbers"),
        (tensor(strides=(-1,)), "not whole numbers"),
        (tensor(shape=(-4,)), "not whole numbers"),
        (tensor(shape=(2, 2)), "not whole numbers"),
        (tensor(shape=(1,) * 40, strides=(1,) * 40), "not whole numbers for up to 32 axes"),
        (tensor(shape=(2**40,), strides=(0,)), f"would take {2**42} bytes"),
        (tensor(shape=(2**40, 2**40), strides=(0, 0)), "which no memory holds"),
        (tensor(shape=(0, 2**40, 2**40), strides=(0, 0, 0)), "which no memory holds"),
        (tensor(storage("0", 4, b"ctorch\nFloatStorage\n", tup(text("v"), whole(2), whole(3)))), "lies outside it"),
        (tensor()[:-1] + b"\x86R", "in a way that describes no tensor"),
    ],
)
def test_tensors_stay_within_their_storage(tmp_path, view, reason):
    assert reason in refusal(torch_zip(tmp_path / "a.pth", state(a=view)))


def test_a_size_one_axis_may_have_any_stride(tmp_path):
    found = weights.load(torch_zip(tmp_path / "a.pth", state(a=tensor(shape=(1, 4), strides=(2**62, 1)))))
    assert found["a"].shape == (1, 4)


def test_a_thousand_views_of_one_storage_do_not_fill_the_memory(tmp_path):
    views = {f"a{i}": tensor(storage(count=2**18), shape=(2**18,)) for i in range(1000)}
    path = torch_zip(tmp_path / "a.pth", state(**views), {"0": bytes(2**20)})
    tracemalloc.start()
    try:
        assert "far more than the" in refusal(path)
        assert tracemalloc.get_traced_memory()[1] < 20 * 2**20
    finally:
        tracemalloc.stop()


def test_two_lengths_of_one_storage(tmp_path):
    views = state(a=tensor(), b=tensor(storage(count=3), shape=(3,)))
    assert "two lengths for storage '0'" in refusal(torch_zip(tmp_path / "a.pth", views))


# ---- archives --------------------------------------------------------------------------------------------------------


def test_zip_bombs_are_refused_before_they_unpack(tmp_path):
    zeros = {"0": bytes(2**24)}
    path = torch_zip(tmp_path / "a.pth", state(a=tensor(storage(count=2**22))), zeros, zipfile.ZIP_DEFLATED)
    assert "is compressed, as no file that PyTorch writes is" in refusal(path)
    np.savez_compressed(tmp_path / "bomb.npz", a=np.zeros(2**24))
    tracemalloc.start()
    try:
        assert "refused as a zip bomb" in refusal(tmp_path / "bomb.npz")
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_entries_that_claim_less_than_they_hold_do_not_unpack_whole(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", a=np.zeros(2**22))
    data = (tmp_path / "a.npz").read_bytes()
    size = struct.pack("<I", 2**25 + 128)
    at = data.rindex(size)  # the size in the table of contents
    (tmp_path / "a.npz").write_bytes(data[:at] + struct.pack("<I", 1000) + data[at + 4 :])
    tracemalloc.start()
    try:
        assert "is damaged" in refusal(tmp_path / "a.npz")
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_overlapping_entries_cannot_multiply_a_file(tmp_path):
    zeros = {str(key): b"" for key in range(50)}
    path = torch_zip(tmp_path / "a.pth", state(a=tensor()), {"0": bytes(2**16), **zeros})
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        start = archive.start_dir
    header = struct.pack("<II", 0, 0)  # both sizes of the empty entries
    at = data.find(b"PK\x01\x02", start)
    while at >= 0:
        if data[at + 20 : at + 28] == header:
            data[at + 20 : at + 28] = struct.pack("<II", 2**16, 2**16)
        at = data.find(b"PK\x01\x02", at + 4)
    path.write_bytes(data)
    assert "more than the" in refusal(path)


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.array([{}], dtype=object), "holds Python objects: refused"),
        (np.zeros(2, [("x", "f4")]), "a header that describes no array of numbers"),
        (np.zeros(2, "M8[s]"), "a header that describes no array of numbers"),
        (np.array(["text"]), "a header that describes no array of numbers"),
    ],
)
def test_npz_holds_numbers_only(tmp_path, array, reason):
    np.savez(tmp_path / "a.npz", a=array)
    assert reason in refusal(tmp_path / "a.npz")


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000,), }", "which does not fit"),
        (b"{'descr': '<f4', 'fortran_order': False, 'shape': (0, 9223372036854775807), }", "which no memory holds"),
        (b"{'descr': '<f0', 'fortran_order': False, 'shape': (1000000000000,), }", "which NumPy does not know"),
        (b"{'descr': '<f3', 'fortran_order': False, 'shape': (0,), }", "which NumPy does not know"),
        (b"{'descr': __import__('os').getcwd(), 'fortran_order': False, 'shape': (0,), }", "describes no array"),
        (b"(" * 5000, "describes no array"),
    ],
)
def test_npz_headers_are_not_believed(tmp_path, header, reason):
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("a.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header)
    assert reason in refusal(tmp_path / "a.npz")


def test_npz_metadata_that_is_none(tmp_path):
    np.savez(tmp_path / "a.npz", __metadata__=np.full(10_000, ord("["), np.uint8))
    assert "does not hold strings by name" in refusal(tmp_path / "a.npz")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "it is empty"),
        (b"a", "it is neither safetensors, nor npz"),
        (b"PK\x03\x04 and so on", "its table of contents cannot be read"),
        (b"\x80", "the file is cut short or damaged"),
        (pickle.dumps({"a": 1}, 2), "it is a pickle, but not one of PyTorch's"),
        (pickle.dumps(MAGIC, 2), "has no end"),
        (bytes(257) + b"ustar  \0" + bytes(300), "the tar format that PyTorch wrote before 2017"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer"),
        (b"\n\n<!DOCTYPE html>"[2:], "a web page"),
        (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
        (b"\x93NUMPY\x01\x00", "a single array without a name"),
        (struct.pack("<Q", 2**60) + b"{}", "cut short or damaged"),
        (struct.pack("<Q", 2) + b"{]", "cut short or damaged"),
    ],
)
def test_other_files_are_named(tmp_path, data, reason):
    (tmp_path / "a.pth").write_bytes(data)
    assert reason in refusal(tmp_path / "a.pth")


def test_other_zips_and_versions_are_named(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("readme.txt", "x")
    assert "entry 'readme.txt' is not an array of an npz archive" in refusal(tmp_path / "a.zip")
    script = torch_zip(tmp_path / "script.pt", state(a=tensor()), **{"constants.pkl": b""})
    assert "it is a TorchScript program, not weights" in refusal(script)
    middle = torch_zip(tmp_path / "middle.pth", state(a=tensor()), byteorder=b"middle")
    assert "neither little nor big" in refusal(middle)
    future = torch_stream(tmp_path / "future.pth", state(a=tensor()), protocol=1002)
    assert "unknown version" in refusal(future)


def test_streams_with_wrong_storages(tmp_path):
    good = ("0", 4, bytes(16))
    for name, storages, reason in (
        ("short", [("0", 4, bytes(15))], "storage '0' should have 16 bytes"),
        ("length", [("0", 5, bytes(20))], "storage '0' should have 16 bytes"),
        ("stranger", [good, ("1", 4, bytes(16))], "storage '1' belongs to no tensor"),
        ("twice", [good, good], "storage '0' belongs to no tensor"),
        ("none", [], "storage '0' is missing"),
    ):
        assert reason in refusal(torch_stream(tmp_path / name, state(a=tensor()), storages))


def test_a_folder_or_no_file_is_the_system_s_own_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        weights.load(tmp_path / "none.pth")
    with pytest.raises(OSError):
        weights.load(tmp_path)


# ---- any damage to a valid file --------------------------------------------------------------------------------------


@functools.cache
def valid_files():
    """Return the bytes of a small valid file of every format."""
    files = {name: (REFERENCE / name).read_bytes() for name in ("state.pth", "state_stream.pth", "state_protocol4.pth")}
    small = {"a": np.ones((2, 3), np.float32), "b": np.arange(3), "c": np.array(True)}
    files["w.npz"] = bytes(weights.npz_bytes(small, {"x": "y"}))
    files["w.safetensors"] = weights.safetensors_bytes(small, {"x": "y"})
    packed = io.BytesIO()
    np.savez_compressed(packed, **small)
    files["packed.npz"] = packed.getvalue()
    return files


@st.composite
def damage(draw):
    """Draw a function that changes, removes, inserts or repeats bytes, and perhaps cuts the rest off."""
    places = draw(st.lists(st.tuples(st.integers(0, 2**16), st.binary(max_size=4), st.integers(0, 4)), max_size=4))
    cut = draw(st.none() | st.integers(0, 2**16))

    def change(data):
        for place, inserted, removed in places:
            at = place % (len(data) + 1)
            data = data[:at] + inserted + data[at + removed :]
        return data if cut is None else data[: cut % (len(data) + 1)]

    return change


def load_damaged(folder, data):
    """Load, and check that there are either arrays of bounded size or a clear refusal."""
    path = folder / "damaged"
    path.write_bytes(data)
    try:
        arrays = weights.load(path)
    except ValueError as error:
        assert str(error).startswith(f"weights file {str(path)!r}: ") and "\n" not in str(error)
    else:
        assert sum(array.nbytes for array in arrays.values()) <= 200 * len(data) + 64 * 2**20


@pytest.mark.parametrize("name", sorted(valid_files()))
@settings(max_examples=100, deadline=None, derandomize=True)
@given(change=damage())
def test_a_damaged_file_gives_arrays_or_one_sentence(tmp_path_factory, name, change):
    load_damaged(tmp_path_factory.getbasetemp(), change(valid_files()[name]))


@pytest.mark.parametrize("name", ["packed.npz", "state.pth", "state_protocol4.pth", "w.npz"])
@settings(max_examples=100, deadline=None, derandomize=True)
@given(change=damage())
def test_damage_behind_checksums_that_fit(tmp_path_factory, name, change):
    def damaged(entry, data):
        return change(data) if entry.endswith(("data.pkl", ".npy", "byteorder")) else data

    load_damaged(tmp_path_factory.getbasetemp(), rewritten(valid_files()[name], damaged))


@pytest.mark.parametrize("name", sorted(valid_files()))
def test_a_file_cut_anywhere_gives_one_sentence(tmp_path, name):
    data = valid_files()[name]
    for end in range(0, len(data) - 1, max(1, len(data) // 200)):
        (tmp_path / "cut").write_bytes(data[:end])
        refusal(tmp_path / "cut")
