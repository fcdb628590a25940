"""The Triton kernels.

Everything is (features, batch) with the batch side by side, so that lanes of a program read neighbours. A program
computes one row (unit, or live entry) for ``LANES`` samples. Sparse matrices are CSR: pointers, columns, values.
"""

from __future__ import annotations

import triton
import triton.language as tl

LANES = 64
"""Samples of one program."""


@triton.jit
def _row(pointers, columns, values, row, x, lanes, mask, stride, LANES: tl.constexpr):
    """Sum of values[i] * x[columns[i]] over the entries of a row."""
    total = tl.zeros([LANES], tl.float32)
    for i in range(tl.load(pointers + row), tl.load(pointers + row + 1)):
        column = tl.load(columns + i).to(tl.int64)
        total += tl.load(values + i) * tl.load(x + column * stride + lanes, mask=mask, other=0.0)
    return total


@triton.jit
def product(pointers, columns, values, bias, x, y, batch, HAS_BIAS: tl.constexpr, LANES: tl.constexpr):
    """Y (rows, batch) = bias + W x for x (cols, batch)."""
    row = tl.program_id(0)
    lanes = (tl.program_id(1) * LANES + tl.arange(0, LANES)).to(tl.int64)
    mask = lanes < batch
    total = _row(pointers, columns, values, row, x, lanes, mask, batch, LANES)
    if HAS_BIAS:
        total += tl.load(bias + row)
    tl.store(y + row.to(tl.int64) * batch + lanes, total, mask=mask)


@triton.jit
def sampled(rows, columns, a, h, gradient, steps, batch, a_step, h_step, LANES: tl.constexpr):
    """gradient[i] = sum over steps and samples of a[step, rows[i]] * h[step, columns[i]], one program per live entry.

    a and h are (steps, features, batch) with ``a_step`` and ``h_step`` floats from one step to the next.
    """
    entry = tl.program_id(0)
    a += tl.load(rows + entry).to(tl.int64) * batch
    h += tl.load(columns + entry).to(tl.int64) * batch
    total = tl.zeros([LANES], tl.float32)
    for _ in range(steps):
        for start in range(0, batch, LANES):
            lanes = start + tl.arange(0, LANES)
            mask = lanes < batch
            total += tl.load(a + lanes, mask=mask, other=0.0) * tl.load(h + lanes, mask=mask, other=0.0)
        a += a_step
        h += h_step
    tl.store(gradient + entry, tl.sum(total, axis=0))


