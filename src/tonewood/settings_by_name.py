"""Settings by dotted name: assignments such as `search.alpha=0.02`, and the list of all settings."""

import json
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, get_args

from tonewood.errors import CallError
from tonewood.setting_types import (
    Settings,
    SettingsT,
    Unit,
    setting_fields,
    setting_limits,
    unknown_setting,
)


def apply_assignments(settings: SettingsT, assignments: Sequence[str]) -> SettingsT:
    """Return a copy changed by assignments of the form `search.alpha=0.02`, as `--set` takes them.

    Values are JSON or plain words; the last assignment of a name counts.

    Raises
    ------
    CallError
        A name or value is wrong.

    Examples
    --------
    >>> from tonewood.settings import EnhanceSettings
    >>> apply_assignments(EnhanceSettings(), ["search.alpha=0.02"]).search.alpha
    0.02
    """
    tree, changes = settings.tree(), dict[str, Any]()
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        name = name.strip()
        if not equals:
            raise CallError(f"{assignment!r} is not an assignment: give NAME=VALUE, as in search.alpha=0.02")
        *path, last = name.split(".")
        branch: Any = tree
        for group in path:
            branch = branch.get(group) if isinstance(branch, dict) else None
        if not isinstance(branch, dict) or last not in branch:
            raise CallError(unknown_setting(type(settings), name))
        change = changes
        for group in path:
            if not isinstance(change.get(group), dict):
                change[group] = {}
            change = change[group]
        try:
            change[last] = json.loads(text)
        except ValueError:
            change[last] = text
    return settings.changed_by(changes)


class SettingInfo(NamedTuple):
    """Description of one setting.

    Attributes
    ----------
    name : str
        Dotted, as `--set` takes it.
    default
        As JSON.
    unit : str
        Empty if it has none.
    limits : str
        Allowed values, as in `from 0 to 1`; empty if all of the type are.
    """

    name: str
    default: Any
    unit: str
    limits: str
    meaning: str


def list_settings(group: type[Settings]) -> Iterator[SettingInfo]:
    """Yield a description of every setting of a group and the groups in it."""
    for name, field in setting_fields(group):
        unit = next(_units((field.annotation, *field.metadata)), "")
        default = list(field.default) if isinstance(field.default, tuple) else field.default
        limits = setting_limits(field)
        yield SettingInfo(name, default, unit, limits, field.description or "")


def _units(annotations: Sequence[Any]) -> Iterator[str]:
    """Yield the units in annotations, however deep: `Seconds | None` has its unit inside."""
    for annotation in annotations:
        if isinstance(annotation, Unit):
            yield annotation.name
        else:
            yield from _units(get_args(annotation))
