"""The interpreter against arithmetic of NumPy, and with faults planted that it must see."""

from __future__ import annotations

import numpy as np
import pytest

from ptx import execute
from ptx.execute import Buffer, KernelError
from ptx.flow import _post_dominators
from ptx.runtime import aligned, compiled, missing

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing() or "available")

N = 64
"""Threads of a block: two warps."""


def run(body, *arrays, grid=1, threads=N, shared=0, order=0, preamble="", **types):
    """Run a kernel whose parameters are pointers a, b, c; return its report, unchecked."""
    names = "abc"[: len(arrays)]
    kinds = [types.get(name, "float") for name in names]
    parameters = ", ".join(f"{kind}* {name}" for kind, name in zip(kinds, names, strict=True))
    text = f'{preamble}\nextern "C" __global__ void planted({parameters}) {{\n{body}\n}}'
    buffers = [Buffer(array.ctypes.data, array.nbytes) for array in arrays]
    addresses = [np.uint64(array.ctypes.data) for array in arrays]
    return execute.launch(
        compiled(text), "planted", (grid,), (threads,), addresses, shared, buffers, order
    )


def floats(n=N, seed=0):
    array, _ = aligned((n,), np.float32)
    array[...] = np.random.default_rng(seed).normal(0, 100, n)
    return array


def integers(dtype, n=N, seed=0):
    array, _ = aligned((n,), dtype)
    limits = np.iinfo(dtype)
    array[...] = np.random.default_rng(seed).integers(limits.min, limits.max, n, dtype, True)
    return array


SHARED = "__shared__ float s[64]; const int t = threadIdx.x;"
PLANTED = {
    "out_of_bounds": "a[threadIdx.x + 1] = 1;",
    "misaligned": "*(float*)((char*)a + 2 + 4 * (threadIdx.x / 2)) = 1;",
    "uninitialised_shared": f"{SHARED} if (t) s[t] = 1; __syncthreads(); a[t] = s[t];",
    "shared_race": f"{SHARED} s[t] = t; a[t] = s[63 - t];",
    "divergent_barrier": f"{SHARED} if (t % 32 < 9) __syncthreads(); a[t] = 0;",
    "barrier_missed": f"{SHARED} if (t < 32) return; __syncthreads(); a[t] = 0;",
    "read_of_written": "a[threadIdx.x] = 2; if (threadIdx.x == 9) a[7] = __ldg(a + 54);",
    "division_by_zero": "a[threadIdx.x] = 7 / ((int)a[0] * 0 + (int)threadIdx.x / 99);",
    "trapped": "if (threadIdx.x == 5) __trap();",
    "written_twice": "a[threadIdx.x / 2] = 1;",
}


@pytest.mark.parametrize("event", PLANTED)
def test_planted_fault_is_seen(event):
    report = run(PLANTED[event], floats())
    assert event in report.events
    assert event in "\n".join(report.examples)
    if event in execute.HARMLESS:
        report.check()
    else:
        with pytest.raises(KernelError, match=f"planted.*{event}"):
            report.check()


def test_faults_name_their_place():
    report = run("if (blockIdx.x == 3)\na[threadIdx.x + 5] = 1;", floats(), grid=4, threads=60)
    assert report.events == {"out_of_bounds": 1}
    (told,) = report.examples
    assert "(kernel.cu:4), block 3, thread 59" in told


def test_memory_that_nobody_wrote_is_seen():
    array, unset = floats(), np.zeros(4 * N, bool)
    unset[4 * 7 : 4 * 7 + 4] = True
    module = compiled('extern "C" __global__ void planted(float* a) {a[threadIdx.x] *= 2;}')

    def launch():
        buffer = Buffer(array.ctypes.data, array.nbytes, unset)
        address = np.uint64(array.ctypes.data)
        return execute.launch(module, "planted", (1,), (N,), [address], 0, [buffer])

    report = launch()
    assert report.events == {"uninitialised_global": 1}
    assert "thread 7," in report.examples[0]
    assert launch().events == {}, "the first launch has written it"


