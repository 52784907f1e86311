"""Options of a command, made from the signature and docstring of its public function."""

import collections.abc
import inspect
import re
import typing
from collections.abc import Callable, Iterator
from typing import Any

import click


class TrueOrFalse(click.ParamType[bool, Any]):
    """`true` or `false`; the option alone means true."""

    name = "true|false"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> bool:
        """The value as a bool."""
        if value not in (True, False, "true", "false"):
            self.fail(f"{value!r} is neither 'true' nor 'false'", param, ctx)
        return value in (True, "true")


class OrEmpty(click.ParamType[Any, Any]):
    """A value of another type, or nothing: then it is None."""

    def __init__(self, given: click.ParamType[Any, Any]) -> None:
        self.given, self.name = given, given.name
        self.choices = getattr(given, "choices", ())

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The value, of that type."""
        return None if value == "" else self.given.convert(value, param, ctx)


class CommaSeparated(click.ParamType[Any, Any]):
    """Values separated by commas."""

    name = "a,b,..."

    def convert(self, value: Any, param: Any, ctx: Any) -> list[str]:
        """The values, without empty ones."""
        values = value.split(",") if isinstance(value, str) else value
        return [one.strip() for one in values if one.strip()]


class TrueFalseOrList(CommaSeparated):
    """`true`, `false`, or values separated by commas; the option alone means true."""

    name = "true|false|a,b,..."

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        """The value as a bool or list."""
        if value in (True, False, "true", "false"):
            return value in (True, "true")
        return super().convert(value, param, ctx)


def options(function: Callable[..., Any]) -> Iterator[click.Option]:
    """One option for each parameter of a function, with its default and its help text.

    Parameters that take functions are no options, nor is `**options`.
    """
    texts = descriptions(function)
    for parameter in inspect.signature(function).parameters.values():
        kinds = (parameter.annotation, *typing.get_args(parameter.annotation))
        is_callback = any(typing.get_origin(kind) is collections.abc.Callable for kind in kinds)
        if parameter.kind is not inspect.Parameter.VAR_KEYWORD and not is_callback:
            yield _option(parameter, texts[parameter.name])


def _option(parameter: inspect.Parameter, text: str) -> click.Option:
    kind, default = parameter.annotation, parameter.default
    settings: dict[str, Any] = {"help": text, "required": default is inspect.Parameter.empty}
    if default is None:  # written as an empty text, as MLproject knows no other
        [given] = [one for one in typing.get_args(kind) if one is not type(None)]
        settings |= {"default": "", "type": OrEmpty(_type(given))}
    else:
        settings["type"] = _type(kind)
    if not settings["required"] and default is not None:
        # As a user writes it, so that the help shows it like that.
        settings |= {"default": _text(default), "show_default": True}
    if kind is bool or kind == bool | collections.abc.Sequence[str]:
        settings |= {"is_flag": False, "flag_value": "true"}
    return click.Option([f"--{parameter.name}", parameter.name], **settings)


def _type(kind: Any) -> click.ParamType[Any, Any]:
    """The type of an option whose parameter has an annotation."""
    if typing.get_origin(kind) is typing.Literal:
        return click.Choice(typing.get_args(kind))
    if kind is bool:
        return TrueOrFalse()
    if kind == bool | collections.abc.Sequence[str]:
        return TrueFalseOrList()
    if typing.get_origin(kind) is collections.abc.Sequence:
        return CommaSeparated()
    types: dict[Any, click.ParamType[Any, Any]]
    types = {str: click.STRING, int: click.INT, float: click.FLOAT}
    return types[kind]


def _text(default: Any) -> str:
    if isinstance(default, bool):
        return str(default).lower()
    return str(default) if isinstance(default, str | int | float) else ",".join(default)


def descriptions(function: Callable[..., Any]) -> dict[str, str]:
    """The texts of a Google docstring's `Args:`, by parameter."""
    _, _, section = (inspect.getdoc(function) or "").partition("\nArgs:\n")
    section = re.split(r"\n(?=\S)", section)[0]
    entries = re.findall(r"^    (\w+): (.*(?:\n {6,}.*)*)", section, re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in entries}
