"""All readers of foreign input: files, requests to servers, answers of listening tests."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from starlette.testclient import TestClient

from campaigns.harness.fuzz.http_requests import listening_requests, studio_requests
from campaigns.harness.fuzz.listening_tests import build_listening_tests, listening_readers
from campaigns.harness.fuzz.readers import Reader, file_readers, make_recipe
from campaigns.harness.fuzz.session_files import session_reader
from tonewood.model.model import Model
from tonewood.studio.app import create_secure_studio_app
from tonewood.studio.state import StudioState


@contextmanager
def all_readers(model: Model, model_file: str, folder: Path) -> Iterator[dict[str, Reader]]:
    """Yield all readers by name; servers run until the end of the block.

    Parameters
    ----------
    model, model_file
        The same model, loaded and as a name or path.
    folder : Path
        Empty folder.
    """
    folder.mkdir(exist_ok=True)
    recipe = make_recipe(model, folder)
    recording = (folder / "seed.wav").read_bytes()
    with ExitStack() as stack:
        studio_state = StudioState(folder / "studio_state", model_file, folder)
        client = stack.enter_context(
            TestClient(create_secure_studio_app(studio_state), base_url="http://127.0.0.1:8765")
        )
        tests = build_listening_tests(folder)
        yield {
            **file_readers(model, recipe, folder),
            **listening_readers(tests, folder / "scratch"),
            "session": session_reader(studio_state, client, recording, recipe),
            "requests studio": stack.enter_context(studio_requests(model_file, folder, recording)),
            "requests listening": stack.enter_context(listening_requests(tests["pairs"][1])),
        }
