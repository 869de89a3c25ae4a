"""Compiled functions: separate machine code for each, called through its symbol.

numba links the code of everything that a function calls into it, and compiles all of it again.
Here a caller knows of a `kernel` only its name and signature, and the address is looked up when
the caller's machine code is loaded. So each kernel is compiled once, a caller is compiled anew
only when the *signature* of what it calls changes, and kernels can be compiled in any order and at
the same time. A call costs a few nanoseconds; what cannot afford them is `inlined`.
"""

from __future__ import annotations

import dis
import hashlib
from collections.abc import Callable, Iterator
from functools import cache, cached_property
from types import CodeType, ModuleType
from typing import Any, TypeVar, cast

import llvmlite.binding as llvm
import numba
import numpy as np
from numba import types
from numba.core import cgutils
from numba.core.compiler import CompileResult
from numba.core.datamodel import models, register_default
from numba.core.errors import TypingError
from numba.core.imputils import lower_constant, user_function
from numba.core.registry import cpu_target
from numba.extending import _Intrinsic, typeof_impl

from fate_gym.jit import build
from fate_gym.jit.block import Block, BlockType, Row
from fate_gym.jit.signature import signature_of
from fate_gym.jit.store import platform_digest

F = TypeVar("F", bound=Callable[..., Any])


def kernel(function: F) -> F:
    """Compile a function on its own. All parameters and the result need annotations.

    Division by zero gives inf or NaN, as in numpy. What it uses of its module are other kernels,
    inlined functions, blocks, rows, named tuples and constants, each by its own name.
    """
    made = KernelFunction(function, inline=False)
    build.REGISTRY.append(made)
    return cast(F, made)


def inlined(function: F) -> F:
    """Like `kernel`, but merged into every caller: for small functions on hot paths."""
    return cast(F, KernelFunction(function, inline=True))


class KernelFunction:
    """A compiled function, and all that is known of it before it is compiled.

    Attributes:
        function: what was decorated.
        name: module and name.
        inline: merged into its callers.
    """

    def __init__(self, function: Callable[..., Any], *, inline: bool) -> None:
        self.function = function
        self.name = f"{function.__module__}.{function.__qualname__}"
        self.inline = inline
        self.__doc__ = function.__doc__
        self.__name__, self.__module__ = function.__name__, function.__module__
        self.__wrapped__ = function

    def __call__(self, *args: Any) -> Any:
        entry = self.entry
        for i, dtype, ndim in self._arrays:
            array = args[i]
            if array.dtype != dtype or array.ndim != ndim or not array.flags.c_contiguous:
                raise TypeError(
                    f"{self.name}: argument {i} has to be a contiguous array of {dtype} with "
                    f"{ndim} dimensions"
                )
        return entry(*args)

    def __reduce__(self) -> str:
        return self.__name__

    @cached_property
    def signature(self) -> Any:
        """Its numba signature."""
        return signature_of(self.function)

    @cached_property
    def symbol(self) -> str:
        """The name of its machine code: changes with the signature."""
        return f"{self.name}.{_sha(str(self.signature), *_layouts(self.signature))}"

    @cached_property
    def digest(self) -> str:
        """Names its compiled code: changes whenever that may be different."""
        return _sha(platform_digest(), self.symbol, *self.content)

    @cached_property
    def requires(self) -> list[KernelFunction]:
        """The kernels that it calls, itself or through what is merged into it."""
        found: dict[int, KernelFunction] = {}
        for value in self._references.values():
            if isinstance(value, KernelFunction):
                for one in value.requires if value.inline else [value]:
                    found[id(one)] = one
        return list(found.values())

    @cached_property
    def entry(self) -> Callable[..., Any]:
        """The compiled function as Python calls it, without checks of its arguments."""
        build.prepare(self)
        code = self._compile_for_python() if self.inline else self.load()
        return cast(Callable[..., Any], code.entry_point)

    @cached_property
    def _arrays(self) -> list[tuple[int, np.dtype[Any], int]]:
        return [
            (i, numba.np.numpy_support.as_dtype(kind.dtype), kind.ndim)
            for i, kind in enumerate(self.signature.args)
            if isinstance(kind, types.Array)
        ]

    def load(self) -> CompileResult:
        """The machine code of a kernel, from the store if it is there, with all that it calls."""
        return self._loaded

    @cached_property
    def _loaded(self) -> CompileResult:
        for one in self.requires:
            one.load()
        result = build.STORE.read(self)
        if result is None:
            result = self.compile()
            build.STORE.write(self, result)
        address = result.library.get_pointer_to_function(result.fndesc.llvm_func_name)
        llvm.add_symbol(self.symbol, address)
        return result

    @cached_property
    def merged(self) -> CompileResult:
        """The code of an inlined function, for its callers: it never runs by itself."""
        return self.compile()

    def _compile_for_python(self) -> CompileResult:
        for one in self.requires:
            one.load()
        return self.compile(called_from_python=True)

    def compile(self, *, called_from_python: bool = False) -> CompileResult:
        """Compile it, whatever the store has. What it calls need not be compiled."""
        bare = self.inline and not called_from_python
        decorate = numba.njit(
            self.signature,
            error_model="numpy",
            forceinline=self.inline,
            no_cfunc_wrapper=True,
            no_cpython_wrapper=bare,
        )
        dispatcher = decorate(self.function)
        return cast(CompileResult, dispatcher.overloads[self.signature.args])

    @cached_property
    def content(self) -> list[str]:
        """What the machine code depends on, apart from platform and signature."""
        found = list(_code(self.function.__code__, self.function.__doc__))
        for name, value in sorted(self._references.items()):
            found += [name, *_value(value, self.name)]
        return found

    @cached_property
    def _references(self) -> dict[str, Any]:
        """What it names of its module and around it; builtins and its annotations apart."""
        code, known = self.function.__code__, self.function.__globals__
        names = {
            instruction.argval
            for one in _codes(code)
            for instruction in dis.get_instructions(one)
            if instruction.opname == "LOAD_GLOBAL"
        }
        around = zip(code.co_freevars, self.function.__closure__ or (), strict=True)
        return {name: known[name] for name in names if name in known} | {
            name: cell.cell_contents for name, cell in around
        }


