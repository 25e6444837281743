"""What the CPU kernels of Gate-Shift-Fuse are compiled with: numba, and small matrix products.

The three products of GSF (channels to 27 taps, and back, and the gradient of the taps) have 27
rows or columns, where libraries for large matrices reach half of what a core can do. `_product`
keeps one result in each vector register, so that the multiplications alone set the pace.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.core.errors import NumbaError
from numba.core.registry import cpu_target
from numba.extending import intrinsic

from errors import InputError

U = np.uint64  # of indices: numba then leaves out the test for negative ones, and loops vectorise

_FEATURES = cpu_target.target_context.codegen().magic_tuple()[2].split(",")
# Numbers in a vector register, and how many results a product keeps in registers: with AVX-512
# all 27 taps, with 16 shorter registers a third of them.
LANES = 16 if "+avx512f" in _FEATURES else 8 if "+avx2" in _FEATURES else 4
TAPS_AT_ONCE = 9 if LANES == 8 else 27
CHANNELS_AT_ONCE = 16 if LANES == 16 else 8
ROWS_AT_ONCE = 8 if LANES == 16 else 2
PADDED_TAPS = 32
TILE = 1024  # pixels that are worked on at a time, so that all that they need stays in the cache
PITCH = TILE + 16  # their distance in scratch: no power of two, or they would fight for its lines
BLOCK = 64  # channels at a time, for the same reason

_FAST = {"contract", "reassoc", "nsz", "arcp"}


_PARTS = ("compiling", "forward", "backward")
# numba renews what it keeps on disk when the file of a function changes, and does not see the
# files of what that function calls: the names of our functions carry a sum over all of them.
_SOURCES = [Path(__file__).with_name(f"{name}.py") for name in _PARTS]
_VERSION = hashlib.sha256(b"".join(path.read_bytes() for path in _SOURCES)).hexdigest()[:12]


class Kernel:
    """A compiled function whose machine code is kept on disk where that is possible."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self._run: Callable[..., Any]
        function.__qualname__ += f"_{_VERSION}"
        try:
            self._run = self._on_disk()
        except RuntimeError:  # no folder that can be written to
            self._run = self._without_disk()

    def _on_disk(self) -> Callable[..., Any]:
        return njit(nogil=True, fastmath=_FAST, error_model="numpy", cache=True)(self._function)

    def _without_disk(self) -> Callable[..., Any]:
        return njit(nogil=True, fastmath=_FAST, error_model="numpy")(self._function)

    def __call__(self, *arguments: Any) -> None:
        """Run; files that are broken are written anew, others that do not serve left alone."""
        try:
            self._run(*arguments)
        except Exception:  # noqa: BLE001 - unpickling foreign bytes raises anything
            self._run_renewed(*arguments)

    def _run_renewed(self, *arguments: Any) -> None:
        """Run after a failure: with an empty index of what is on disk, or without the disk."""
        try:
            self._run._cache.flush()  # type: ignore[attr-defined]
            self._run = self._on_disk()
            self._run(*arguments)
        except Exception:  # noqa: BLE001 - as above
            self._run = self._without_disk()
            self._run_without_disk(*arguments)

    def _run_without_disk(self, *arguments: Any) -> None:
        try:
            self._run(*arguments)
        except NumbaError as error:
            raise InputError(
                f"numba {numba.__version__} cannot compile {self._function.__name__} "
                f"({str(error).splitlines()[0]}): install one of 0.64 to 0.68, or none; PyTorch's "
                "operations then give the same numbers, slower"
            ) from error


part = njit(fastmath=_FAST, error_model="numpy")


# ---------------------------------------------------------------- products of small matrices


