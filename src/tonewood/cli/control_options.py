"""Options that shape a correction: how much of it is applied, how smooth, where, and in which direction."""

from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from tonewood.cli.call_errors import OfSetting
from tonewood.errors import CallError

if TYPE_CHECKING:
    from tonewood.setting_types import RenderChanges, ShapeChanges

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
