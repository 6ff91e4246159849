"""Weights files: what is saved comes back, PyTorch's own files are read, and a misfit is named."""

import hashlib
import os
import struct
import zipfile

import numpy as np
import pytest
from weights_files import REFERENCE, rewritten, state, storage, tensor, text, torch_stream, torch_zip, tup, whole

from tinyseg import weights

EXTENSIONS = (".safetensors", ".npz", ".pth", ".pt")
DTYPES = ("float64", "float32", "float16", "int64", "int32", "int16", "int8", "uint8", "bool")


def expected():
    with np.load(REFERENCE / "expected.npz") as stored:
        return dict(stored)


def assert_same(found, wanted):
    assert found.keys() == wanted.keys()
    for name, array in wanted.items():
        assert found[name].dtype == array.dtype, name
        np.testing.assert_array_equal(found[name], array, err_msg=name, strict=True)
        assert found[name].flags.c_contiguous and found[name].flags.writeable and found[name].dtype.isnative, name


# ---- files that PyTorch wrote --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["state.pth", "state_stream.pth", "state_protocol4.pth"])
def test_reads_a_state_dict_of_pytorch(name):
    found, metadata = weights.load(REFERENCE / name, metadata=True)
    assert_same(found, expected())
    assert list(found) == list(expected())
    assert metadata == {"_metadata": {"": {"version": 1}, "layer.norm": {"version": 2}}}


@pytest.mark.parametrize("name", ["checkpoint.pth", "checkpoint_stream.pth"])
def test_reads_the_weights_of_a_checkpoint_and_the_numbers_beside_them(name):
    found, metadata = weights.load(REFERENCE / name, metadata=True)
    assert_same(found, {"weight": np.arange(4, dtype=np.float32)})
    assert metadata == {"epoch": 7, "name": "unet"}


def test_a_whole_module_is_refused_by_its_name():
    with pytest.raises(
        ValueError, match=r"module.pth.*'torch.nn.modules.linear.Linear', which is not part of a tensor"
    ):
        weights.load(REFERENCE / "module.pth")


@pytest.mark.parametrize("key", ["state_dict", "model_state_dict", "model"])
def test_a_checkpoint_may_keep_its_weights_under_several_names(tmp_path, key):
    nested = b"}" + text("w") + tensor() + b"s"
    assert list(weights.load(torch_zip(tmp_path / "a.pth", state(epoch=whole(3), **{key: nested})))) == ["w"]


def test_the_content_tells_the_format_and_not_the_name(tmp_path):
    for name, data in (("a.npz", "state.pth"), ("a.safetensors", "state_stream.pth"), ("a.pth", "expected.npz")):
        (tmp_path / name).write_bytes((REFERENCE / data).read_bytes())
        assert_same(weights.load(tmp_path / name), expected())


def test_arrays_of_one_storage_do_not_share_memory(tmp_path):
    found = weights.load(torch_zip(tmp_path / "tied.pth", state(a=tensor(), b=tensor())))
    found["a"][:] = 1
    assert found["b"].tolist() == [0, 0, 0, 0]


def test_views_follow_their_strides_and_offset(tmp_path):
    data = {"0": np.arange(12, dtype="<f4").tobytes()}
    view = tensor(storage(count=12), offset=1, shape=(3, 2), strides=(1, 4))
    found = weights.load(torch_zip(tmp_path / "a.pth", state(view=view), data))
    assert found["view"].tolist() == [[1, 5], [2, 6], [3, 7]]


def test_big_endian_files_are_read(tmp_path):
    size = {"float64": 8, "float32": 4, "float16": 2, "bfloat16": 2, "int64": 8, "scalar": 8}
    names = list(expected())
    sizes = [size.get(name, 1 if name in ("uint8", "bool") else 4) for name in names]
    keys = dict(zip((str(i) for i in range(12)), sizes[:11] + [4], strict=True))  # two halves have one storage

    def swap(name, data):
        if name.endswith("byteorder"):
            return b"big"
        folder, _, key = name.rpartition("/")
        width = keys.get(key, 4) if folder.endswith("/data") else 1
        return b"".join(data[i : i + width][::-1] for i in range(0, len(data), width))

    (tmp_path / "big.pth").write_bytes(rewritten((REFERENCE / "state.pth").read_bytes(), swap))
    assert_same(weights.load(tmp_path / "big.pth"), expected())


def test_a_storage_that_is_a_part_of_another(tmp_path):
    data = np.arange(6, dtype="<f4").tobytes()
    part = storage("0", 6, b"ctorch\nFloatStorage\n", tup(text("part"), whole(2), whole(3)))
    path = torch_stream(tmp_path / "old.pth", state(a=tensor(part, 1, (2,), (1,))), [("0", 6, data)])
    assert weights.load(path)["a"].tolist() == [3, 4]


def test_files_of_python_2_and_of_gpus(tmp_path):
    on_gpu = storage(kind=b"ctorch.cuda\nFloatStorage\n")
    name = b"U\x01w"  # SHORT_BINSTRING
    pairs = b"](]" + name + b"a" + tensor(on_gpu) + b"ae"  # a list of one [name, tensor]
    path = torch_stream(tmp_path / "old.pth", b"\x80\x02ccollections\nOrderedDict\n" + pairs + b"\x85R.")
    assert_same(weights.load(path), {"w": np.zeros(4, np.float32)})