def test_what_is_right_is_no_fault():
    body = f"{SHARED} s[t] = a[t]; __syncthreads(); a[t] = s[63 - t];"
    array = floats()
    expected = array[::-1].copy()
    report = run(body, array)
    assert report.events == {}
    np.testing.assert_array_equal(array, expected)
    assert report.totals["barriers"] == 2
    assert report.totals["bytes_loaded"] == report.totals["bytes_stored"] == 4 * N


def test_order_of_warps_and_blocks():
    def order_of(order):
        array = floats(1 + 2 * 4)
        array[...] = 0
        body = """if (threadIdx.x % 32 == 0) {
            a[1 + (int)a[0]] = 2 * blockIdx.x + threadIdx.x / 32; a[0] += 1;}"""
        run(body, array, grid=4, order=order)
        return array[1:].tolist()

    assert order_of(0) == [0, 1, 2, 3, 4, 5, 6, 7]
    assert order_of(1) == [1, 0, 3, 2, 5, 4, 7, 6]
    assert order_of(2) == [6, 7, 4, 5, 2, 3, 0, 1]


def test_arguments_must_have_the_size_of_parameters():
    module = compiled('extern "C" __global__ void planted(int n) {}')
    with pytest.raises(KernelError, match="8 bytes given, where 4"):
        execute.launch(module, "planted", (1,), (1,), [np.int64(3)])
    with pytest.raises(KernelError, match="has 1 parameters, not 0"):
        execute.launch(module, "planted", (1,), (1,), [])


def test_structures_are_passed_by_value():
    text = """struct Pair {short a; float b; long long c;};
    extern "C" __global__ void planted(const Pair pair, const int n, float* out) {
        out[0] = pair.a; out[1] = pair.b; out[2] = pair.c; out[3] = n;}"""
    out, _ = aligned((4,), np.float32)
    dtype = np.dtype([("a", "i2"), ("b", "f4"), ("c", "i8")], align=True)
    arguments = [np.array([(-3, 0.5, 1 << 40)], dtype), np.int32(9), np.uint64(out.ctypes.data)]
    buffers = [Buffer(out.ctypes.data, out.nbytes)]
    execute.launch(compiled(text), "planted", (1,), (1,), arguments, 0, buffers).check()
    np.testing.assert_array_equal(out, [-3, 0.5, 1 << 40, 9])


@pytest.mark.parametrize("beyond", [0, 1])
def test_parameters_are_read_by_index(beyond):
    """As memory, by addresses that are computed; what lies behind the last one is out of bounds."""
    text = f"""struct Table {{float values[64]; int at[64];}};
    extern "C" __global__ void planted(float* out, const __grid_constant__ Table table) {{
        const float* values = table.values;
        out[threadIdx.x] = values[table.at[threadIdx.x]] + values[threadIdx.x + {64 * beyond} + 1];
    }}"""
    out, _ = aligned((N,), np.float32)
    values = np.arange(N, dtype=np.float32)
    table = np.zeros(1, [("values", "f4", N), ("at", "i4", N)])
    table["values"], table["at"] = values, np.arange(N)[::-1]
    arguments, buffers = [np.uint64(out.ctypes.data), table], [Buffer(out.ctypes.data, out.nbytes)]
    module = compiled(text)
    report = execute.launch(module, "planted", (1,), (N,), arguments, 0, buffers)
    assert report.events == ({"out_of_bounds": 1} if beyond else {})
    assert "ld.param" in module.text
    if not beyond:
        np.testing.assert_array_equal(out[:-1], values[:0:-1] + values[1:])


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64",
                                   "uint64"])  # fmt: skip
