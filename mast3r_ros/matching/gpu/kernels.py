"""Triton kernels of the nearest-neighbour search and of the walk. Import this on first use only: it needs Triton.

The best of a row is one int64 key: the score's bits in an order that integers have too, above the column counted from
the end. The largest key is then the best score and of equal ones the lowest column, so that programs that search parts
of the columns meet in one atomic maximum. Scores that are NaN are nobody's best.
"""

from __future__ import annotations

import triton
import triton.language as tl

#: Keys below every real one: nobody asked yet, and somebody is about to answer.
UNASKED = tl.constexpr(-(2**63))
ASKED = tl.constexpr(-(2**63) + 1)
LAST = tl.constexpr(2**31 - 1)
#: The upper half of keys of -inf: nothing could be compared.
NOTHING = tl.constexpr(-2139095041)
#: What walks do.
LOST, ARRIVED, WALKING = tl.constexpr(-1), tl.constexpr(0), tl.constexpr(1)


@triton.jit
def _key(score, column):
    """Scores (float32) and columns (int32) as keys."""
    score = tl.where(score == 0.0, 0.0, score)  # -0 is 0
    bits = score.to(tl.int32, bitcast=True)
    ordered = tl.where(bits < 0, bits ^ LAST, bits)
    return (ordered.to(tl.int64) << 32) | (-column + LAST).to(tl.int64)


@triton.jit
def _column(key):
    """The column of a key; that of no key at all is 0."""
    return tl.where(key > ASKED, -(key & LAST).to(tl.int32) + LAST, 0)