# ---- save and load -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("extension", EXTENSIONS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_saved_comes_back(tmp_path, rng, extension, dtype):
    ramp = rng.integers(0, 2, (3, 4, 5)).astype(dtype)
    arrays = {
        "layer.0.weight": ramp,
        "strided": ramp[:, ::2, ::-1],
        "transposed": ramp.T,
        "foreign": ramp.astype(ramp.dtype.newbyteorder(">")),
        "scalar": np.array(1, dtype),
        "empty": np.zeros((0, 3), dtype),
        "file": ramp[0],
        "é/x": ramp[1],
    }
    metadata = {"step": "3", "names": '{"a": "é"}'}
    weights.save(tmp_path / f"w{extension}", arrays, metadata)
    found, kept = weights.load(tmp_path / f"w{extension}", metadata=True)
    assert_same(found, {name: a.astype(dtype) for name, a in arrays.items()})
    assert kept == metadata


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_nothing_to_save_is_a_file_too(tmp_path, extension):
    weights.save(tmp_path / f"w{extension}", {})
    assert weights.load(tmp_path / f"w{extension}", metadata=True) == ({}, {})


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_the_same_arrays_give_the_same_bytes(tmp_path, extension):
    digests = set()
    for name in ("a", "b"):
        weights.save(tmp_path / f"{name}{extension}", expected(), {"x": "y"})
        digests.add(hashlib.sha256((tmp_path / f"{name}{extension}").read_bytes()).hexdigest())
    assert len(digests) == 1


def test_numpy_reads_what_is_saved_as_npz(tmp_path):
    weights.save(tmp_path / "w.npz", expected())
    with np.load(tmp_path / "w.npz", allow_pickle=False) as stored:
        assert_same(dict(stored), expected())


def test_reads_compressed_and_fortran_ordered_npz(tmp_path):
    array = np.asfortranarray(np.arange(12.0).reshape(3, 4))
    np.savez_compressed(tmp_path / "w.npz", a=array, b=array.astype(">f4"))
    assert_same(weights.load(tmp_path / "w.npz"), {"a": np.array(array), "b": np.array(array, np.float32)})


def test_bfloat16_of_safetensors_becomes_float32(tmp_path):
    header = (
        b'{"a":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]},"b":{"dtype":"BF16","shape":[],"data_offsets":[4,6]}}'
    )
    (tmp_path / "w.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + b"\x80\x3f\x49\xc0\x00\x40")
    wanted = {"a": np.array([1, -3.140625], np.float32), "b": np.array(2, np.float32)}
    assert_same(weights.load(tmp_path / "w.safetensors"), wanted)


@pytest.mark.parametrize("start", [b"\x80\x02", b"PK", b"<!", b"\x1f\x8b"])
def test_a_safetensors_header_of_any_length(tmp_path, start):
    length = int.from_bytes(start, "little")  # the file begins like a pickle, a zip archive, a web page, a gzip file
    header = b'{"a":{"dtype":"F32","shape":[],"data_offsets":[0,4]}}'.ljust(length)
    (tmp_path / "w.safetensors").write_bytes(struct.pack("<Q", length) + header + struct.pack("<f", 2))
    assert_same(weights.load(tmp_path / "w.safetensors"), {"a": np.array(2, np.float32)})


def test_saves_tensors_by_their_arrays(tmp_path):
    class Tensor:
        def numpy(self):
            return np.arange(3.0)

    weights.save(tmp_path / "w.npz", {"a": Tensor()})
    assert weights.load(tmp_path / "w.npz")["a"].tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("state", "error", "message"),
    [
        ({"a": np.array(["x"])}, ValueError, "state\\['a'\\] has dtype <U1; expected floating numbers"),
        ({"a": np.array([None])}, ValueError, "state\\['a'\\] has dtype object"),
        ({"a": [1, 2]}, TypeError, "state\\['a'\\] is a list; expected an array or a tensor"),
        ({1: np.zeros(1)}, TypeError, "state has the name 1; expected strings"),
        ({"__metadata__": np.zeros(1)}, ValueError, "state has the name '__metadata__'"),
        ({"a\0b": np.zeros(1)}, ValueError, "which a file of weights cannot keep"),
        ([np.zeros(1)], TypeError, "state is a list; expected a dictionary of arrays by name"),
    ],
)
def test_what_cannot_be_saved_is_named_and_the_old_file_stays(tmp_path, state, error, message):
    path = tmp_path / "w.npz"
    weights.save(path, {"a": np.ones(1)})
    with pytest.raises(error, match=message):
        weights.save(path, state)
    assert weights.load(path)["a"].tolist() == [1]
    assert os.listdir(tmp_path) == ["w.npz"]


def test_other_endings_dtypes_and_metadata_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"w.h5'; expected a name that ends in one of .safetensors, .npz, .pth, .pt"):
        weights.save(tmp_path / "w.h5", {})
    with pytest.raises(ValueError, match="a has dtype uint16, which a .pth file does not hold"):
        weights.save(tmp_path / "w.pth", {"a": np.zeros(2, np.uint16)})
    with pytest.raises(TypeError, match="metadata is not a dictionary of strings"):
        weights.save(tmp_path / "w.npz", {}, {"epoch": 3})
    assert os.listdir(tmp_path) == []


def test_unsigned_numbers_come_back_from_npz_and_safetensors(tmp_path):
    arrays = {name: np.array([0, 3], name) for name in ("uint16", "uint32", "uint64")}
    for extension in (".npz", ".safetensors"):
        weights.save(tmp_path / f"w{extension}", arrays)
        assert_same(weights.load(tmp_path / f"w{extension}"), arrays)


def test_a_saved_pth_is_a_plain_zip_of_pytorchs_layout(tmp_path):
    weights.save(tmp_path / "w.pth", {"a": np.arange(2, dtype=np.float32)})
    with zipfile.ZipFile(tmp_path / "w.pth") as archive:
        assert archive.namelist() == [f"archive/{name}" for name in ("data.pkl", "byteorder", "data/0", "version")]
        assert archive.read("archive/data/0") == struct.pack("<2f", 0, 1)
