"""Commands `studio` and `live`: the web interface, and real-time processing with keyboard control."""

import os
import secrets
import select
import signal
import sys
import webbrowser
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tonewood.cli import common
from tonewood.cli.common import JsonOption, ModelOption, OverwriteOption, check_output_path
from tonewood.cli.options import NO_CONTROLS, OPTION_OF_CONTROL, ControlOptions
from tonewood.errors import CallError, printable, settings_named_as

if TYPE_CHECKING:
    from tonewood.enhancement.realtime import AudioInterface, BlockLevels, LiveControls
    from tonewood.enhancement.streaming import StreamingEnhancer
    from tonewood.model.model import Model
    from tonewood.settings import RenderSettings


def studio_command(
    port: Annotated[int, typer.Option(min=0, max=65_535, help="0 takes any free one.")] = 8765,
    model: ModelOption = "cello",
    host: Annotated[
        str, typer.Option(help="Address to serve at; all but this machine's own need the token.")
    ] = "127.0.0.1",
    no_browser: Annotated[
        bool, typer.Option("--no-browser", help="Print the address, open nothing.")
    ] = False,
    upload_gb: Annotated[float, typer.Option(min=0.001, max=1_000, help="Largest upload, in GB.")] = 2.0,
    folder: Annotated[
        Path | None, typer.Option(readable=False, help="Folder for sessions and models.")
    ] = None,
    root: Annotated[
        Path | None, typer.Option(readable=False, help="The page can choose folders only inside this one.")
    ] = None,
    require_token: Annotated[
        bool,
        typer.Option("--token", help="Require the token on this machine too, where other people log in."),
    ] = False,
) -> None:
    """Serve the studio, open it in the browser, and print its address."""
    from tonewood.web import RequestLimits, is_loopback, require_server_extra, run_server, server_url

    require_server_extra("the studio", "studio")
    from tonewood.studio.app import DEFAULT_UPLOAD_LIMITS, create_secure_studio_app
    from tonewood.studio.state import StudioState

    if root is not None and not root.is_dir():
        raise CallError(f"--root {printable(root)} is not a folder: name an existing folder")
    if root is None and is_loopback(host):
        root = Path.home()
    # Other machines reach any other address, so it needs a token.
    token = None if is_loopback(host) and not require_token else secrets.token_urlsafe(24)
    state = StudioState(folder or default_studio_folder(), model, root)

    def announce(bound_port: int) -> None:
        url = server_url(host, bound_port, token)
        print(url, flush=True)
        if not no_browser and sys.stdout.isatty():
            webbrowser.open(url)

    # Only uploads may be large; every other request keeps the small default.
    limits = RequestLimits(round(upload_gb * 2**30), DEFAULT_UPLOAD_LIMITS.seconds)
    app = create_secure_studio_app(state, host=host, token=token, upload=limits)
    try:
        run_server(app, host=host, port=port, on_ready=announce)
    finally:
        state.close()


def default_studio_folder() -> Path:
    """Return the folder for user data of this operating system."""
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local"))
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Application Support"
    else:
        base = Path(os.environ.get("XDG_DATA_HOME", Path.home() / ".local" / "share"))
    return base / "tonewood" / "studio"


KeyHandler = Callable[[str], None]


@contextmanager
def read_keys(on_key: KeyHandler) -> Iterator[Callable[[], None]]:
    """Yield a function that passes the keys pressed since its last call to `on_key`.

    Keys are read if standard input is a terminal. The signal SIGUSR1 counts as the key b.
    """
    if hasattr(signal, "SIGUSR1"):
        previous = signal.signal(signal.SIGUSR1, lambda *_: on_key("b"))
    try:
        with _unbuffered_terminal() as read_pressed:

            def poll() -> None:
                for key in read_pressed():
                    on_key(key)

            yield poll
    finally:
        if hasattr(signal, "SIGUSR1"):
            signal.signal(signal.SIGUSR1, previous)