def test_integers_compute_as_in_numpy(dtype):
    kind = {"i": "", "u": "unsigned "}[np.dtype(dtype).kind] + {
        1: "char", 2: "short", 4: "int", 8: "long long"
    }[np.dtype(dtype).itemsize]  # fmt: skip
    kind = "signed char" if dtype == "int8" else kind
    a, b = integers(dtype, seed=1), integers(dtype, seed=2)
    out, _ = aligned((9, N), dtype)
    body = f"""const int t = threadIdx.x; const {kind} x = a[t], y = b[t], n = t % {8 * a.itemsize};
    c[t] = x + y; c[64 + t] = x - y; c[128 + t] = x * y; c[192 + t] = x & ~y;
    c[256 + t] = x << n; c[320 + t] = x >> n; c[384 + t] = x < y ? x : -y;
    c[448 + t] = y ? x / y : 0; c[512 + t] = y ? x % y : 0;"""
    run(body, a, b, out, a=kind, b=kind, c=kind).check()
    n = (np.arange(N) % (8 * a.itemsize)).astype(dtype)
    quotient = np.fix(a.astype(np.longdouble) / np.where(b, b, 1)).astype(dtype)
    with np.errstate(all="ignore"):
        expected = [a + b, a - b, a * b, a & ~b, a << n, a >> n, np.where(a < b, a, -b),
                    np.where(b, quotient, 0), np.where(b, a - quotient * b, 0)]  # fmt: skip
    np.testing.assert_array_equal(out, expected)


def test_products_of_32_bits_have_64():
    a, b = integers("int32", seed=3), integers("int32", seed=4)
    out, _ = aligned((3, N), np.int64)
    body = """const int t = threadIdx.x; c[t] = (long long)a[t] * b[t];
    c[64 + t] = __mulhi(a[t], b[t]); c[128 + t] = (long long)a[t] * b[t] + c[t];"""
    run(body, a, b, out, a="int", b="int", c="long long").check()
    product = a.astype(np.int64) * b
    np.testing.assert_array_equal(out, [product, product >> 32, 2 * product])


@pytest.mark.parametrize(("bits", "first", "count"), [(32, 7, 25), (32, 3, 9), (64, 32, 32)])
def test_bits_are_inserted_where_their_place_is_known(bits, first, count):
    kind = f"uint{bits}"
    a, b = integers(kind, seed=5), integers(kind, seed=6)
    out, _ = aligned((N,), kind)
    constraint, c_type = ("r", "unsigned") if bits == 32 else ("l", "unsigned long long")
    body = f"""const int t = threadIdx.x; asm("bfi.b{bits} %0, %1, %2, {first}, {count};"
        : "={constraint}"(c[t]) : "{constraint}"(a[t]), "{constraint}"(b[t]));"""
    run(body, a, b, out, a=c_type, b=c_type, c=c_type).check()
    place = ((1 << count) - 1) << first
    expected = [
        (x << first & place) | (y & ~place) for x, y in zip(a.tolist(), b.tolist(), strict=True)
    ]
    np.testing.assert_array_equal(out, np.array(expected, kind))


def test_floats_compute_as_in_numpy():
    a, b = floats(seed=5), floats(seed=6)
    a[:4] = np.inf, np.nan, -0.0, 3e38
    out, _ = aligned((7, N), np.float32)
    body = """const int t = threadIdx.x; const float x = a[t], y = b[t];
    c[t] = __fmul_rn(x, y); c[64 + t] = __fadd_rn(x, y); c[128 + t] = __fdiv_rn(x, y);
    c[192 + t] = __fsqrt_rn(fabsf(x)); c[256 + t] = fmaf(x, y, -x); c[320 + t] = x < y ? x : y;
    c[384 + t] = rintf(y);"""
    run(body, a, b, out).check()
    wide, other = a.astype(np.float64), b.astype(np.float64)
    with np.errstate(all="ignore"):
        expected = [a * b, a + b, a / b, np.sqrt(np.abs(a)),
                    (wide * other - wide).astype(np.float32), np.where(a < b, a, b),
                    np.rint(b)]  # fmt: skip
    np.testing.assert_array_equal(out, np.array(expected, np.float32))


