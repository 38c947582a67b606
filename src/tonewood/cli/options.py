"""Options that shape a correction, and errors of wrong options and arguments.

An error is one line, in the words of the option or argument that was typed.
"""

import difflib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, get_args, get_type_hints

import typer

from tonewood.errors import CallError, printable

if TYPE_CHECKING:
    from tonewood.setting_types import RenderChanges, ShapeChanges

# typer brings its own copy of click in some versions.
UsageError: type[Exception] = typer.BadParameter.__bases__[0]


class OfSetting(NamedTuple):
    """Metadata of a number's type: the setting of `EnhanceSettings` that it gives, whose limits apply."""

    name: str


def explain_wrong_values(command: Any) -> None:  # noqa: ANN401 - the type depends on the version of typer
    """Let a command, or each command of a group, report wrong values in one line, as settings do."""
    for subcommand in getattr(command, "commands", {}).values():
        explain_wrong_values(subcommand)
    command.make_context = partial(_make_context, command, command.make_context)
    for parameter in command.params:
        parameter.process_value = partial(_process_value, command, parameter, parameter.process_value)


def _make_context(
    command: Any,  # noqa: ANN401
    make: Callable[..., Any],
    name: str,
    arguments: list[str],
    parent: Any = None,  # noqa: ANN401
    **options: Any,  # noqa: ANN401
) -> Any:  # noqa: ANN401
    """Parse the arguments of a call as typer does; CallError if they do not fit the command."""
    typed = tuple(arguments)  # the parser takes what it has read from the list
    try:
        return make(name, arguments, parent=parent, **options)
    except (UsageError, CallError) as error:
        if is_help(error):
            raise
        for word in typed:
            if word.startswith("-") and Path(word).is_file():
                name = printable(word)
                raise CallError(
                    f"{name} is read as an option, because its name begins with -: write ./{name}"
                ) from None
        if isinstance(error, CallError):
            raise
        call = f"{parent.command_path} {name}" if parent else name
        raise one_line(error, command, call, typed) from None


def _process_value(
    command: Any,  # noqa: ANN401
    parameter: Any,  # noqa: ANN401
    process: Callable[..., Any],
    context: Any,  # noqa: ANN401
    value: Any,  # noqa: ANN401
) -> Any:  # noqa: ANN401
    """Convert the value of a parameter as typer does.

    Raises
    ------
    CallError
        The value is missing, is not a number, or is outside its limits; or it is an empty text, or contains
        one, and the default is another. An empty variable of a shell gives such a text, and `Path("")` is
        the current folder.
    """
    name = _parameter_name(parameter)
    if parameter.default != "" and "" in (value if isinstance(value, list | tuple) else (value,)):
        raise CallError(f"{name} is empty: give a name, or check the variable it is from")
    try:
        return process(context, value)
    except typer.BadParameter:
        if value is None:
            meaning = parameter.help.rstrip(".") if parameter.help else "required"
            meaning = f" ({meaning[:1].lower()}{meaning[1:]})"
            raise CallError(f"{name} is missing{meaning}: see {context.command_path} -h") from None
        number = _describe_number(command, parameter)
        if number is None:
            raise
        text = value if re.fullmatch(r"[-+]?[\d.]+(e[-+]?\d+)?", value, re.IGNORECASE) else repr(value)
        raise CallError(f"{name} is {text}: give a {number}") from None


def _parameter_name(parameter: Any) -> str:  # noqa: ANN401
    """Return an option as it is documented first, or the word for an argument."""
    if parameter.param_type_name != "option":
        return str(parameter.metavar or parameter.name.upper())
    return str(next((name for name in parameter.opts if name.startswith("--")), parameter.opts[0]))


def _describe_number(command: Any, parameter: Any) -> str | None:  # noqa: ANN401
    """Return the numbers that a parameter accepts, as in `whole number from 0`; None for text."""
    annotation = get_type_hints(command.callback, include_extras=True).get(parameter.name)
    accepted, option, *metadata = get_args(annotation) or (None, None)
    kinds = (accepted, *get_args(accepted))
    if int not in kinds and float not in kinds:
        return None
    setting = next((item.name for item in metadata if isinstance(item, OfSetting)), None)
    limits = _option_limits(option) if setting is None else [_setting_limits(setting)]
    return " ".join(("whole number" if int in kinds else "number", *limits))


def _option_limits(option: Any) -> Iterator[str]:  # noqa: ANN401
    for word, limit in (("from", option.min), ("to", option.max)):
        if limit is not None:
            yield f"{word} {limit}"


def _setting_limits(name: str) -> str:
    from tonewood.setting_types import setting_fields, setting_limits  # only for an error
    from tonewood.settings import EnhanceSettings

    return setting_limits(dict(setting_fields(EnhanceSettings))[name])


