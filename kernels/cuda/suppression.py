"""Non-maximum suppression in three kernels; the boxes that are kept never leave the device, only their number does.

1. **Rank.** The place of a box by falling score is how many others come before it: those of a higher score, and of
   equal ones the earlier. Counting takes N^2 comparisons, which is less than the overlaps cost, and boxes of equal
   scores keep their order by themselves. A block counts for a few boxes, its rows of threads each among a part of the
   scores; then the parts are added up, and the corners are laid down at their rank.
2. **Overlaps.** A block compares 64 boxes with 64 later ones, a thread one of the former with each of the latter, which
   lie in shared memory. What a thread finds is one word: bit j says that its box would suppress box j of the 64.
   Blocks below the diagonal have nothing to do: a box suppresses only later ones.
3. **Decide.** One block goes through the boxes in order, 64 at a time. Within the 64, each decision hangs on those
   before it: all threads go through the same 64 words of the diagonal. Boxes that are kept are written down, each at
   its place among them. Then what they suppress among later boxes is joined to what is suppressed so far: neighbouring
   threads take neighbouring words, and rows of threads some of the 64 rows each, so that many reads are on their way.
"""

import math

import numpy as np
from numba.types import int32, int64, uint64

from kernels import checks
from kernels.cuda import verdicts
from kernels.cuda.array import DeviceArray, empty, on_device, to_host
from kernels.cuda.device import cuda, tile, typed_kernel
from kernels.cuda.iou import overlaps

#: Boxes of a tile, one for each bit of a word.
TILE = 64
#: Boxes that a block ranks, and the parts that it counts in.
RANKED, PARTS = tile(32, 4), tile(8, 2)
#: Threads of a block that compares: all boxes of the tile at once, or in the simulator some after the others.
COMPARING = tile(TILE, 4)
#: Words side by side, and parts of their rows, that the deciding block joins at once.
DECIDING = tile(64, 4), tile(4, 2)


