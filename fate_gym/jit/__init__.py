"""Compiled functions on blocks of memory: each compiled once, on its own, and kept on disk.

`block` says how tables lie in a buffer, `function` how a function is compiled and called,
`signature` what types its annotations mean, `store` where compiled code is kept, and `build` how
what is missing is compiled, on all cores, before it is first needed.
"""

from fate_gym.jit.block import Block, Row, clear_block, column, copy_block, scalar, table
from fate_gym.jit.function import inlined, kernel
from fate_gym.jit.signature import FloatMatrix, Floats, IntMatrix, Ints

__all__ = [
    "Block",
    "FloatMatrix",
    "Floats",
    "IntMatrix",
    "Ints",
    "Row",
    "clear_block",
    "column",
    "copy_block",
    "inlined",
    "kernel",
    "scalar",
    "table",
]