@triton.jit
def block_product(
    pointers, columns, values, bias, x, y, batch,
    HAS_BIAS: tl.constexpr, HEIGHT: tl.constexpr, WIDTH: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    """Y (block rows * HEIGHT, batch) = bias + W x; W has blocks (HEIGHT, WIDTH), values (blocks, HEIGHT, WIDTH)."""
    block_row = tl.program_id(0)
    lanes = (tl.program_id(1) * LANES + tl.arange(0, LANES)).to(tl.int64)
    mask = lanes < batch
    down, across = tl.arange(0, HEIGHT), tl.arange(0, WIDTH)
    total = tl.zeros([HEIGHT, LANES], tl.float32)
    for i in range(tl.load(pointers + block_row), tl.load(pointers + block_row + 1)):
        w = tl.load(values + i * (HEIGHT * WIDTH) + down[:, None] * WIDTH + across[None, :])
        column = tl.load(columns + i).to(tl.int64) * WIDTH
        v = tl.load(x + (column + across)[:, None] * batch + lanes[None, :], mask=mask[None, :], other=0.0)
        total += tl.dot(w, v, input_precision="ieee")
    rows = block_row.to(tl.int64) * HEIGHT + down
    if HAS_BIAS:
        total += tl.load(bias + rows)[:, None]
    tl.store(y + rows[:, None] * batch + lanes[None, :], total, mask=mask[None, :])


@triton.jit
def block_sampled(
    rows, columns, a, h, gradient, steps, batch, a_step, h_step,
    HEIGHT: tl.constexpr, WIDTH: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    """As `sampled`, for the blocks of `block_product`: one program per live block."""
    block = tl.program_id(0)
    down, across = tl.arange(0, HEIGHT), tl.arange(0, WIDTH)
    a += (tl.load(rows + block).to(tl.int64) * HEIGHT + down)[:, None] * batch
    h += (tl.load(columns + block).to(tl.int64) * WIDTH + across)[None, :] * batch
    total = tl.zeros([HEIGHT, WIDTH], tl.float32)
    for _ in range(steps):
        for start in range(0, batch, LANES):
            lanes = start + tl.arange(0, LANES)
            mask = lanes < batch
            left = tl.load(a + lanes[None, :], mask=mask[None, :], other=0.0)
            right = tl.load(h + lanes[:, None], mask=mask[:, None], other=0.0)
            total += tl.dot(left, right, input_precision="ieee")
        a += a_step
        h += h_step
    at = block.to(tl.int64) * (HEIGHT * WIDTH)
    tl.store(gradient + at + down[:, None] * WIDTH + across[None, :], total)


@triton.jit
def _sigmoid(x):
    return 1.0 / (1.0 + tl.exp(-x))


@triton.jit
def _tanh(x):
    """Without overflow for large |x|."""
    e = tl.exp(-2.0 * tl.abs(x))
    size = (1.0 - e) / (1.0 + e)
    return tl.where(x < 0, -size, size)


@triton.jit
def gru_forward(
    pointers, columns, values, bias, drive, before, after, gates, units, batch, drive_stride,
    HAS_BIAS: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    """One step of one unit: r, z, n and the new state; gates (4, units, batch) keep r, z, n and n's recurrent part."""
    unit = tl.program_id(0)
    lanes = (tl.program_id(1) * LANES + tl.arange(0, LANES)).to(tl.int64)
    mask = lanes < batch
    at = unit.to(tl.int64) * batch + lanes
    block = units.to(tl.int64) * batch
    second, third = units + unit, 2 * units + unit
    b_r = _row(pointers, columns, values, unit, before, lanes, mask, batch, LANES)
    b_z = _row(pointers, columns, values, second, before, lanes, mask, batch, LANES)
    b_n = _row(pointers, columns, values, third, before, lanes, mask, batch, LANES)
    if HAS_BIAS:
        b_r += tl.load(bias + unit)
        b_z += tl.load(bias + second)
        b_n += tl.load(bias + third)
    a_r = tl.load(drive + unit.to(tl.int64) * drive_stride + lanes, mask=mask, other=0.0)
    a_z = tl.load(drive + second.to(tl.int64) * drive_stride + lanes, mask=mask, other=0.0)
    a_n = tl.load(drive + third.to(tl.int64) * drive_stride + lanes, mask=mask, other=0.0)
    r = _sigmoid(a_r + b_r)
    z = _sigmoid(a_z + b_z)
    n = _tanh(a_n + r * b_n)
    h = tl.load(before + at, mask=mask, other=0.0)
    tl.store(gates + at, r, mask=mask)
    tl.store(gates + block + at, z, mask=mask)
    tl.store(gates + 2 * block + at, n, mask=mask)
    tl.store(gates + 3 * block + at, b_n, mask=mask)
    tl.store(after + at, n + z * (h - n), mask=mask)


@triton.jit
def gru_backward(
    pointers, rows, values, d_next, gates, before, g_out, carry, d_rec, d_drive, units, batch, drive_stride,
    LANES: tl.constexpr,
):  # fmt: skip
    """One step of one unit backwards; the matrix is the transpose, ``d_next`` the d_rec of the step after this one.

    d_rec (3 units, batch) and d_drive (3 units, drive_stride) are gradients of the two products; ``carry`` (units,
    batch) is the gradient of the state past the product, in from the step after and out for the step before.
    """
    unit = tl.program_id(0)
    lanes = (tl.program_id(1) * LANES + tl.arange(0, LANES)).to(tl.int64)
    mask = lanes < batch
    at = unit.to(tl.int64) * batch + lanes
    block = units.to(tl.int64) * batch
    dh = _row(pointers, rows, values, unit, d_next, lanes, mask, batch, LANES)
    dh += tl.load(carry + at, mask=mask, other=0.0) + tl.load(g_out + at, mask=mask, other=0.0)
    r = tl.load(gates + at, mask=mask, other=0.0)
    z = tl.load(gates + block + at, mask=mask, other=0.0)
    n = tl.load(gates + 2 * block + at, mask=mask, other=0.0)
    b_n = tl.load(gates + 3 * block + at, mask=mask, other=0.0)
    h = tl.load(before + at, mask=mask, other=0.0)
    d_n = dh * (1.0 - z) * (1.0 - n * n)
    d_r = d_n * b_n * r * (1.0 - r)
    d_z = dh * (h - n) * z * (1.0 - z)
    tl.store(carry + at, dh * z, mask=mask)
    tl.store(d_rec + at, d_r, mask=mask)
    tl.store(d_rec + block + at, d_z, mask=mask)
    tl.store(d_rec + 2 * block + at, d_n * r, mask=mask)
    to = d_drive + unit.to(tl.int64) * drive_stride + lanes
    step = units.to(tl.int64) * drive_stride
    tl.store(to, d_r, mask=mask)
    tl.store(to + step, d_z, mask=mask)
    tl.store(to + 2 * step, d_n, mask=mask)


@triton.jit
def lif_forward(
    pointers, columns, values, bias, beta, theta, x, spk_before, mem_before, spk, mem, fired, steps, units, batch,
    FEEDBACK: tl.constexpr, RESET: tl.constexpr, DELAY: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    """Steps of one neuron over (steps, units, batch); with feedback only one, since all neurons must have spiked.

    RESET is 0 for none, 1 to subtract, 2 for zero, 3 for zero_update (see sparsecirc.cells.Reset).
    """
    unit = tl.program_id(0)
    lanes = (tl.program_id(1) * LANES + tl.arange(0, LANES)).to(tl.int64)
    mask = lanes < batch
    at = unit.to(tl.int64) * batch + lanes
    block = units.to(tl.int64) * batch
    decay, limit = tl.load(beta + unit), tl.load(theta + unit)
    m = tl.load(mem_before + at, mask=mask, other=0.0)
    rec = tl.zeros([LANES], tl.float32)
    if FEEDBACK:
        rec = _row(pointers, columns, values, unit, spk_before, lanes, mask, batch, LANES) + tl.load(bias + unit)
    for _ in range(steps):
        due = tl.where(m > limit, 1.0, 0.0)
        if RESET == 2:
            m = (1.0 - due) * m
        m = decay * m + tl.load(x + at, mask=mask, other=0.0) + rec
        if RESET == 1:
            m = m - due * limit
        if RESET == 3:
            m = m - due * m
        s = tl.where(m > limit, 1.0, 0.0)
        if not DELAY:
            tl.store(fired + at, m, mask=mask)
            now = s - due
            if RESET == 1:
                m = m - now * limit
            if RESET > 1:
                m = m - now * m
        tl.store(spk + at, s, mask=mask)
        tl.store(mem + at, m, mask=mask)
        at += block


@triton.jit
def _slope(v, scale, SURROGATE: tl.constexpr):
    """0 fast sigmoid, 1 atan, 2 sigmoid, 3 triangular, 4 straight through."""
    result = tl.full(v.shape, 1.0, tl.float32)
    if SURROGATE == 0:
        q = scale * tl.abs(v) + 1.0
        result = 1.0 / (q * q)
    if SURROGATE == 1:
        q = 1.5707963267948966 * scale * v
        result = 0.5 * scale / (1.0 + q * q)
    if SURROGATE == 2:
        e = tl.exp(-scale * tl.abs(v))
        result = scale * e / ((e + 1.0) * (e + 1.0))
    if SURROGATE == 3:
        result = tl.where(v >= 0, -scale, scale)
    return result


@triton.jit
def lif_backward(
    pointers, rows, values, d_next, beta, theta, mem_first, mem, fired, g_spk, g_mem, carry, d_beta, d_theta, da,
    scale, steps, units, batch,
    FEEDBACK: tl.constexpr, RESET: tl.constexpr, DELAY: tl.constexpr, SURROGATE: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    """Steps of one neuron backwards, the last one first; arrays begin at the first of these steps.

    ``mem_first`` (units, batch) is the membrane before them; the matrix is the transpose, ``d_next`` (units, batch) the
    da of the step after. ``carry`` (units, batch) is the gradient of the membrane, in and out; to d_beta and d_theta
    (units, batch) is added.
    """
    unit = tl.program_id(0)
    lanes = (tl.program_id(1) * LANES + tl.arange(0, LANES)).to(tl.int64)
    mask = lanes < batch
    own = unit.to(tl.int64) * batch + lanes
    block = units.to(tl.int64) * batch
    decay, limit = tl.load(beta + unit), tl.load(theta + unit)
    c = tl.load(carry + own, mask=mask, other=0.0)
    sum_beta = tl.load(d_beta + own, mask=mask, other=0.0)
    sum_theta = tl.load(d_theta + own, mask=mask, other=0.0)
    rec = tl.zeros([LANES], tl.float32)
    if FEEDBACK:
        rec = _row(pointers, rows, values, unit, d_next, lanes, mask, batch, LANES)
    for back in range(steps):
        k = steps - 1 - back
        at = own + k * block
        before = tl.load(mem_first + own, mask=mask, other=0.0)
        if k > 0:
            before = tl.load(mem + at - block, mask=mask, other=0.0)
        m = tl.load(mem + at, mask=mask, other=0.0)
        if not DELAY:
            m = tl.load(fired + at, mask=mask, other=0.0)
        due = tl.where(before > limit, 1.0, 0.0)
        gs = tl.load(g_spk + at, mask=mask, other=0.0) + rec
        gm = tl.load(g_mem + at, mask=mask, other=0.0) + c
        gt = tl.zeros([LANES], tl.float32)
        if not DELAY:
            now = tl.where(m > limit, 1.0, 0.0) - due
            if RESET == 1:
                gs = gs - limit * gm
                gt = gt - now * gm
            if RESET > 1:
                gs = gs - m * gm
                gm = gm * (1.0 - now)
        fire = gs * _slope(m - limit, scale, SURROGATE)
        gm = gm + fire
        gt = gt - fire
        if RESET == 1:
            gt = gt - due * gm
        if RESET == 3:
            gm = (1.0 - due) * gm
        kept = gm
        if RESET == 2:
            kept = (1.0 - due) * gm
        tl.store(da + at, gm, mask=mask)
        c = decay * kept
        sum_beta += before * kept
        sum_theta += gt
    tl.store(carry + own, c, mask=mask)
    tl.store(d_beta + own, sum_beta, mask=mask)
    tl.store(d_theta + own, sum_theta, mask=mask)
