"""cloudpickle, keeping in code that it sends the names of the files where it stands.

From 3.1.3 on cloudpickle replaces them, so that equal code has equal bytes wherever it is. A
traceback from a worker then has no source lines, which is worth more here: bytes that differ cost
one more sending of a function.
"""

from __future__ import annotations

import io
import pickle
from collections import ChainMap
from collections.abc import Callable
from types import CodeType
from typing import Any, ClassVar

import cloudpickle

_REPLACED = "<dynamic-code>"


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    @staticmethod
    def _reduce_code(code: CodeType) -> tuple[Any, ...]:
        make, arguments = cloudpickle.Pickler.dispatch_table[CodeType](code)
        return make, tuple(
            code.co_filename if isinstance(argument, str) and argument == _REPLACED else argument
            for argument in arguments
        )

    dispatch_table: ClassVar[Any] = ChainMap(
        {CodeType: _reduce_code}, cloudpickle.Pickler.dispatch_table
    )


def dumps(value: object, keep: Callable[[pickle.PickleBuffer], Any] | None = None) -> bytes:
    """`keep`: gets buffers that may travel apart, as pickle's `buffer_callback`."""
    with io.BytesIO() as file:
        _Pickler(file, protocol=5, buffer_callback=keep).dump(value)
        return file.getvalue()