def _sha(*parts: str) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.encode())
        digest.update(b"\0")
    return digest.hexdigest()[:20]


def _codes(code: CodeType) -> Iterator[CodeType]:
    """A function's code, and that of the functions and comprehensions in it."""
    yield code
    for one in code.co_consts:
        if isinstance(one, CodeType):
            yield from _codes(one)


def _code(code: CodeType, doc: str | None = None) -> Iterator[str]:
    """The code without line numbers and docstring: editing a comment compiles nothing."""
    yield code.co_code.hex()
    yield repr((code.co_names, code.co_varnames, code.co_argcount))
    for one in code.co_consts:
        if isinstance(one, CodeType):
            yield from _code(one)
        elif one != doc:
            yield repr(one)


def _value(value: Any, user: str) -> Iterator[str]:
    if isinstance(value, KernelFunction):
        yield value.symbol
        if value.inline:
            yield from value.content
    elif isinstance(value, type) and issubclass(value, Block | Row):
        yield layout(value)  # type: ignore[arg-type]  # classes are hashable
    elif isinstance(value, type) and issubclass(value, tuple) and hasattr(value, "_fields"):
        named: Any = value
        yield repr((named.__qualname__, named.__annotations__, named._field_defaults))
    elif isinstance(value, bool | int | float | str | tuple | np.generic | None):
        yield repr(value)
    elif isinstance(value, np.ndarray):
        yield repr((value.dtype.str, value.shape, value.tobytes()))
    elif isinstance(value, ModuleType):
        if value.__name__.partition(".")[0] not in ("numpy", "math"):
            raise TypeError(f"{user} reaches into module {value.__name__}: import what it uses")
        yield value.__name__
    elif isinstance(value, _Intrinsic):
        yield repr(value)  # those of this package, which is part of `platform_digest`
    else:
        # Its name does not tell whether it has changed: kept code might be stale.
        raise TypeError(f"{user} uses {value!r}: make it a kernel, an inlined function or a number")


@cache
def layout(owner: type[Block] | type[Row]) -> str:
    """Where the fields of a block or row lie."""
    if issubclass(owner, Row):
        return repr((owner.__qualname__, owner.dtype))
    fields = [(name, field.dtype, field.shape) for name, field in owner.fields.items()]
    return repr((owner.__qualname__, owner.head, fields))


def _layouts(sig: Any) -> Iterator[str]:
    """What the types of a signature do not show: layouts of blocks, names of a tuple's fields."""
    kinds = [sig.return_type, *sig.args]
    for kind in kinds:
        if isinstance(kind, types.BaseTuple):
            yield repr(getattr(kind, "fields", ()))
            kinds += kind.types
        elif isinstance(kind, BlockType):
            yield layout(kind.block)


# --- how compiled code calls it --------------------------------------------------------------


class _KernelType(types.Callable, types.Opaque):
    def __init__(self, function: KernelFunction) -> None:
        self.function = function
        super().__init__(name=f"kernel {function.name}")

    def get_call_type(self, context: Any, args: Any, kws: Any) -> Any:
        sig = self.function.signature
        fits = not kws and len(args) == len(sig.args)
        for given, wanted in zip(args, sig.args, strict=fits):
            if context.can_convert(given, wanted) is None:
                raise TypingError(f"{self.function.name}: {given} given for {wanted}")
        if not fits:
            raise TypingError(f"{self.function.name} takes {len(sig.args)} positional arguments")
        return sig

    def get_call_signatures(self) -> tuple[list[Any], bool]:
        return [self.function.signature], False

    def get_impl_key(self, sig: Any) -> Any:
        _lower(self.function)
        return self.function


register_default(_KernelType)(models.OpaqueModel)


@typeof_impl.register(KernelFunction)
def _typeof(value: KernelFunction, _context: Any) -> _KernelType:
    return _KernelType(value)


@lower_constant(_KernelType)
def _constant(context: Any, _builder: Any, _typ: Any, _value: Any) -> Any:
    return context.get_dummy_value()


_LOWERED: set[KernelFunction] = set()


def _lower(function: KernelFunction) -> None:
    """Tell numba, once, how a function is called."""
    if function in _LOWERED:
        return
    _LOWERED.add(function)

    def call(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        convention = context.call_conv
        kind = convention.get_function_type(sig.return_type, sig.args)
        target = cgutils.get_or_insert_function(builder.module, kind, function.symbol)
        if llvm.address_of_symbol(function.symbol) is None:
            # The caller is only compiled, in a process that will not run it.
            llvm.add_symbol(function.symbol, _NOWHERE)
        status, result = convention.call_function(builder, target, sig.return_type, sig.args, args)
        with cgutils.if_unlikely(builder, status.is_error):
            convention.return_status_propagate(builder, status)
        return result

    implementation = call
    if function.inline:
        code = function.merged
        implementation = user_function(code.fndesc, (code.library,))
    defined = (implementation, function, function.signature.args)
    cpu_target.target_context.insert_func_defn([defined])


_NOWHERE = llvm.address_of_symbol("abort") or 1