@contextmanager
def _unbuffered_terminal() -> Iterator[Callable[[], str]]:
    """Yield a function that returns pressed keys without waiting for a line; none without a terminal."""
    if not sys.stdin.isatty() or sys.platform == "win32":
        yield lambda: ""
        return
    import termios
    import tty

    file = sys.stdin.fileno()
    attributes = termios.tcgetattr(file)
    tty.setcbreak(file)  # unlike raw mode, Ctrl-C still interrupts

    def read_pressed() -> str:
        ready, _, _ = select.select([file], [], [], 0)
        return os.read(file, 64).decode(errors="ignore") if ready else ""

    try:
        yield read_pressed
    finally:
        termios.tcsetattr(file, termios.TCSADRAIN, attributes)


_JSON_INTERVAL_S = 1.0


@common.with_option_groups(controls=ControlOptions)
def live_command(
    model: ModelOption = "cello",
    controls: ControlOptions = NO_CONTROLS,
    input_: Annotated[
        str | None, typer.Option("--input", help="Device, by number or part of its name.")
    ] = None,
    output: Annotated[
        str | None, typer.Option("--output", help="Device, by number or part of its name.")
    ] = None,
    block: Annotated[int, typer.Option(min=16, max=8192, help="Block size in samples.")] = 256,
    rate: Annotated[
        int | None,
        typer.Option(min=4_000, max=768_000, help="Sample rate in Hz; default: that of the input."),
    ] = None,
    bypass: Annotated[bool, typer.Option("--bypass", help="Start bypassed; the key b switches.")] = False,
    delta: Annotated[
        bool, typer.Option("--delta", help="Start with the change alone; the key d switches.")
    ] = False,
    list_devices: Annotated[
        bool, typer.Option("--list-devices", help="List the sound devices and exit.")
    ] = False,
    from_: Annotated[
        Path | None, typer.Option("--from", readable=False, help="Recording to play instead of a device.")
    ] = None,
    output_file: Annotated[
        Path | None, typer.Option("-o", readable=False, help="Output file for the recording of --from.")
    ] = None,
    overwrite: OverwriteOption = False,
    json_: JsonOption = False,
) -> None:
    """Process a microphone in real time, 40 ms later, until Ctrl-C."""
    from tonewood.enhancement import realtime
    from tonewood.enhancement.realtime import LiveControls
    from tonewood.enhancement.streaming import StreamingEnhancer
    from tonewood.model.model import load_model
    from tonewood.settings import EnhanceSettings

    if list_devices:
        devices = realtime.list_devices()
        if not devices:
            common.print_stderr(f"tonewood: {realtime.NO_SOUND_CARD}")
        for device in devices:
            if json_:
                common.print_json(device._asdict())
            else:
                print(
                    f"{device.number:3}  {printable(device.name)}  ({device.inputs} in, "
                    f"{device.outputs} out, {device.rate} Hz)"
                )
        return
    if (from_ is None) != (output_file is None):
        raise CallError("--from and -o go together: name a recording and a file to write")
    for option, value in (("--input", input_), ("--output", output), ("--rate", rate)):
        if from_ is not None and value is not None:
            raise CallError(f"{option} is for devices, and --from plays a recording: use one of them")
    if controls.smooth_seconds:
        raise CallError("--smooth-seconds needs later audio, so it does not apply to live: use --smooth")
    with settings_named_as(OPTION_OF_CONTROL):
        render = EnhanceSettings().replace(render=controls.render_changes()).render
    loaded = load_model(model)
    state = LiveControls(render.amount, bypass, delta=delta)
    if from_ is not None and output_file is not None:
        _run_on_recording(from_, output_file, loaded, render, state, block, overwrite, json_)
        return
    with realtime.open_sound_card(input_, output, block, rate) as card:
        with settings_named_as(OPTION_OF_CONTROL):
            stream = StreamingEnhancer(loaded, card.rate, card.channels, render)
        delay = stream.latency / stream.rate + card.latency + block / stream.rate
        if not json_:
            common.print_stderr(
                f"{card.rate} Hz, {card.channels} channels; {1000 * delay:.0f} ms in all. "
                "b: bypass, d: delta, f: freeze, + and -: amount, q or Ctrl-C: end"
            )
        _run_until_interrupted(card, stream, state, json_)  # Ctrl-C is the usual end


