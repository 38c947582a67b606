"""Base of the settings: groups that are frozen, validate themselves, and convert to and from JSON."""

import difflib
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, NamedTuple, Self, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.fields import FieldInfo

from tonewood.errors import CallError


class Unit(NamedTuple):
    """Unit of a setting, kept as metadata of its type."""

    name: str


Hertz = Annotated[float, Unit("Hz")]
Seconds = Annotated[float, Unit("s")]
Milliseconds = Annotated[float, Unit("ms")]
Decibels = Annotated[float, Unit("dB")]
Frames = Annotated[int, Unit("frames")]


class Settings(BaseModel):
    """Base class of all groups: immutable; unknown names and infinite numbers are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def tree(self) -> dict[str, Any]:
        """Return all values by name, groups as nested dictionaries; files may leave some out."""
        values = ((name, getattr(self, name)) for name in type(self).model_fields)
        return {name: value.tree() if isinstance(value, Settings) else value for name, value in values}

    def _replaced(self, changes: Mapping[str, Any]) -> Self:
        """Return a validated copy; a nested mapping changes a nested group.

        The subclasses' typed `replace` methods call this, so that mypy checks names and types.
        """
        return validated_settings(type(self), _merged(self.tree(), changes))


def _merged(tree: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested settings with changes applied, group by group."""
    merged = dict(tree)
    for name, value in changes.items():
        # A mapping changes a group; anything else replaces the value, groups included.
        nested = isinstance(value, Mapping) and isinstance(merged.get(name), dict)
        merged[name] = _merged(merged[name], value) if nested else value
    return merged


def setting_fields(group: type[Settings], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Yield the dotted name and the field of every setting of a group and the groups in it."""
    for name, field in group.model_fields.items():
        if isinstance(field.default, Settings):
            yield from setting_fields(type(field.default), f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", field


def unknown_setting(group: type[Settings], name: str) -> str:
    """Return the message for a name that no setting of a group has, with the nearest name."""
    names = [full for full, _ in setting_fields(group)]
    # A name without its group is a frequent slip, and its spelling may be far from the full one.
    last = name.rpartition(".")[2]
    nearest = difflib.get_close_matches(name, names, n=1) or [
        full for full in names if last and full.rpartition(".")[2] == last
    ]
    hint = f"did you mean {nearest[0]}? " if nearest else ""
    return f"there is no setting {name!r}: {hint}`tonewood settings` lists all of them"


SettingsT = TypeVar("SettingsT", bound=Settings)


def validated_settings(group: type[SettingsT], tree: Mapping[str, Any]) -> SettingsT:
    """Return settings made of nested values; CallError with the name of the first wrong one."""
    try:
        return group.model_validate(tree)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(key) for key in first["loc"])
        if first["type"] == "extra_forbidden":
            raise CallError(unknown_setting(group, name)) from None
        if first["type"] == "value_error":  # of several fields together, which the message names
            raise CallError(": ".join(filter(None, (name, str(first["ctx"]["error"]))))) from None
        reason = first["msg"][:1].lower() + first["msg"][1:]
        raise CallError(f"{name} is {first['input']!r}: {reason}") from None
