"""The options of a part, read from the signature of what makes it: checked by name and type before anything is opened."""

from __future__ import annotations

import builtins
import difflib
import inspect
import operator
import sys
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import is_dataclass
from functools import reduce
from typing import Any

import msgspec

from rivals.errors import RivalsError
from rivals.workflow.mining_materials import Materials

#: A part as a configuration names it: its kind and its options.
Spec = Mapping[str, Any]

_SCALARS = (bool, int, float, str)


class PartError(RivalsError):
    """A part that is named or set wrongly; `option` says which setting, empty for the part itself."""

    def __init__(self, message: str, option: str = "") -> None:
        super().__init__(message)
        self.option = option


class Part:
    """One row of a table of parts.

    Args:
        factory: the class or function that makes the part; its arguments that a file can hold are the options.
        judges: the arguments that name judges of the configuration: one ("judge"), or a list of them.
        encodes: whether the part has the documents encoded: by its option `model` or `models`, else by the configured
            encoder.
        given: the arguments that mining supplies, by their name in `Materials`; "itself" is the whole of it.
    """

    def __init__(
        self, factory: Callable[..., Any], *, judges: tuple[str, ...] = (), encodes: bool = False, **given: str
    ) -> None:
        self.factory, self.judges, self.given = factory, judges, given
        self.encodes = encodes or "dense" in given.values()

    @property
    def about(self) -> str:
        """The first line of the factory's documentation."""
        return (inspect.getdoc(self.factory) or "").split("\n")[0]

    def options(self) -> dict[str, Any]:
        """Return the types of the options by name; arguments that no file can hold are no options."""
        found: dict[str, Any] = {}
        for name, parameter in inspect.signature(self.factory).parameters.items():
            if name in self.given or parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                continue
            kind = (
                str | list[str]
                if name in self.judges
                else _plain(_annotation(self.factory, name, parameter.annotation))
            )
            if kind is not None:
                found[name] = kind
            elif parameter.default is parameter.empty:
                raise TypeError(
                    f"argument {name} of {self.factory} is neither given nor an option that a file can hold"
                )
        return found

    def required(self) -> list[str]:
        """Return the options that have no default; judges that are not named are all of them."""
        parameters = inspect.signature(self.factory).parameters
        bare = (name for name in self.options() if parameters[name].default is inspect.Parameter.empty)
        return [name for name in bare if name not in self.judges]


def check_part(table: Mapping[str, Part], what: str, spec: Spec) -> None:
    """Check the names and types of a part's settings; `what` is what the table's parts are called.

    Raises:
        PartError: no such part, an unknown or missing option, a value of the wrong type.

    >>> def cut(run, *, at: float = 0.5): ...
    >>> check_part({"cut": Part(cut, run="run")}, "filter", {"kind": "cut", "at": 0.1})
    """
    _options(table, what, spec)


def make_part(table: Mapping[str, Part], what: str, spec: Spec, materials: Materials) -> Any:
    """Make a part.

    Raises:
        PartError: as `check_part`; a judge that nobody configured; and with what the part itself finds wrong.
    """
    part, options = _options(table, what, spec)
    for name in part.judges:
        options[name] = _judges(part, name, options.get(name), materials)
    for name, source in part.given.items():
        options[name] = materials if source == "itself" else getattr(materials, source)
    try:
        return part.factory(**options)
    except PartError:
        raise
    except RivalsError as error:
        named = next((name for name in spec if name != "kind" and name in str(error)), "")
        raise PartError(f"{what} '{spec['kind']}': {error}", named) from None


def _options(table: Mapping[str, Part], what: str, spec: Spec) -> tuple[Part, dict[str, Any]]:
    kind = str(spec.get("kind", ""))
    if kind not in table:
        near = difflib.get_close_matches(kind, table, n=1)
        meant = f"; did you mean '{near[0]}'?" if near else ""
        said = f"no {what} is called '{kind}'" if kind else f"a {what} needs a kind"
        raise PartError(f"{said}; there are {', '.join(table)}{meant}", "kind" if kind else "")
    part = table[kind]
    known = part.options()
    given = {name: value for name, value in spec.items() if name != "kind"}
    for name in given:
        if name not in known:
            raise PartError(f"{what} '{kind}' has no option '{name}'; it has {', '.join(known) or 'none'}", name)
    for name in part.required():
        if name not in given:
            raise PartError(f"{what} '{kind}' needs the option '{name}'")
    options: dict[str, Any] = {}
    for name, value in given.items():
        try:
            options[name] = msgspec.convert(value, known[name])
        except msgspec.ValidationError as error:
            raise PartError(f"option '{name}' of {what} '{kind}': {str(error).replace('`', chr(39))}", name) from None
    return part, options


def _judges(part: Part, name: str, given: str | list[str] | None, materials: Materials) -> Any:
    """Return the judge, or the judges, that an option names."""
    single = name == "judge"
    names = [given] if isinstance(given, str) else given
    if single and names is not None and len(names) != 1:
        raise PartError(f"option 'judge' names one judge, not {len(names)}", name)
    found = materials.judges_named(names)
    if single and len(found) != 1:
        raise PartError(
            f"option 'judge' must say which of the judges {', '.join(materials.judge_names)} is meant"
            if found
            else "a judge is needed here; configure one in [[judges]]",
            name,
        )
    return found[0] if single else found


# ------------------------------------------------------------------------------------------------ types


def _annotation(factory: Any, name: str, annotation: Any) -> Any:
    """Return a parameter's annotation as a type; text is looked up in the module where the parameter was written."""
    if not isinstance(annotation, str):
        return annotation
    home = factory
    if inspect.isclass(factory):
        field = is_dataclass(factory)  # whose __init__ is made of the annotations
        wrote = [
            base
            for base in factory.__mro__
            if name in inspect.get_annotations(base) or ("__init__" in vars(base) and not field)
        ]
        home = wrote[0] if wrote else factory
    scope = vars(sys.modules[home.__module__])
    try:
        return eval(annotation, {**vars(builtins), **scope})
    except NameError:  # a name for type checkers only: nothing that a file can hold
        return object


def _plain(kind: Any) -> Any:
    """Return the part of a type that TOML can hold, or None.

    >>> _plain(float | None), _plain(bytes | str), _plain(object)
    (float | None, <class 'str'>, None)
    """
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind in _SCALARS or origin is typing.Literal:
        return kind
    if origin in (typing.Union, types.UnionType):
        members = [part for part in (_plain(one) for one in arguments if one is not type(None)) if part is not None]
        if not members:
            return None
        joined = reduce(operator.or_, members)
        return joined | None if type(None) in arguments else joined
    if origin in (list, tuple, Sequence):
        inner = _plain(arguments[0]) if arguments else None
        return None if inner is None else list[inner]  # type: ignore[valid-type]
    return None
