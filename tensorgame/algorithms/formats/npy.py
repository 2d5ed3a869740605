"""Arrays in NumPy's .npy format, with pickles read as data.

NumPy pickles an array of arrays as calls of three of its own functions. Here these names stand for
two small classes that only keep their arguments, any other name is refused, and the arrays are then
built from plain bytes of a known type. So no pickle can run anything, not even in NumPy, whose own
reconstruction trusts the sizes and flags that it is given. Instructions that such pickles do not
need are refused as well: some make `pickle` take all memory.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import re

import numpy as np

_NDARRAY = "numpy.ndarray"
_NUMBERS = {f"{kind}{size}" for kind in "iu" for size in (1, 2, 4, 8)} | {"f2", "f4", "f8"}
_OBJECTS = {"O", "O4", "O8"}
_INSTRUCTIONS = re.compile(
    "PROTO|FRAME|STOP|GLOBAL|STACK_GLOBAL|REDUCE|BUILD|MARK|NONE|NEWTRUE|NEWFALSE|BININT[12]?|"
    "(SHORT_)?BINUNICODE|(SHORT_)?BINBYTES|BINBYTES8|EMPTY_TUPLE|TUPLE[123]?|EMPTY_LIST|APPENDS?|"
    "(LONG_)?BINPUT|(LONG_)?BINGET|MEMOIZE"
)


def read(content: bytes) -> np.ndarray | list[np.ndarray]:
    """The array of a .npy file, or the three of a pickled object array of arrays.

    Raises:
      ValueError: the content is damaged, or something else than arrays of numbers or text.
      Exception: what a damaged pickle makes of `pickle`.
    """
    stream = io.BytesIO(content)
    version = np.lib.format.read_magic(stream)
    if version == (1, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
    elif version == (2, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_2_0(stream)
    else:
        raise ValueError(f"an array is stored in version {version} of .npy; 1.0 or 2.0 is read")
    if dtype == np.dtype(object):
        return _unpickle(stream.read())
    return _array(dtype, shape, fortran, stream.read())


def _unpickle(content: bytes) -> list[np.ndarray]:
    for instruction, argument, _ in pickletools.genops(content):
        if not _INSTRUCTIONS.fullmatch(instruction.name):
            raise ValueError(
                f"a pickle has the instruction {instruction.name}; only arrays are read"
            )
        if instruction.name in ("FRAME", "LONG_BINPUT") and argument > len(content):
            raise ValueError(f"a pickle claims the size {argument}, more than there is of it")
    value = _Unpickler(io.BytesIO(content)).load()
    arrays = value.content if isinstance(value, _Array) else None
    if not isinstance(arrays, list) or len(arrays) != 3:
        raise ValueError("a pickle holds something else than the three arrays u, v, w")
    for array in arrays:
        if not isinstance(array, _Array) or not isinstance(array.content, np.ndarray):
            raise ValueError("a pickle holds something else than arrays of numbers")
    return [array.content for array in arrays]


def _array(dtype: np.dtype, shape: tuple[int, ...], fortran: bool, raw: bytes) -> np.ndarray:
    if dtype.kind not in "iufU":
        raise ValueError(f"an array has dtype {dtype}; only numbers and text are read")
    # A header may claim more than memory holds, so that its claim is checked first.
    if math.prod(shape) * dtype.itemsize != len(raw) or min(shape, default=0) < 0:
        raise ValueError(f"an array of shape {shape} and dtype {dtype} has {len(raw)} bytes")
    return np.frombuffer(raw, dtype).reshape(shape, order="F" if fortran else "C")


class _Dtype:
    """Stands for numpy.dtype: the name of a type and its byte order."""

    __slots__ = ("name", "order")

    def __init__(self, name: object, *_: object) -> None:
        if name not in _NUMBERS | _OBJECTS:
            raise ValueError(f"a pickle holds an array of dtype {name!r}; only numbers are read")
        self.name = name
        self.order = "="

    def __setstate__(self, state: tuple) -> None:
        if state[1] not in tuple("<>=|"):
            raise ValueError(f"a pickle holds an array of byte order {state[1]!r}")
        self.order = state[1]


class _Array:
    """Stands for NumPy's reconstruction of an array: an array of numbers, or a list."""

    __slots__ = ("content",)

    def __init__(self, kind: object, *_: object) -> None:
        if kind != _NDARRAY:
            raise ValueError(f"a pickle reconstructs {kind!r}; only arrays are read")
        self.content: np.ndarray | list | None = None

    def __setstate__(self, state: tuple) -> None:
        _, shape, dtype, fortran, raw = state
        if not isinstance(dtype, _Dtype):
            raise ValueError("a pickle holds an array without a dtype")
        if dtype.name in _OBJECTS:
            self.content = raw
            return
        # What is no size or no bytes could be multiplied, or made into bytes, beyond all memory.
        if type(shape) is not tuple or not all(type(length) is int for length in shape):
            raise ValueError("a pickle holds an array without a shape")
        if type(raw) is not bytes:
            raise ValueError("a pickle holds an array without its bytes")
        self.content = _array(np.dtype(dtype.order + dtype.name), shape, bool(fortran), raw)


class _Unpickler(pickle.Unpickler):
    """Knows the names that NumPy uses to pickle an array, as data, and no others."""

    _KNOWN = {  # noqa: RUF012
        ("numpy.core.multiarray", "_reconstruct"): _Array,
        ("numpy._core.multiarray", "_reconstruct"): _Array,
        ("numpy", "ndarray"): _NDARRAY,
        ("numpy", "dtype"): _Dtype,
    }

    def find_class(self, module: str, name: str) -> object:
        """Called for every name in the pickle, before anything is done with it."""
        if (module, name) not in self._KNOWN:
            raise ValueError(f"a pickle asks for {module}.{name}; only arrays are read")
        return self._KNOWN[module, name]