@triton.jit
def arrange(
    source, target, size, width, sk, sy, sx, sc, tk, tp, tc, D: tl.constexpr, WIDE: tl.constexpr, LANES: tl.constexpr,
    UNIT: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Maps (K, H, W, D) of any strides and floating type -> (K, H * W, WIDE) of any strides, zeros behind D.

    Args:
        LANES: a power of two that is not smaller than WIDE.
        UNIT: make every pixel's channels a unit vector; NaN where they are all 0.
    """
    k = tl.program_id(1).to(tl.int64)
    pixel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    channel = tl.arange(0, LANES)
    here = (pixel < size)[:, None]
    place = k * sk + (pixel // width)[:, None] * sy + (pixel % width)[:, None] * sx + channel[None, :] * sc
    values = tl.load(source + place, mask=here & (channel < D)[None, :], other=0.0).to(tl.float32)
    if UNIT:
        length = tl.sqrt_rn(tl.sum(values * values, axis=1))
        values = tl.where((channel < D)[None, :], tl.div_rn(values, length[:, None] + tl.zeros_like(values)), 0.0)
    out = target + k * tk + pixel[:, None] * tp + channel[None, :] * tc
    tl.store(out, values.to(target.dtype.element_ty), mask=here & (channel < WIDE)[None, :])


@triton.jit
def _rows(queue, count, capacity, block, k, BM: tl.constexpr, QUEUED: tl.constexpr):
    """Pixels of one block of rows, and which of them there are."""
    slot = block * BM + tl.arange(0, BM)
    if QUEUED:
        there = slot < tl.load(count + k)
        pixel = tl.load(queue + k.to(tl.int64) * capacity + slot, mask=there, other=0)
    else:
        there = slot < capacity
        pixel = slot
    return pixel, there


@triton.jit
def _scores(
    query, base, start, end, D: tl.constexpr, BN: tl.constexpr, EVEN: tl.constexpr, L2: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """Similarities of rows with BN columns, in float32; -inf from ``end`` on, where no EVEN tile reaches."""
    column = start + tl.arange(0, BN)
    entries = base + column[None, :] * D + tl.arange(0, D)[:, None]
    entry = tl.load(entries) if EVEN else tl.load(entries, mask=(column < end)[None, :], other=0.0)
    score = tl.dot(query, entry, input_precision=PRECISION)
    if L2:
        wide = entry.to(tl.float32)
        score -= 0.5 * tl.sum(wide * wide, axis=0)[None, :]
    if not EVEN:
        score = tl.where((column < end)[None, :], score, float("-inf"))
    return score


@triton.jit
def search_products(
    own, other, queue, count, table, size_own, size_other, capacity, span, D: tl.constexpr, BM: tl.constexpr,
    BN: tl.constexpr, EVEN: tl.constexpr, L2: tl.constexpr, QUEUED: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Best column of every queued row by matrix products; running arg-max in registers.

    Args:
        own, other: (K, size, D) rows, D a power of two from 16.
        queue, count: (K, capacity) rows of ``own`` to search for, and how many.
        table: (K, size_own) keys.
        span: columns of one program, a multiple of BN.
    """
    k = tl.program_id(2)
    block = tl.program_id(1)
    total = capacity
    if QUEUED:
        total = tl.load(count + k)
    if block * BM < total:
        pixel, there = _rows(queue, count, capacity, block, k, BM, QUEUED)
        channel = tl.arange(0, D)
        rows = own + k.to(tl.int64) * size_own * D + pixel[:, None] * D + channel[None, :]
        query = tl.load(rows, mask=there[:, None], other=0.0)
        begin = tl.program_id(0) * span
        end = tl.minimum(begin + span, size_other)
        value = tl.full((BM, BN), float("-inf"), tl.float32)
        place = tl.full((BM, BN), begin, tl.int32)
        lane = tl.arange(0, BN)
        base = other + k.to(tl.int64) * size_other * D
        for start in range(begin, end, BN):
            score = _scores(query, base, start, end, D, BN, EVEN, L2, PRECISION)
            better = score > value
            value = tl.where(better, score, value)
            place = tl.where(better, start, place)
        best = tl.max(value, axis=1)
        column = tl.min(tl.where(value == best[:, None], place + lane[None, :], LAST), axis=1)
        tl.atomic_max(table + k.to(tl.int64) * size_own + pixel, _key(best, column), mask=there)


@triton.jit
def search_pieces(
    own, other, queue, count, table, size_own, size_other, capacity, span, D: tl.constexpr, BM: tl.constexpr,
    BN: tl.constexpr, TILES: tl.constexpr, EVEN: tl.constexpr, L2: tl.constexpr, QUEUED: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """As :func:`search_products`, but only which piece of TILES * BN columns has the best: one operation a product.

    Keys hold the first column of the piece; :func:`resolve_pieces` finds the column. ``span`` is a multiple of a piece.
    """
    k = tl.program_id(2)
    block = tl.program_id(1)
    total = capacity
    if QUEUED:
        total = tl.load(count + k)
    if block * BM < total:
        pixel, there = _rows(queue, count, capacity, block, k, BM, QUEUED)
        channel = tl.arange(0, D)
        rows = own + k.to(tl.int64) * size_own * D + pixel[:, None] * D + channel[None, :]
        query = tl.load(rows, mask=there[:, None], other=0.0)
        begin = tl.program_id(0) * span
        end = tl.minimum(begin + span, size_other)
        best = tl.full((BM,), float("-inf"), tl.float32)
        place = tl.full((BM,), begin, tl.int32)
        base = other + k.to(tl.int64) * size_other * D
        for piece in range(begin, end, BN * TILES):
            value = tl.full((BM, BN), float("-inf"), tl.float32)
            for tile in tl.static_range(TILES):
                score = _scores(query, base, piece + tile * BN, end, D, BN, EVEN, L2, PRECISION)
                value = tl.maximum(value, score)
            top = tl.max(value, axis=1)
            better = top > best
            best = tl.where(better, top, best)
            place = tl.where(better, piece, place)
        tl.atomic_max(table + k.to(tl.int64) * size_own + pixel, _key(best, place), mask=there)


@triton.jit
def resolve_pieces(
    own, other, queue, count, table, size_own, size_other, capacity, piece, D: tl.constexpr, BN: tl.constexpr,
    ROWS: tl.constexpr, L2: tl.constexpr, QUEUED: tl.constexpr,
):  # fmt: skip
    """The column within the piece that :func:`search_pieces` found, for ROWS rows one after the other."""
    k = tl.program_id(1)
    begin = tl.program_id(0) * ROWS
    total = capacity
    if QUEUED:
        total = tl.load(count + k)
    for slot in range(begin, tl.minimum(begin + ROWS, total)):
        pixel = slot
        if QUEUED:
            pixel = tl.load(queue + k.to(tl.int64) * capacity + slot)
        channel = tl.arange(0, D)
        query = tl.load(own + k.to(tl.int64) * size_own * D + pixel.to(tl.int64) * D + channel).to(tl.float32)
        lane = tl.arange(0, BN)
        cell = table + k.to(tl.int64) * size_own + pixel
        first = _column(tl.load(cell))
        end = tl.minimum(first + piece, size_other)
        value = tl.full((BN,), float("-inf"), tl.float32)
        place = first + lane
        for start in range(first, end, BN):
            column = start + lane
            there = column < end
            address = other + k.to(tl.int64) * size_other * D + column[:, None] * D + channel[None, :]
            entry = tl.load(address, mask=there[:, None], other=0.0).to(tl.float32)
            score = tl.sum(entry * query[None, :], axis=1)
            if L2:
                score -= 0.5 * tl.sum(entry * entry, axis=1)
            score = tl.where(there, score, float("-inf"))
            better = score > value
            value = tl.where(better, score, value)
            place = tl.where(better, column, place)
        best = tl.max(value, axis=0)
        tl.store(cell, _key(best, tl.min(tl.where(value == best, place, LAST), axis=0)))


@triton.jit
def search_distances(
    own, other, queue, count, table, size_own, size_other, capacity, span, channels, BM: tl.constexpr,
    BN: tl.constexpr, QUEUED: tl.constexpr,
):  # fmt: skip
    """Nearest column of every queued row by differences in float32, which do not cancel where vectors are close.

    Args:
        own, other: (K, channels, size) channel by channel; NaN is never found.
        queue, count, table, span: as for :func:`search_products`.
    """
    k = tl.program_id(2)
    block = tl.program_id(1)
    total = capacity
    if QUEUED:
        total = tl.load(count + k)
    if block * BM < total:
        pixel, there = _rows(queue, count, capacity, block, k, BM, QUEUED)
        begin = tl.program_id(0) * span
        end = tl.minimum(begin + span, size_other)
        value = tl.full((BM, BN), float("inf"), tl.float32)
        place = tl.full((BM, BN), begin, tl.int32)
        lane = tl.arange(0, BN)
        rows = own + k.to(tl.int64) * channels * size_own + pixel
        for start in range(begin, end, BN):
            column = start + lane
            columns = other + k.to(tl.int64) * channels * size_other + column
            square = tl.where(column < end, 0.0, float("inf"))[None, :] + tl.zeros((BM, BN), tl.float32)
            for c in range(channels):
                query = tl.load(rows + c * size_own, mask=there, other=0.0)
                entry = tl.load(columns + c * size_other, mask=column < end, other=0.0)
                apart = query[:, None] - entry[None, :]
                square += apart * apart
            better = square < value
            value = tl.where(better, square, value)
            place = tl.where(better, start, place)
        best = tl.min(value, axis=1)
        column = tl.min(tl.where(value == best[:, None], place + lane[None, :], LAST), axis=1)
        tl.atomic_max(table + k.to(tl.int64) * size_own + pixel, _key(-best, column), mask=there)


@triton.jit
def _apart(box, lx, ly, lz, hx, hy, hz):
    """Squared distance between the box at a pointer (three lowest, three highest coordinates) and another."""
    dx = tl.maximum(tl.maximum(tl.load(box) - hx, lx - tl.load(box + 3)), 0.0)
    dy = tl.maximum(tl.maximum(tl.load(box + 1) - hy, ly - tl.load(box + 4)), 0.0)
    dz = tl.maximum(tl.maximum(tl.load(box + 2) - hz, lz - tl.load(box + 5)), 0.0)
    return (dx * dx + dy * dy + dz * dz) * 0.99999  # rounding must not hide the nearest


@triton.jit
def _nearer(x, y, z, points, size, start, lane, value, place):
    """The nearer of what was found so far and of one tile; of equals the lower column, in whatever order tiles come."""
    column = start + lane
    inside = column < size
    nan = float("nan")
    dx = x - tl.load(points + column, mask=inside, other=nan)[None, :]
    dy = y - tl.load(points + size + column, mask=inside, other=nan)[None, :]
    dz = z - tl.load(points + 2 * size + column, mask=inside, other=nan)[None, :]
    square = dx * dx + dy * dy + dz * dz
    better = (square < value) | ((square == value) & (start < place))
    return tl.where(better, square, value), tl.where(better, start, place)


@triton.jit
def search_points(
    own, other, queue, count, table, size_own, size_other, capacity, boxes, groups, tiles, COARSE: tl.constexpr,
    GROUP: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, QUEUED: tl.constexpr,
):  # fmt: skip
    """As :func:`search_distances` of three channels; tiles farther than what was found already are passed by.

    Args:
        boxes: (K, tiles, 6) of BN columns each: lowest and highest coordinates.
        groups: (K, ceil(tiles / GROUP), 6) of GROUP tiles each.
        COARSE: every so many tiles are looked at beforehand, so that most can be passed by.
    """
    k = tl.program_id(1).to(tl.int64)
    block = tl.program_id(0)
    total = capacity
    if QUEUED:
        total = tl.load(count + k)
    if block * BM < total:
        pixel, there = _rows(queue, count, capacity, block, k, BM, QUEUED)
        rows = own + k * 3 * size_own + pixel
        points = other + k * 3 * size_other
        px = tl.load(rows, mask=there, other=float("nan"))
        py = tl.load(rows + size_own, mask=there, other=float("nan"))
        pz = tl.load(rows + 2 * size_own, mask=there, other=float("nan"))
        known = (px == px) & (py == py) & (pz == pz)
        lx, hx = tl.min(tl.where(known, px, float("inf"))), tl.max(tl.where(known, px, float("-inf")))
        ly, hy = tl.min(tl.where(known, py, float("inf"))), tl.max(tl.where(known, py, float("-inf")))
        lz, hz = tl.min(tl.where(known, pz, float("inf"))), tl.max(tl.where(known, pz, float("-inf")))
        x, y, z = px[:, None], py[:, None], pz[:, None]
        lane = tl.arange(0, BN)
        value = tl.full((BM, BN), float("inf"), tl.float32)
        place = tl.full((BM, BN), 0, tl.int32)
        for tile in range(0, tiles, COARSE):
            value, place = _nearer(x, y, z, points, size_other, tile * BN, lane, value, place)
        worst = tl.max(tl.where(known, tl.min(value, axis=1), float("-inf")))
        for first in range(0, tiles, GROUP):
            group = groups + (k * tl.cdiv(tiles, GROUP) + first // GROUP) * 6
            if _apart(group, lx, ly, lz, hx, hy, hz) <= worst:
                for tile in range(first, tl.minimum(first + GROUP, tiles)):
                    if _apart(boxes + (k * tiles + tile) * 6, lx, ly, lz, hx, hy, hz) <= worst:
                        value, place = _nearer(x, y, z, points, size_other, tile * BN, lane, value, place)
                        worst = tl.max(tl.where(known, tl.min(value, axis=1), float("-inf")))
        best = tl.min(value, axis=1)
        column = tl.min(tl.where(value == best[:, None], place + lane[None, :], LAST), axis=1)
        tl.store(table + k * size_own + pixel, _key(-best, column), mask=there)


@triton.jit
def look_around(
    own, other, queue, count, table, size_own, thin_width, height, width, capacity, D: tl.constexpr,
    STRIDE: tl.constexpr, BM: tl.constexpr, L2: tl.constexpr,
):  # fmt: skip
    """From the best of a map thinned by STRIDE to the best of the full map (K, height * width, D) around it."""
    k = tl.program_id(1)
    block = tl.program_id(0)
    if block * BM < tl.load(count + k):
        pixel, there = _rows(queue, count, capacity, block, k, BM, True)
        channel = tl.arange(0, D)
        cell = table + k.to(tl.int64) * size_own + pixel
        found = _column(tl.load(cell, mask=there, other=UNASKED))
        y = found // thin_width * STRIDE
        x = found % thin_width * STRIDE
        query = tl.load(own + k.to(tl.int64) * size_own * D + pixel[:, None] * D + channel[None, :]).to(tl.float32)
        value = tl.full((BM,), float("-inf"), tl.float32)
        place = y * width + x
        for dy in range(-STRIDE, STRIDE + 1):
            row = tl.minimum(tl.maximum(y + dy, 0), height - 1)
            for dx in range(-STRIDE, STRIDE + 1):
                column = row * width + tl.minimum(tl.maximum(x + dx, 0), width - 1)
                address = other + k.to(tl.int64) * height * width * D + column[:, None] * D + channel[None, :]
                entry = tl.load(address).to(tl.float32)
                score = tl.sum(entry * query, axis=1)
                if L2:
                    score -= 0.5 * tl.sum(entry * entry, axis=1)
                better = score > value
                value = tl.where(better, score, value)
                place = tl.where(better, column, place)
        tl.store(cell, _key(value, place), mask=there)


@triton.jit
def step(
    table, source, target, state, ahead, queue, count, size, size_ahead, capacity, FIRST: tl.constexpr,
    LAST_STEP: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Half a round trip of the walks, and the queue of the next half.

    Args:
        table: (K, size) keys by pixel of the image that the walks stand in.
        source, target: (K, capacity) where each walk is, in this image and in the other one.
        state: (K, capacity) of each walk. One that stands where nothing can be compared is lost.
        ahead: (K, size_ahead) keys of the other image: pixels that nobody has asked for yet go into ``queue``.
        FIRST: nothing was searched yet: only fill the queue with the pixels of ``target``.
    """
    k = tl.program_id(1).to(tl.int64)
    walk = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    there = walk < capacity
    walking = tl.load(state + k * capacity + walk, mask=there, other=ARRIVED) == WALKING
    before = tl.load(target + k * capacity + walk, mask=there, other=0)
    pixel = before
    if not FIRST:
        own = tl.load(source + k * capacity + walk, mask=there, other=0)
        key = tl.load(table + k * size + own, mask=walking, other=UNASKED)
        pixel = _column(key)
        tl.store(target + k * capacity + walk, pixel, mask=walking)
        lost = (key >> 32) <= NOTHING
        now = tl.where(lost, LOST, tl.where(pixel != before, WALKING, ARRIVED))
        tl.store(state + k * capacity + walk, now.to(tl.int8), mask=walking)
        walking = walking & (now == WALKING)
    if not LAST_STEP:
        cell = ahead + k * size_ahead + pixel
        asked = tl.full((BLOCK,), ASKED, tl.int64)
        unasked = walking & (tl.load(cell, mask=walking, other=ASKED) == UNASKED)
        first = unasked & (tl.atomic_max(cell, asked, mask=unasked) == UNASKED)
        many = first.to(tl.int32)
        begin = tl.atomic_add(count + k, tl.sum(many, axis=0))
        slot = begin + tl.cumsum(many, axis=0) - 1
        tl.store(queue + k * capacity + slot, pixel, mask=first)
