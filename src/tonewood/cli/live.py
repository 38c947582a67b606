"""`tonewood live`: an instrument in, a better one out."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tonewood.cli import report
from tonewood.cli.keys import read_keys
from tonewood.cli.options import JsonOption, ModelOption, OverwriteOption, check_output_path
from tonewood.errors import CallError, printable

if TYPE_CHECKING:  # torch takes a second to load, and nothing here computes
    from tonewood.files.modelfile import Model
    from tonewood.workflow.live import LiveControls, AudioInterface, BlockLevels
    from tonewood.workflow.streaming import StreamingEnhancer

_JSON_INTERVAL_S = 1.0


def live_command(
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
    output_file: Annotated[
        Path | None,
        typer.Option("-o", readable=False, help="File for what becomes of that recording."),
    ] = None,
    overwrite: OverwriteOption = False,
    json_: JsonOption = False,
) -> None:
    """Reshape what a microphone hears, 40 ms later, until Ctrl-C."""
    from tonewood.files.modelfile import load_model
    from tonewood.workflow import soundcard
    from tonewood.workflow.live import LiveControls

    if list_devices:
        devices = soundcard.list_devices()
        if not devices:
            report.print_stderr(f"tonewood: {soundcard.NO_SOUND_CARD}")
        for device in devices:
            if json_:
                report.print_json(device._asdict())
            else:
                print(
                    f"{device.number:3}  {printable(device.name)}  ({device.inputs} in, "
                    f"{device.outputs} out, {device.rate} Hz)"
                )
        return
    if (from_ is None) != (output_file is None):
        raise CallError("--from and -o go together: name a recording and a file to write")
    if not 0 <= amount <= 1:
        raise CallError(f"amount is {amount:g}; give one from 0 to 1")
    loaded = load_model(model)
    controls = LiveControls(amount, bypass)
    if from_ is not None and output_file is not None:
        _run_on_recording(from_, output_file, loaded, controls, block, overwrite, json_)
        return
    with soundcard.open_sound_card(input_, output, block, rate) as card:
        stream = _create_stream(loaded, card.rate, card.channels, controls)
        delay = stream.latency / stream.rate + card.latency + block / stream.rate
        if not json_:
            report.print_stderr(
                f"{card.rate} Hz, {card.channels} channels; {1000 * delay:.0f} ms in all. "
                "b: bypass, + and -: amount, q or Ctrl-C: end"
            )
        _run_until_interrupted(card, stream, controls, json_)


def _run_on_recording(
    path: Path,
    sound: Path,
    model: "Model",
    controls: "LiveControls",
    block: int,
    overwrite: bool,
    json_: bool,
) -> None:
    """The same loop on a recording."""
    from tonewood.files.audio import read_recording
    from tonewood.workflow.live import FileDevice

    check_output_path(sound, overwrite)
    recording = read_recording(path)
    device = FileDevice(recording, block)
    stream = _create_stream(model, recording.rate, len(recording.samples), controls)
    _run_until_interrupted(device, stream, controls, json_)
    device.save(sound, stream.latency, overwrite=overwrite)
    if not json_:
        print(f"sound    {printable(sound)}")


def _create_stream(model: "Model", rate: int, channels: int, controls: "LiveControls") -> "StreamingEnhancer":
    from tonewood.settings import RenderSettings
    from tonewood.workflow.streaming import StreamingEnhancer

    amount = 0.0 if controls.bypassed else controls.amount
    return StreamingEnhancer(model, rate, channels, RenderSettings(amount=amount))


def _run_until_interrupted(device: "AudioInterface", stream: "StreamingEnhancer", controls: "LiveControls", as_json: bool) -> None:
    """Run the loop: meters and keys while it lasts, a line or an object at the end."""
    from tonewood.terminal import LevelMeterDisplay
    from tonewood.workflow.live import LiveSummary, run_live

    if as_json:
        delay = round(1000 * stream.latency / stream.rate, 2)
        begun = {"rate": stream.rate, "channels": stream.channels, "latency_ms": delay}
        report.print_json({"event": "begun", **begun})
    tally, told = LiveSummary(), 0.0
    with read_keys(controls.handle_key) as poll, LevelMeterDisplay() as display:
        try:
            for levels in run_live(device, stream, controls):
                poll()
                tally.add(levels)
                if not as_json:
                    display.show(levels, controls)
                elif levels.seconds - told >= _JSON_INTERVAL_S:
                    told = levels.seconds
                    _print_levels(levels, controls)
        except KeyboardInterrupt:
            pass  # the way that a performance ends
    if as_json:
        report.print_json({"event": "ended", **{k: round(v, 3) for k, v in vars(tally).items()}})
    else:
        print(
            f"played   {tally.seconds:.1f} s; load {100 * tally.load:.0f} % on average, "
            f"{100 * tally.worst:.0f} % at worst; dropouts {tally.dropouts}"
        )


def _print_levels(levels: "BlockLevels", controls: "LiveControls") -> None:
    peaks = {"input_db": levels.input_db, "output_db": levels.output_db}
    report.print_json(
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