def test_subnormal_numbers_are_flushed_where_the_instruction_says_so():
    a, out = floats(), floats(2 * N)
    a[...] = np.float32(2e-38) * np.arange(N, dtype=np.float32) / N
    body = """const int t = threadIdx.x; c[t] = a[t] * 0.5f;
    asm("mul.rn.f32 %0, %1, 0f3F000000;" : "=f"(c[64 + t]) : "f"(a[t]));"""
    body = body.replace("c[", "b[")
    run(body, a, out).check()
    tiny = np.finfo(np.float32).tiny
    half = a * np.float32(0.5)
    np.testing.assert_array_equal(out[:N], np.where(half < tiny, 0, half))
    np.testing.assert_array_equal(out[N:], half)
    assert (half[1:] > 0).all()
    assert (half < tiny).any()


def test_conversions():
    a, out = floats(), floats(4 * N)
    a[:3] = np.nan, 3e9, -3e9
    body = """const int t = threadIdx.x; unsigned short h;
    b[t] = (int)a[t]; b[64 + t] = (unsigned char)(int)a[t];
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(h) : "f"(a[t]));
    asm("cvt.f32.f16 %0, %1;" : "=f"(b[128 + t]) : "h"(h));
    b[192 + t] = (float)(long long)a[t];"""
    run(body, a, out).check()
    whole = np.nan_to_num(np.trunc(a.astype(np.float64)), nan=0)
    fits = np.clip(whole, -(1 << 31), (1 << 31) - 1).astype(np.int32)
    with np.errstate(over="ignore"):
        half = a.astype(np.float16).astype(np.float32)
    expected = [fits, fits.astype(np.uint8), half, whole]
    np.testing.assert_array_equal(out.reshape(4, N), np.array(expected, np.float32))


def test_lanes_part_and_meet_again():
    """Loops of different lengths, branches in them, calls, and early returns."""
    preamble = """__device__ __noinline__ int collatz(int n) {
        int steps = 0;
        while (n != 1) {if (n % 2) n = 3 * n + 1; else n /= 2; ++steps; if (steps > 90) return -1;}
        return steps;}"""
    out, _ = aligned((N,), np.int32)
    body = "const int t = threadIdx.x; if (t == 40) {a[t] = 7; return;} a[t] = collatz(t + 1);"
    report = run(body, out, preamble=preamble, a="int")
    report.check()

    def steps(n):
        found = 0
        while n != 1:
            n, found = (3 * n + 1 if n % 2 else n // 2), found + 1
            if found > 90:
                return -1
        return found

    assert out.tolist() == [7 if t == 40 else steps(t + 1) for t in range(N)]
    assert report.totals["divergent"] > 50


def test_post_dominators_of_a_loop_in_a_branch():
    #      0 → 1 → 2 ⇄ 3, 3 → 4 ; 0 → 4
    assert _post_dominators([[1, 4], [2], [3], [2, 4], []]) == {4: 4, 3: 4, 2: 3, 1: 2, 0: 4}


@pytest.mark.parametrize(("stride", "waves"), [(1, 1), (2, 2), (3, 1), (32, 32), (0, 1)])
def test_bank_conflicts_are_counted(stride, waves):
    body = f"""extern __shared__ volatile float s[]; s[{stride} * threadIdx.x] = 1;
    a[threadIdx.x] = s[{stride} * threadIdx.x];"""
    stores = run(body, floats(), threads=32, shared=4096).of("st.")
    assert (stores["waves"], stores["extra_waves"]) == (waves, waves - 1)


@pytest.mark.parametrize(("stride", "sectors"), [(1, 4), (2, 8), (8, 32), (0, 1)])
def test_sectors_are_counted(stride, sectors):
    array = floats(256)
    loads = run(f"b[threadIdx.x] = a[{stride} * threadIdx.x];", array, floats(), threads=32).of(
        "ld.global"
    )
    assert (loads["sectors"], loads["bytes"], loads["lanes"]) == (sectors, 128, 32)


def test_what_is_not_interpreted_is_told():
    for body in ("atomicAdd(a, 1);", "a[0] = __shfl_sync(~0u, a[1], 3);", "a[0] = __expf(a[1]);"):
        with pytest.raises(NotImplementedError):
            run(body, floats())
