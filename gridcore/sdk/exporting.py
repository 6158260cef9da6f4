"""Functions and arguments as engines take them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from gridcore.sdk.engine import Arguments, Exported
from gridcore.sdk.errors import NotPicklable, describe
from gridcore.sdk.packing import Packed, look, pack
from gridcore.sdk.refs import ObjectRef, number_of

_NOTHING = Arguments(pack(((), {}), "no arguments"))


def export(thing: object, name: str) -> Exported:
    """By value, as cloudpickle does it: what it refers to in its module goes with it as it is."""
    from gridcore.sdk import by_value  # late, as cloudpickle takes as long as all of `gridcore`

    look()
    try:
        data = by_value.dumps(thing)
    except Exception as error:
        raise NotPicklable(
            f"Sending {name} to a worker",
            cause=f"it refers to something that cannot be pickled: {describe(error)}",
            next_step="Make that inside of it, or pass it as an argument",
        ) from error
    return Exported(hashlib.blake2b(data, digest_size=16).digest(), data, name)


def arguments_of(args: tuple[Any, ...], kwargs: Mapping[str, Any], name: str) -> Arguments:
    """Packed; references among them are named apart, for the engine to resolve."""
    if not args and not kwargs:
        return _NOTHING
    for value in args:
        if isinstance(value, ObjectRef):
            break
    else:
        for value in kwargs.values():
            if isinstance(value, ObjectRef):
                break
        else:
            return Arguments(_packed(args, kwargs, name))
    found: dict[int | str, ObjectRef[Any]] = {
        place: value for place, value in enumerate(args) if isinstance(value, ObjectRef)
    }
    found |= {key: value for key, value in kwargs.items() if isinstance(value, ObjectRef)}
    bare_args = tuple(None if place in found else value for place, value in enumerate(args))
    bare_kwargs = {key: None if key in found else value for key, value in kwargs.items()}
    return Arguments(
        _packed(bare_args, bare_kwargs, name),
        tuple(found),
        tuple(number_of(ref) for ref in found.values()),
    )


def _packed(args: tuple[Any, ...], kwargs: Mapping[str, Any], name: str) -> Packed:
    return pack((args, kwargs), f"an argument of {name}")