def is_help(error: Exception) -> bool:
    """Return True if an error prints the help of a group that was called without a command."""
    return type(error).__name__ == "NoArgsIsHelpError"


def one_line(error: Any, command: Any, call: str, arguments: Sequence[str] = ()) -> CallError:  # noqa: ANN401
    """Return an error of the parser in one line, with the nearest option or command.

    `call` is the command as it was typed, as in `tonewood enhance`; errors with a context bring their own.
    """
    if error.ctx is not None:
        command, call = error.ctx.command, error.ctx.command_path
    has = f"{call.removeprefix('tonewood ')} has" if " " in call else "there is"
    see_help, typed = f"see {call} -h", getattr(error, "option_name", None)
    if typed is None:
        extra = re.fullmatch(r"Got unexpected extra arguments?(?:\(s\))? \((.*)\)", error.message)
        if extra is not None:
            return CallError(f"{has} no place for {printable(extra[1])}: {see_help}")
        unknown = re.match(r"No such command '(.*?)'", error.message)
        if unknown is not None:
            hint = _nearest(unknown[1], command.commands) or see_help
            return CallError(f"{has} no command '{printable(unknown[1])}': {hint}")
        text = " ".join(error.format_message().split()).rstrip(".")
        return CallError(f"{printable(text[:1].lower() + text[1:])}: {see_help}")
    options = {name: parameter for parameter in command.params for name in parameter.opts}
    parameter = options.get(typed)
    if parameter is None:
        names = [name for name in options if name.startswith("--")]
        # The parser takes the word -amount for the option -a.
        word = next((argument for argument in arguments if argument.startswith(typed)), typed)
        return CallError(f"{has} no option {printable(word)}: {_nearest(word, names) or see_help}")
    if getattr(parameter, "is_flag", False):
        return CallError(f"{typed} takes no value: leave out what follows it")
    number = _describe_number(command, parameter)
    return CallError(f"{typed} needs a value: {f'give a {number}' if number else see_help}")


def _nearest(word: str, known: Iterable[str]) -> str | None:
    matches = difflib.get_close_matches(word, list(known), n=1)
    return f"did you mean {matches[0]}?" if matches else None


# --- Options that shape a correction

OPTION_OF_CONTROL = {
    "render.amount": "--amount",
    "render.shape.smooth_octaves": "--smooth",
    "render.shape.smooth_seconds": "--smooth-seconds",
    "render.shape.low_hz": "--low",
    "render.shape.high_hz": "--high",
    "render.shape:": "--low and --high:",
}
"""Names of settings as errors have them, and the options that were typed."""


class ControlOptions(NamedTuple):
    """Options that shape a correction; None leaves a setting as it is."""

    amount: Annotated[
        float | None,
        typer.Option(help="Strength, -1 (inverse) to 2; default: 1."),
        OfSetting("render.amount"),
    ] = None
    smooth: Annotated[
        float | None,
        typer.Option(metavar="OCTAVES", help="Smooth gains over frequency, up to 4 octaves."),
        OfSetting("render.shape.smooth_octaves"),
    ] = None
    smooth_seconds: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", help="Smooth gains over time, up to 60 s."),
        OfSetting("render.shape.smooth_seconds"),
    ] = None
    low: Annotated[
        float | None,
        typer.Option(metavar="HZ", help="Lowest frequency to change; the edge is soft."),
        OfSetting("render.shape.low_hz"),
    ] = None
    high: Annotated[
        float | None,
        typer.Option(metavar="HZ", help="Highest frequency to change; the edge is soft."),
        OfSetting("render.shape.high_hz"),
    ] = None
    cut_only: Annotated[
        bool, typer.Option("--cut-only", help="Raise no band by the mask; loudness is matched after it.")
    ] = False
    boost_only: Annotated[
        bool, typer.Option("--boost-only", help="Lower no band by the mask; loudness is matched after it.")
    ] = False

    @property
    def is_given(self) -> bool:
        """True if an option was typed."""
        return self != NO_CONTROLS

    def render_changes(self) -> "RenderChanges":
        """Return the changes of `RenderSettings` that the options ask for."""
        if self.cut_only and self.boost_only:
            raise CallError("--cut-only and --boost-only cannot be used together: use one of them")
        shape: ShapeChanges = {}
        if self.smooth is not None:
            shape["smooth_octaves"] = self.smooth
        if self.smooth_seconds is not None:
            shape["smooth_seconds"] = self.smooth_seconds
        if self.low is not None:
            shape["low_hz"] = self.low
        if self.high is not None:
            shape["high_hz"] = self.high
        if self.cut_only or self.boost_only:
            shape["direction"] = "cut" if self.cut_only else "boost"
        changes: RenderChanges = {"shape": shape}
        if self.amount is not None:
            changes["amount"] = self.amount
        return changes


NO_CONTROLS = ControlOptions()
