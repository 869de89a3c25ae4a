"""Tables in one buffer, declared once: as a class whose fields are the schema.

A `Block` is a byte buffer: a directory (where each table begins, its rows and columns), scalars,
and tables of numbers or of records (`Row`). Copying a block is one memory copy, compiled code
gets its address, and several blocks of one shape can be rows of a matrix. The class is the only
place that names a field; sizes, views in Python and attributes in compiled code come from it.

Arrays that compiled code cuts from a block own nothing and count no references: they must not be
returned to Python, and the caller keeps the block alive.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from llvmlite import ir
from numba import from_dtype, types
from numba.core import cgutils
from numba.core.datamodel import models, register_default
from numba.core.errors import TypingError
from numba.core.imputils import (
    lower_builtin,
    lower_cast,
    lower_constant,
    lower_getattr_generic,
    lower_setattr_generic,
)
from numba.core.typing import signature
from numba.core.typing.templates import AttributeTemplate, infer_getattr
from numba.extending import NativeValue, intrinsic, typeof_impl, unbox
from numba.np.arrayobj import _getitem_array_generic, populate_array, setitem_array
from numpy.typing import NDArray

Buffer = NDArray[np.uint8]
_WORD = 8


@dataclass(frozen=True, slots=True)
class Field:
    """One column, scalar or table of a schema."""

    dtype: np.dtype[Any]
    shape: tuple[str | int, ...]
    unit: str
    text: str
    scalar: bool = False

    @property
    def dimensions(self) -> str:
        """Its shape by the names of sizes; empty for a single value."""
        return f"({', '.join(map(str, self.shape))})" if self.shape else ""


def column(dtype: str, text: str, unit: str = "") -> Any:
    """A column of a `Row`."""
    return Field(np.dtype(dtype), (), unit, text)


def scalar(dtype: str, text: str, unit: str = "") -> Any:
    """A scalar of a `Block`."""
    return Field(np.dtype(dtype), (), unit, text, scalar=True)


def table(kind: str | type[Row], *shape: str | int, text: str, unit: str = "") -> Any:
    """A table of a `Block`, with one or two dimensions.

    Args:
        kind: type of its numbers, or the class of its records.
        shape: names of sizes, which `Block.allocate` is given, or numbers.
        text: what it holds.
        unit: of the numbers.
    """
    dtype = np.dtype(kind) if isinstance(kind, str) else kind.dtype
    return Field(dtype, shape, unit, text)


def _padded(size: int) -> int:
    return -(-size // _WORD) * _WORD


def _record(fields: dict[str, Field]) -> np.dtype[Any]:
    """Aligned, a multiple of 8 bytes long: whatever follows is aligned too."""
    aligned = np.dtype([(name, field.dtype) for name, field in fields.items()], align=True)
    where: Any = aligned.fields or {}
    return np.dtype(
        {
            "names": list(fields),
            "formats": [field.dtype for field in fields.values()],
            "offsets": [where[name][1] for name in fields],
            "itemsize": _padded(aligned.itemsize),
        },
        align=True,
    )


class Row:
    """A record: subclasses declare columns; ``dtype`` is made from them."""

    fields: ClassVar[dict[str, Field]]
    dtype: ClassVar[np.dtype[Any]]

    def __init_subclass__(cls) -> None:
        cls.fields = {n: f for n, f in vars(cls).items() if isinstance(f, Field)}
        cls.dtype = _record(cls.fields)


class _BlockClass(type):
    """So that numba can tell the classes of blocks from other classes."""


class Block(metaclass=_BlockClass):
    """A buffer with a directory: subclasses declare scalars and tables.

    ``block.name`` is a number or an array that shows the buffer. In compiled code ``Name(address)``
    makes a block of the class out of the address of one.
    """

    fields: ClassVar[dict[str, Field]]
    tables: ClassVar[dict[str, Field]]
    head: ClassVar[np.dtype[Any]]
    head_at: ClassVar[int]

    buffer: Buffer
    address: int

    def __init_subclass__(cls) -> None:
        cls.fields = {n: f for n, f in vars(cls).items() if isinstance(f, Field)}
        cls.tables = {n: f for n, f in cls.fields.items() if not f.scalar}
        cls.head = _record({n: f for n, f in cls.fields.items() if f.scalar})
        cls.head_at = _WORD * (1 + 3 * len(cls.tables))
        for name in cls.fields:
            if cls.fields[name].scalar:
                setattr(cls, name, _property(name))
            else:
                delattr(cls, name)

    def __init__(self, buffer: Buffer) -> None:
        self.buffer = buffer
        self.address = int(buffer.ctypes.data)
        if self.head.itemsize:
            self._head = buffer[self.head_at : self.head_at + self.head.itemsize].view(self.head)
        directory = buffer[_WORD : self.head_at].view(np.int64).reshape(-1, 3).tolist()
        for (name, field), (at, rows, columns) in zip(self.tables.items(), directory, strict=True):
            flat = buffer[at : at + rows * columns * field.dtype.itemsize].view(field.dtype)
            setattr(self, name, flat if len(field.shape) == 1 else flat.reshape(rows, columns))

    @classmethod
    def allocate(cls, **sizes: int) -> Self:
        """A block of zeros."""
        directory = cls.directory(**sizes)
        buffer = np.zeros(directory[0], np.uint8)
        buffer[: directory.nbytes] = directory.view(np.uint8)
        return cls(buffer)

    @classmethod
    def directory(cls, **sizes: int) -> NDArray[np.int64]:
        """Bytes in all, then for each table its first byte, its rows and its columns."""
        words = [0]
        at = cls.head_at + cls.head.itemsize
        for field in cls.tables.values():
            shape = [n if isinstance(n, int) else sizes[n] for n in field.shape]
            rows, columns = shape if len(shape) == 2 else (shape[0], 1)
            words += [at, rows, columns]
            at += _padded(rows * columns * field.dtype.itemsize)
        words[0] = at
        return np.array(words, np.int64)

    def copy(self) -> Self:
        """A block of its own with the same content."""
        return type(self)(self.buffer.copy())

    def __reduce__(self) -> tuple[type[Self], tuple[Buffer]]:
        return type(self), (self.buffer,)


def _property(name: str) -> property:
    def read(block: Block) -> Any:
        return block._head[name].item()

    def write(block: Block, value: Any) -> None:
        block._head[name] = value

    return property(read, write)


# --- in compiled code ------------------------------------------------------------------------


class BlockType(types.Type):
    """The type of a block in compiled code: its address."""

    def __init__(self, block: type[Block]) -> None:
        self.block = block
        super().__init__(name=f"{block.__module__}.{block.__qualname__}")

    @property
    def key(self) -> Any:
        return self.block


@register_default(BlockType)
class _BlockModel(models.PrimitiveModel):
    def __init__(self, manager: Any, fe_type: Any) -> None:
        super().__init__(manager, fe_type, cgutils.voidptr_t)


@typeof_impl.register(Block)
def _typeof_block(value: Block, _context: Any) -> BlockType:
    return BlockType(type(value))


@unbox(BlockType)
def _unbox_block(_typ: BlockType, value: Any, c: Any) -> NativeValue:
    number = c.pyapi.object_getattr_string(value, "address")
    address = c.pyapi.long_as_voidptr(number)
    failed = cgutils.is_not_null(c.builder, c.pyapi.err_occurred())
    c.pyapi.decref(number)
    return NativeValue(address, is_error=failed)


class _TableType(types.Array):
    """The type of a table: an array whose indices are never negative."""

    def __init__(self, dtype: Any, ndim: int) -> None:
        super().__init__(dtype, ndim, "C", name=f"table({dtype}, {ndim}d)")


register_default(_TableType)(models.ArrayModel)


@lower_cast(_TableType, types.Array)
def _as_array(_context: Any, _builder: Any, _from: Any, _to: Any, value: Any) -> Any:
    return value


def _unsigned(index: Any) -> Any:
    """The index type without a sign: then numba generates no wrap-around."""
    return types.uintp if isinstance(index, types.Integer) else types.UniTuple(types.uintp, 2)


def _get_item(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    array_type, index_type = sig.args
    unsigned = _unsigned(index_type)
    index = context.cast(builder, args[1], index_type, unsigned)
    one = isinstance(index_type, types.Integer)
    indices = (index,) if one else cgutils.unpack_tuple(builder, index)
    kinds = (types.uintp,) * len(indices)
    array = context.make_array(array_type)(context, builder, args[0])
    result = sig.return_type
    return _getitem_array_generic(context, builder, result, array_type, array, kinds, indices)


def _set_item(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    array_type, index_type, value_type = sig.args
    unsigned = _unsigned(index_type)
    index = context.cast(builder, args[1], index_type, unsigned)
    plain = signature(sig.return_type, array_type, unsigned, value_type)
    return setitem_array(context, builder, plain, (args[0], index, args[2]))


for _index in (types.Integer, types.BaseTuple):
    lower_builtin(operator.getitem, _TableType, _index)(_get_item)
    lower_builtin(operator.setitem, _TableType, _index, types.Any)(_set_item)


def _field_type(field: Field) -> Any:
    dtype = from_dtype(field.dtype)
    return dtype if field.scalar else _TableType(dtype, len(field.shape))


@infer_getattr
class _BlockAttributes(AttributeTemplate):
    key = BlockType

    def generic_resolve(self, typ: BlockType, name: str) -> Any:
        field = typ.block.fields.get(name)
        if field is None:
            raise TypingError(f"{typ} has no field {name!r}")
        return _field_type(field)


def _scalar_address(context: Any, builder: Any, typ: BlockType, value: Any, name: str) -> Any:
    offsets: Any = typ.block.head.fields
    at = typ.block.head_at + offsets[name][1]
    place = builder.gep(value, [ir.Constant(ir.IntType(64), at)])
    kind = context.get_value_type(_field_type(typ.block.fields[name]))
    return builder.bitcast(place, kind.as_pointer())


@lower_getattr_generic(BlockType)
def _get(context: Any, builder: Any, typ: BlockType, value: Any, name: str) -> Any:
    field = typ.block.fields[name]
    if field.scalar:
        return builder.load(_scalar_address(context, builder, typ, value, name))
    word = ir.IntType(64)
    directory = builder.bitcast(value, word.as_pointer())
    first = 1 + 3 * list(typ.block.tables).index(name)
    fixed = builder.module.add_metadata([])

    def entry(number: int) -> Any:
        loaded = builder.load(builder.gep(directory, [ir.Constant(word, first + number)]))
        # Written when the block is made and never again: the optimiser may read it once.
        loaded.set_metadata("invariant.load", fixed)
        return loaded

    array_type = _field_type(field)
    array = context.make_array(array_type)(context, builder)
    size = ir.Constant(word, field.dtype.itemsize)
    shape = [entry(1 + i) for i in range(array_type.ndim)]
    strides = [size] if array_type.ndim == 1 else [builder.mul(shape[1], size), size]
    data = builder.bitcast(builder.gep(value, [entry(0)]), array.data.type)
    populate_array(array, data, shape, strides, size, None)
    return array._getvalue()


@lower_setattr_generic(BlockType)
def _set(context: Any, builder: Any, sig: Any, args: Any, name: str) -> None:
    typ, value_type = sig.args
    wanted = _field_type(typ.block.fields[name])
    value = context.cast(builder, args[1], value_type, wanted)
    builder.store(value, _scalar_address(context, builder, typ, args[0], name))


class _BlockClassType(types.Callable, types.Opaque):
    """The type of a block's class: called with an address it makes a block."""

    def __init__(self, block: type[Block]) -> None:
        self.block = block
        super().__init__(name=f"class {block.__module__}.{block.__qualname__}")

    def get_call_type(self, context: Any, args: Any, kws: Any) -> Any:
        if kws or len(args) != 1 or not isinstance(args[0], types.Integer):
            raise TypingError(f"{self} takes an address")
        return self.get_call_signatures()[0][0]

    def get_call_signatures(self) -> tuple[list[Any], bool]:
        return [signature(BlockType(self.block), types.uintp)], False

    def get_impl_key(self, sig: Any) -> Any:
        return type(self)


