"""Weights of a convolution in the order in which ``implicit_gemm`` reads its tiles of them.

That is [group][chunk of channels][tap][channel of the chunk][m]: output channels m side by side, where the weights
have taps side by side. So a block turns a tile of weights in shared memory: it reads along taps, and writes along m.
What a weight is multiplied by is applied on the way, and tiles are filled up with zeros.
"""

from numba.types import int64, uint32

from kernels.cuda.array import empty
from kernels.cuda.device import cuda, device_function, tile, typed_kernel
from kernels.cuda.gemm import DEPTH

#: Edge of a tile, and threads of a block.
_EDGE, _THREADS = tile(32, 8), tile(256, 4)
_BLOCKS = tile(2**16, 2)


def packed_weights(weight, scale, groups, rows, channels, width, *, transposed):
    """Return weights, packed.

    Parameters
    ----------
    weight : DeviceArray
        (groups * rows, channels, kH, kW); ``transposed``: (groups * channels, rows, kH, kW).
    scale : DeviceArray or None, shape (groups * rows,)
        What the weights of each output channel are multiplied by.
    groups, rows, channels : int
        Groups, and the output and input channels of each.
    width : int
        Rows, filled up to whole tiles of a product.
    transposed : bool
        How the weights lie.

    Returns
    -------
    DeviceArray, shape (groups * chunks * kH * kW * DEPTH, width)
    """
    taps, padded = weight.shape[2] * weight.shape[3], -(-channels // DEPTH) * DEPTH
    packed = empty((groups * padded * taps, width), weight.dtype)
    if packed.size:
        pieces, cols = (groups * padded, taps) if transposed else (groups, padded * taps)
        tiles = pieces * -(-cols // _EDGE) * -(-width // _EDGE)
        _pack_kernel.run(
            min(tiles, _BLOCKS), _THREADS,
            packed.raw, weight.raw, (weight if scale is None else scale).raw,
            tiles, cols, width, rows, channels, padded, taps, int(transposed), int(scale is not None),
        )  # fmt: skip
    return packed


@typed_kernel(lambda T: (T[::1], T[::1], T[::1], *(int64,) * 9), threads=_THREADS)
def _pack_kernel(T):
    MEMORY = _EDGE * (_EDGE + 1)

    @device_function
    def place(i, here):
        """Return where weight number ``i`` lies, so that those of one tap, ``here`` apart, are in different banks."""
        return i if here & uint32(1) else i + (i >> uint32(5))

    def pack_kernel(packed, weight, scale, tiles, cols, width, M, C, padded, taps, transposed, scaled):
        # a piece is what has its taps side by side for each m: a group, or if transposed a channel of a group
        turned = cuda.shared.array(MEMORY, T)
        down, across = (width + _EDGE - 1) // _EDGE, (cols + _EDGE - 1) // _EDGE
        for number in range(cuda.blockIdx.x, tiles, cuda.gridDim.x):
            first_m, rest = number % down * _EDGE, number // down
            first, piece = rest % across * _EDGE, rest // across
            here = uint32(min(int64(_EDGE), cols - first))
            group, c = (piece // padded, piece % padded) if transposed else (piece, int64(0))
            for i in range(cuda.threadIdx.x, _EDGE * here, _THREADS):
                m = uint32(i) // here
                col = uint32(i) - m * here
                at, end = first + col, C * taps
                if transposed:
                    start, end = ((group * C + c) * M + first_m + m) * taps, taps if c < C else int64(0)
                else:
                    start = (group * M + first_m + m) * end
                turned[place(uint32(i), here)] = weight[start + at] if first_m + m < M and at < end else T(0)
            cuda.syncthreads()
            for i in range(cuda.threadIdx.x, _EDGE * here, _THREADS):
                col, m = i // _EDGE, i % _EDGE
                at = first + col
                channel, tap = (c, at) if transposed else (at // taps, at % taps)
                row = ((group * (padded // DEPTH) + channel // DEPTH) * taps + tap) * DEPTH + channel % DEPTH
                if first_m + m < width:
                    value = turned[place(uint32(m * here + col), here)]
                    if scaled and first_m + m < M:
                        value *= scale[group * M + first_m + m]
                    packed[row * width + first_m + m] = value
            cuda.syncthreads()  # before the next tile

    return pack_kernel
