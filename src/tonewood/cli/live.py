"""`tonewood live`: an instrument in, a better one out."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tonewood.cli import report
from tonewood.cli.keys import keys
from tonewood.cli.options import JsonOption, ModelOption, OverwriteOption, check_target
from tonewood.errors import CallError, shown

if TYPE_CHECKING:  # torch takes a second to load, and nothing here computes
    from tonewood.files.modelfile import Model
    from tonewood.workflow.live import Controls, Device, Levels
    from tonewood.workflow.streaming import Stream

_TOLD_SECONDS = 1.0


def live(
    model: ModelOption = "cello",
    amount: Annotated[float, typer.Option(help="0 leaves the input, 1 is all of it.")] = 1.0,
    input_: Annotated[
        str | None, typer.Option("--input", help="Device, by number or part of its name.")
    ] = None,
    output: Annotated[
        str | None, typer.Option("--output", help="Device, by number or part of its name.")
    ] = None,
    block: Annotated[int, typer.Option(min=16, max=8192, help="Samples at a time.")] = 256,
    rate: Annotated[int | None, typer.Option(help="Hz; the input's own if not said.")] = None,
    bypass: Annotated[
        bool, typer.Option("--bypass", help="Begin with the input as it is; b turns it on and off.")
    ] = False,
    list_devices: Annotated[
        bool, typer.Option("--list-devices", help="Tell which devices there are, and end.")
    ] = False,
    from_: Annotated[
        Path | None,
        typer.Option("--from", readable=False, help="Recording to play instead of a device."),
    ] = None,
    sound: Annotated[
        Path | None,
        typer.Option("-o", readable=False, help="File for what becomes of that recording."),
    ] = None,
    overwrite: OverwriteOption = False,
    json_: JsonOption = False,
) -> None:
    """Reshape what a microphone hears, 40 ms later, until Ctrl-C."""
    from tonewood.files.modelfile import load
    from tonewood.workflow import soundcard
    from tonewood.workflow.live import Controls

    if list_devices:
        devices = soundcard.listed()
        if not devices:
            report.say(f"tonewood: {soundcard.NONE}")
        for device in devices:
            if json_:
                report.emit(device._asdict())
            else:
                print(
                    f"{device.number:3}  {shown(device.name)}  ({device.inputs} in, "
                    f"{device.outputs} out, {device.rate} Hz)"
                )
        return
    if (from_ is None) != (sound is None):
        raise CallError("--from and -o go together: name a recording and a file to write")
    if not 0 <= amount <= 1:
        raise CallError(f"amount is {amount:g}; give one from 0 to 1")
    loaded = load(model)
    controls = Controls(amount, bypass)
    if from_ is not None and sound is not None:
        _offline(from_, sound, loaded, controls, block, overwrite, json_)
        return
    with soundcard.opened(input_, output, block, rate) as card:
        stream = _stream(loaded, card.rate, card.channels, controls)
        delay = stream.latency / stream.rate + card.latency + block / stream.rate
        if not json_:
            report.say(
                f"{card.rate} Hz, {card.channels} channels; {1000 * delay:.0f} ms in all. "
                "b: bypass, + and -: amount, q or Ctrl-C: end"
            )
        _perform(card, stream, controls, json_)


def _offline(
    path: Path,
    sound: Path,
    model: "Model",
    controls: "Controls",
    block: int,
    overwrite: bool,
    json_: bool,
) -> None:
    """The same loop on a recording."""
    from tonewood.files.audio import read
    from tonewood.workflow.live import FileDevice

    check_target(sound, overwrite)
    recording = read(path)
    device = FileDevice(recording, block)
    stream = _stream(model, recording.rate, len(recording.samples), controls)
    _perform(device, stream, controls, json_)
    device.save(sound, stream.latency, overwrite=overwrite)
    if not json_:
        print(f"sound    {shown(sound)}")


def _stream(model: "Model", rate: int, channels: int, controls: "Controls") -> "Stream":
    from tonewood.settings import RenderSettings
    from tonewood.workflow.streaming import Stream

    amount = 0.0 if controls.bypassed else controls.amount
    return Stream(model, rate, channels, RenderSettings(amount=amount))


def _perform(device: "Device", stream: "Stream", controls: "Controls", as_json: bool) -> None:
    """Run the loop: meters and keys while it lasts, a line or an object at the end."""
    from tonewood.terminal import PerformingDisplay
    from tonewood.workflow.live import Tally, perform

    if as_json:
        delay = round(1000 * stream.latency / stream.rate, 2)
        begun = {"rate": stream.rate, "channels": stream.channels, "latency_ms": delay}
        report.emit({"event": "begun", **begun})
    tally, told = Tally(), 0.0
    with keys(controls.turn) as poll, PerformingDisplay() as display:
        try:
            for levels in perform(device, stream, controls):
                poll()
                tally.add(levels)
                if not as_json:
                    display.show(levels, controls)
                elif levels.seconds - told >= _TOLD_SECONDS:
                    told = levels.seconds
                    _emit(levels, controls)
        except KeyboardInterrupt:
            pass  # the way that a performance ends
    if as_json:
        report.emit({"event": "ended", **{k: round(v, 3) for k, v in vars(tally).items()}})
    else:
        print(
            f"played   {tally.seconds:.1f} s; load {100 * tally.load:.0f} % on average, "
            f"{100 * tally.worst:.0f} % at worst; dropouts {tally.dropouts}"
        )


def _emit(levels: "Levels", controls: "Controls") -> None:
    peaks = {"input_db": levels.input_db, "output_db": levels.output_db}
    report.emit(
        {
            "event": "levels",
            "seconds": round(levels.seconds, 3),
            **{k: round(v, 2) if v > float("-inf") else None for k, v in peaks.items()},
            "load": round(levels.load, 3),
            "amount": controls.amount,
            "bypassed": controls.bypassed,
            "dropouts": levels.dropouts,
        }
    )
