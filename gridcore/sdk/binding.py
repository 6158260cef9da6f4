"""Whether arguments fit a function, seen where it is called and not when it runs."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

Checker = Callable[[tuple[Any, ...], Mapping[str, Any]], None]

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def checker(function: Callable[..., Any], name: str, *, skip_first: bool = False) -> Checker:
    """Raises TypeError as a call of `function` would. `skip_first`: it is a method, self is not
    given."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # some of those written in C do not say
        return _no_check
    parameters = list(signature.parameters.values())
    if skip_first:
        if parameters and parameters[0].kind in _POSITIONAL:
            del parameters[0]
        signature = signature.replace(parameters=parameters)
    required = sum(p.default is p.empty for p in parameters if p.kind in _POSITIONAL)
    allowed: float = sum(p.kind in _POSITIONAL for p in parameters)
    if any(p.kind is p.VAR_POSITIONAL for p in parameters):
        allowed = float("inf")
    needs_keywords = any(p.kind is p.KEYWORD_ONLY and p.default is p.empty for p in parameters)

    def check(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        # `bind` takes five times as long as all else that a call costs here.
        if not kwargs and not needs_keywords and required <= len(args) <= allowed:
            return
        try:
            signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{name}{signature}: {error}") from None

    return check


def _no_check(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    del args, kwargs
