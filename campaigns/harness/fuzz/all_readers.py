"""Everything that comes from others: files, what is sent to servers, what listening tests keep."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from starlette.testclient import TestClient

from campaigns.harness.fuzz.http_requests import requests_to_studio, requests_to_test
from campaigns.harness.fuzz.listening_tests import answers, listening
from campaigns.harness.fuzz.readers import Reader, all_files, recipe_of
from campaigns.harness.fuzz.session_files import sessions
from tonewood.model.model import Model
from tonewood.studio.app import create_secure_studio_app
from tonewood.studio.state import StudioState


@contextmanager
def everything(model: Model, model_file: str, folder: Path) -> Iterator[dict[str, Reader]]:
    """Readers of all that comes from others, by name; servers run as long as it lasts.

    Parameters
    ----------
    model, model_file
        The same, loaded and as the studio is told it.
    folder : Path
        An empty one.
    """
    folder.mkdir(exist_ok=True)
    recipe = recipe_of(model, folder)
    recording = (folder / "seed.wav").read_bytes()
    with ExitStack() as stack:
        desk = StudioState(folder / "desk", model_file, folder)
        client = stack.enter_context(
            TestClient(create_secure_studio_app(desk), base_url="http://127.0.0.1:8765")
        )
        tests = listening(folder)
        yield {
            **all_files(model, recipe, folder),
            **answers(tests, folder / "scratch"),
            "session": sessions(desk, client, recording, recipe),
            "requests studio": stack.enter_context(requests_to_studio(model_file, folder, recording)),
            "requests listening": stack.enter_context(requests_to_test(tests["pairs"][1])),
        }
