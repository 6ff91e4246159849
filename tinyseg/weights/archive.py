"""Zip archives from strangers: read without believing what their table of contents claims."""

import struct
import zipfile
import zlib
from contextlib import contextmanager

#: What a file may unpack to beyond a multiple of its own size: room for small files, too little to do harm.
SPARE_BYTES = 64 * 2**20
#: Zeros pack a thousandfold, trained weights hardly at all.
MOST_COMPRESSION = 100

_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    NotImplementedError,
    OSError,
    OverflowError,
    RuntimeError,
    ValueError,
)


@contextmanager
def opened(file, size):
    """Yield the ``ZipFile`` of ``file``, once its entries are known to claim no more than they can honestly hold."""
    try:
        archive = zipfile.ZipFile(file)
    except _DAMAGE:
        raise ValueError("the file is cut short or damaged: its table of contents cannot be read") from None
    with archive:
        stored = packed = 0
        for entry in archive.infolist():
            if entry.compress_type == zipfile.ZIP_STORED:
                stored += entry.file_size
            else:
                packed += entry.file_size
        if stored > size:
            raise ValueError(f"its entries claim {stored} bytes, more than the {size} bytes of the file")
        if packed > MOST_COMPRESSION * size + SPARE_BYTES:
            raise ValueError(f"its entries would unpack to {packed} bytes from a file of {size}: refused as a zip bomb")
        yield archive


def read(archive, entry):
    """Return the bytes of ``entry``, exactly as many as it claims and with the checksum it claims."""
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or entry.flag_bits & 1:
        raise ValueError(f"entry {entry.filename!r} is encrypted, or packed by a method that weights files do not use")
    try:
        with archive.open(entry) as stream:
            # asking for a number bounds the unpacking; read() would first unpack everything there is
            data = stream.read(entry.file_size + 1)
    except _DAMAGE as error:
        raise ValueError(f"entry {entry.filename!r} is damaged ({error})") from None
    if len(data) != entry.file_size:
        raise ValueError(f"entry {entry.filename!r} has {len(data)} bytes; its header says {entry.file_size}")
    return data