def _run_on_recording(
    path: Path,
    sound: Path,
    model: "Model",
    render: "RenderSettings",
    controls: "LiveControls",
    block: int,
    overwrite: bool,
    json_: bool,
) -> None:
    """Run the same loop on a recording."""
    from tonewood.audio_io.libsndfile import AudioFormat
    from tonewood.audio_io.reader import read_recording
    from tonewood.enhancement.realtime import FileDevice
    from tonewood.enhancement.streaming import StreamingEnhancer

    check_output_path(sound, overwrite)
    recording = read_recording(path)
    AudioFormat.for_path(sound, recording.format)  # raises before the work if the suffix is not writable
    device = FileDevice(recording, block)
    with settings_named_as(OPTION_OF_CONTROL):
        stream = StreamingEnhancer(model, recording.rate, len(recording.samples), render)
    is_complete = _run_until_interrupted(device, stream, controls, json_)
    if not is_complete:
        if not device.output:
            raise KeyboardInterrupt
        device.write(stream.flush())
    device.save(sound, stream.latency, overwrite=overwrite)
    if not is_complete:
        # What was played may be a performance with the keys, so it is kept.
        raise KeyboardInterrupt(f"{printable(sound)} has the first {device.position / recording.rate:.1f} s")
    if not json_:
        print(f"sound    {printable(sound)}")


def _run_until_interrupted(
    device: "AudioInterface", stream: "StreamingEnhancer", controls: "LiveControls", as_json: bool
) -> bool:
    """Run the loop with meters and keys, and print a summary; False if it was interrupted."""
    from tonewood.cli.progress import LevelMeterDisplay
    from tonewood.enhancement.realtime import LiveSummary, run_live

    if as_json:
        delay = round(1000 * stream.latency / stream.rate, 2)
        stream_info = {"rate": stream.rate, "channels": stream.channels, "latency_ms": delay}
        common.print_json({"event": "begun", **stream_info})
    summary, last_printed_s, is_complete = LiveSummary(), 0.0, True
    with read_keys(controls.handle_key) as poll, LevelMeterDisplay() as display:
        try:
            for levels in run_live(device, stream, controls):
                poll()
                summary.add(levels)
                if not as_json:
                    display.show(levels, controls)
                elif levels.seconds - last_printed_s >= _JSON_INTERVAL_S:
                    last_printed_s = levels.seconds
                    _print_levels(levels, controls)
        except KeyboardInterrupt:
            is_complete = False
    if as_json:
        common.print_json({"event": "ended", **{k: round(v, 3) for k, v in vars(summary).items()}})
    else:
        print(
            f"played   {summary.seconds:.1f} s; load {100 * summary.load:.0f} % on average, "
            f"{100 * summary.worst:.0f} % at worst; dropouts {summary.dropouts}"
        )
    return is_complete


def _print_levels(levels: "BlockLevels", controls: "LiveControls") -> None:
    peaks = {"input_db": levels.input_db, "output_db": levels.output_db}
    common.print_json(
        {
            "event": "levels",
            "seconds": round(levels.seconds, 3),
            **{k: round(v, 2) if v > float("-inf") else None for k, v in peaks.items()},
            "load": round(levels.load, 3),
            "amount": controls.amount,
            "bypassed": controls.bypassed,
            "frozen": controls.frozen,
            "delta": controls.delta,
            "dropouts": levels.dropouts,
        }
    )