def _product(rows: int, vectors: int, a_row: int) -> Any:
    """Compile `c[i, j] (+)= sum over s of a[s, i] * b[s, j]` for `rows` x `vectors` registers.

    The compiled function takes (c, at, row), (a, at, step), (b, at, step), steps, add: an array,
    where in it to begin and the distance of rows or steps (both in numbers); add: not from 0.
    Rows of `a` are `a_row` apart.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        operands = []
        for which in range(3):
            array, at, step = cgutils.unpack_tuple(builder, arguments[which])
            data = context.make_array(signature.args[which][0])(context, builder, array).data
            operands.append((builder.gep(data, [at]), step))
        (c, c_row), a, b = operands
        results = [
            _vector_at(builder, c, builder.add(builder.mul(_whole(i), c_row), _whole(j * LANES)))
            for i in range(rows)
            for j in range(vectors)
        ]
        add = builder.icmp_signed("!=", arguments[4], arguments[4].type(0))
        zero = ir.Constant(_VECTOR, None)
        begin = [builder.select(add, builder.load(at, align=4), zero) for at in results]
        finals = _add_products(builder, begin, a, b, (a_row, vectors), arguments[3])
        for final, at in zip(finals, results, strict=True):
            builder.store(final, at, align=4)
        return context.get_dummy_value()

    @intrinsic
    def product(_context: Any, c: Any, a: Any, b: Any, _steps: Any, _add: Any) -> Any:
        placed = [types.Tuple((t[0], types.int64, types.int64)) for t in (c, a, b)]
        return types.void(*placed, types.int64, types.int64), generate

    return product


_VECTOR = ir.VectorType(ir.FloatType(), LANES)


def _whole(value: int) -> Any:
    return ir.Constant(ir.IntType(64), value)


def _vector_at(builder: Any, base: Any, offset: Any) -> Any:
    return builder.bitcast(builder.gep(base, [offset]), _VECTOR.as_pointer())


def _add_products(
    builder: Any, begin: list[Any], a: Any, b: Any, layout: tuple[int, int], steps: Any
) -> list[Any]:
    """Write the loop over the steps, its sums in registers; return them as they are after it."""
    a_row, vectors = layout
    before, loop, after = builder.block, *(builder.append_basic_block() for _ in range(2))
    builder.cbranch(builder.icmp_signed(">", steps, _whole(0)), loop, after)
    builder.position_at_end(loop)
    step = builder.phi(ir.IntType(64))
    sums = [builder.phi(_VECTOR) for _ in begin]
    a_here, b_here = (builder.gep(base, [builder.mul(step, by)]) for base, by in (a, b))
    columns = [
        builder.load(_vector_at(builder, b_here, _whole(j * LANES)), align=4)
        for j in range(vectors)
    ]
    signature = ir.FunctionType(_VECTOR, [_VECTOR] * 3)
    multiply = cgutils.get_or_insert_function(
        builder.module, signature, f"llvm.fmuladd.v{LANES}f32"
    )
    new = []
    for i in range(len(begin) // vectors):
        same = _in_all_lanes(builder, builder.load(builder.gep(a_here, [_whole(i * a_row)])))
        for j, column in enumerate(columns):
            new.append(builder.call(multiply, [same, column, sums[i * vectors + j]]))
    following = builder.add(step, _whole(1))
    _join(step, (_whole(0), before), (following, loop))
    for total, first, updated in zip(sums, begin, new, strict=True):
        _join(total, (first, before), (updated, loop))
    builder.cbranch(builder.icmp_signed("<", following, steps), loop, after)
    builder.position_at_end(after)
    finals = [builder.phi(_VECTOR) for _ in begin]
    for final, first, updated in zip(finals, begin, new, strict=True):
        _join(final, (first, before), (updated, loop))
    return finals


def _in_all_lanes(builder: Any, scalar: Any) -> Any:
    nothing = ir.Constant(_VECTOR, ir.Undefined)
    one = builder.insert_element(nothing, scalar, ir.Constant(ir.IntType(32), 0))
    first = ir.Constant(ir.VectorType(ir.IntType(32), LANES), None)
    return builder.shuffle_vector(one, nothing, first)


def _join(phi: Any, *sources: tuple[Any, Any]) -> None:
    for value, block in sources:
        phi.add_incoming(value, block)


taps_product = _product(TAPS_AT_ONCE, 1, 1)
channels_product = _product(CHANNELS_AT_ONCE, 1, 1)
weights_product = _product(ROWS_AT_ONCE, PADDED_TAPS // LANES, PITCH)