def nms(boxes, scores, iou_threshold):
    """Keep the best of boxes that overlap.

    Parameters
    ----------
    boxes : ndarray or DeviceArray, shape (N, 4)
        Boxes (x1, y1, x2, y2), float32 or float64. Those on the device are checked there, and a number is copied back.
    scores : ndarray or DeviceArray, shape (N,)
        A score for each box, of the same type.
    iou_threshold : float
        From 0 to 1: boxes that overlap more than this with a better one are left out.

    Returns
    -------
    DeviceArray of int64, shape (K,)
        Which boxes are kept, by falling score; of equal scores the earlier box first. K is copied to the host.

    Raises
    ------
    TypeError
        If the arrays are not of one floating type.
    ValueError
        If shapes do not fit, a coordinate is NaN or infinite, a score is NaN, or the threshold is out of range.

    Notes
    -----
    Follows ``torchvision.ops.nms``: an overlap of exactly the threshold, or of 0/0, suppresses nothing.
    """
    boxes, scores, iou_threshold = checks.nms(boxes, scores, iou_threshold)
    limits = np.finfo(boxes.dtype).max, np.inf  # scores may be infinite
    verdicts.finite(lambda *both: checks.nms(both[0], both[1], iou_threshold), boxes, scores, limits=limits)
    boxes, scores = on_device(boxes, scores)
    count = len(boxes)
    kept = empty((count + 1,), np.int64)  # at the end, how many
    if not count:
        return DeviceArray(kept.raw, (0,))
    dtype, words = boxes.dtype, -(-count // TILE)
    order, corners = empty((count,), np.int32), empty((4, count), dtype)
    suppressing, gone = empty((count, words), np.uint64), empty((words,), np.uint64)
    blocks = min(-(-count // RANKED), tile(2**31 - 1, 2))
    _rank_kernel.run(blocks, (RANKED, PARTS), order.raw, corners.raw, scores.raw, boxes.raw, count)
    threshold = _rounded_down(iou_threshold, dtype)
    grid = min(words, tile(2**31 - 1, 2)), min(words, tile(65_535, 2))
    _overlap_kernel.run(grid, COMPARING, suppressing.raw, corners.raw, count, threshold)
    _decide_kernel.run(1, DECIDING, kept.raw, gone.raw, suppressing.raw, order.raw, count, dtype=dtype)
    return DeviceArray(kept.raw, (int(to_host(DeviceArray(kept.raw[count:], (1,)))[0]),))


def _rounded_down(threshold, dtype):
    """Return the largest number of the type that is not above the threshold: overlaps exceed both, or neither."""
    rounded = dtype.type(threshold)
    return np.nextafter(rounded, dtype.type(-1)) if float(rounded) > threshold else rounded


@typed_kernel(lambda T: (int32[::1], T[::1], T[::1], T[::1], int64), threads=RANKED * PARTS)
def _rank_kernel(T):
    def rank_kernel(order, corners, scores, boxes, count):
        partial = cuda.shared.array((PARTS, RANKED), int32)
        column, part = cuda.threadIdx.x, cuda.threadIdx.y
        for first in range(cuda.blockIdx.x * RANKED, count, cuda.gridDim.x * RANKED):
            i = first + column
            before = int32(0)
            if i < count:
                score = scores[i]
                for j in range(part, count, PARTS):
                    other = scores[uint64(j)]
                    if other > score or (other == score and j < i):
                        before += 1
            partial[part, column] = before
            cuda.syncthreads()
            if part == 0 and i < count:
                rank = int64(0)
                for p in range(PARTS):
                    rank += partial[p, column]
                order[rank] = i
                for corner in range(4):
                    corners[corner * count + rank] = boxes[4 * i + corner]
            cuda.syncthreads()  # before the next boxes' counts are written

    return rank_kernel


@typed_kernel(lambda T: (uint64[::1], T[::1], int64, T), threads=COMPARING)
def _overlap_kernel(T):
    area_of, overlap_of = overlaps(T)

    def overlap_kernel(suppressing, corners, count, threshold):
        later = cuda.shared.array((TILE, 5), T)
        words = (count + TILE - 1) // TILE
        for word in range(cuda.blockIdx.x, words, cuda.gridDim.x):
            left = min(count - word * TILE, TILE)
            for j in range(cuda.threadIdx.x, left, cuda.blockDim.x):
                at = word * TILE + j
                x1, y1, x2, y2 = corners[at], corners[count + at], corners[2 * count + at], corners[3 * count + at]
                later[j, 0], later[j, 1], later[j, 2], later[j, 3] = x1, y1, x2, y2
                later[j, 4] = area_of(x1, y1, x2, y2)
            cuda.syncthreads()
            for row in range(cuda.blockIdx.y, word + 1, cuda.gridDim.y):
                for lane in range(cuda.threadIdx.x, TILE, cuda.blockDim.x):
                    i = row * TILE + lane
                    if i < count:
                        x1, y1, x2, y2 = corners[i], corners[count + i], corners[2 * count + i], corners[3 * count + i]
                        area = area_of(x1, y1, x2, y2)
                        bits = uint64(0)
                        for j in range(lane + 1 if row == word else 0, left):
                            overlap = overlap_of(x1, y1, x2, y2, later[j, 0], later[j, 1], later[j, 2], later[j, 3])
                            # most pairs are apart: 0 over anything is 0 or NaN, which no threshold is below
                            if overlap > 0 and overlap / (area + later[j, 4] - overlap) > threshold:
                                bits |= uint64(1) << uint64(j)
                        suppressing[i * words + word] = bits
            cuda.syncthreads()  # before the next boxes are laid down

    return overlap_kernel


@typed_kernel(lambda T: (int64[::1], uint64[::1], uint64[::1], int32[::1], int64), threads=math.prod(DECIDING))
def _decide_kernel(T):
    columns, parts = DECIDING
    rows = TILE // parts

    def decide_kernel(kept, gone, suppressing, order, count):
        diagonal = cuda.shared.array(TILE, uint64)
        partial = cuda.shared.array(DECIDING[::-1], uint64)
        lane, part = cuda.threadIdx.x, cuda.threadIdx.y
        thread, threads = part * columns + lane, columns * parts
        words = (count + TILE - 1) // TILE
        one, found = uint64(1), int64(0)
        for word in range(thread, words, threads):
            left = count - word * TILE
            # what lies beyond the last box is gone from the start
            gone[word] = ~((one << uint64(left)) - one) if left < TILE else uint64(0)
        for word in range(words):
            first = word * TILE
            for i in range(thread, TILE, threads):
                diagonal[i] = suppressing[(first + i) * words + word] if first + i < count else uint64(0)
            cuda.syncthreads()  # what is gone is known now, too
            out, keep = gone[word], uint64(0)
            for i in range(TILE):
                row, bit = diagonal[i], one << uint64(i)
                if not out & bit:
                    keep |= bit
                    out |= row
            for i in range(thread, TILE, threads):
                bit = one << uint64(i)
                if keep & bit:
                    kept[found + cuda.popc(keep & (bit - one))] = order[first + i]
            found += cuda.popc(keep)
            for start in range(word + 1, words, columns):
                later, joined = start + lane, uint64(0)
                if later < words:
                    for i in range(rows):
                        # read them all, and mask those not kept: then no read waits for another
                        number = part * rows + i
                        row = suppressing[uint64(min(first + number, count - 1) * words + later)]
                        joined |= row & (uint64(0) - ((keep >> uint64(number)) & one))
                partial[part, lane] = joined
                cuda.syncthreads()
                if part == 0 and later < words:
                    joined = gone[later]
                    for p in range(parts):
                        joined |= partial[p, lane]
                    gone[later] = joined
                cuda.syncthreads()  # before the next parts, or the next diagonal, are laid down
        if thread == 0:
            kept[count] = found

    return decide_kernel