register_default(_BlockClassType)(models.OpaqueModel)


@typeof_impl.register(_BlockClass)
def _typeof_block_class(value: type[Block], _context: Any) -> _BlockClassType:
    return _BlockClassType(value)


@lower_constant(_BlockClassType)
def _block_class(context: Any, _builder: Any, _typ: Any, _value: Any) -> Any:
    return context.get_dummy_value()


@lower_builtin(_BlockClassType, types.uintp)
def _block_at(_context: Any, builder: Any, _sig: Any, args: Any) -> Any:
    return builder.inttoptr(args[0], cgutils.voidptr_t)


@intrinsic
def copy_block(_context: Any, target: Any, source: Any) -> Any:
    """``copy_block(target, source)``: make one block the copy of another of the same sizes."""

    def generate(context: Any, builder: Any, _sig: Any, args: Any) -> Any:
        word = ir.IntType(64)
        size = builder.load(builder.bitcast(args[1], word.as_pointer()))
        cgutils.raw_memcpy(builder, args[0], args[1], size, 1)
        return context.get_dummy_value()

    return types.none(target, source), generate


@intrinsic
def clear_block(_context: Any, block: Any) -> Any:
    """``clear_block(block)``: set everything to zero."""
    at = block.block.head_at

    def generate(context: Any, builder: Any, _sig: Any, args: Any) -> Any:
        word = ir.IntType(64)
        size = builder.load(builder.bitcast(args[0], word.as_pointer()))
        first = ir.Constant(word, at)
        start = builder.gep(args[0], [first])
        cgutils.memset(builder, start, builder.sub(size, first), 0)
        return context.get_dummy_value()

    return types.none(block), generate
