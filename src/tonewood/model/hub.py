"""Models kept in folders and on the Hugging Face Hub: one model file, and its card as README.md."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import ModuleType

from tonewood.errors import MissingExtraError, ModelError, printable
from tonewood.model import card_text
from tonewood.model import model as modelfile
from tonewood.model.model import Model
from tonewood.utils.atomic_write import prepare_report_folder, write_text

MODEL_FILE, CARD_FILE = "model.tonewood", "README.md"


def write_model_folder(model: Model, folder: Path, *, overwrite: bool = False) -> None:
    """Write a model and its card into a folder, which is made if need be; raises OutputError."""
    prepare_report_folder(folder, (MODEL_FILE, CARD_FILE), overwrite)
    model.save(folder / MODEL_FILE, overwrite=overwrite)
    write_text(folder / CARD_FILE, card_text.card_markdown(model), overwrite=overwrite)


def load_pretrained(place: str | Path, revision: str | None = None) -> Model:
    """Load a model from a folder that `write_model_folder` wrote, or from a repository of the Hub.

    What was fetched once is found again without a network.

    Parameters
    ----------
    place : path or str
        A folder; if there is none of that name, a repository such as ``somebody/cello``.
    revision : str, optional
        Branch, tag or commit of the repository.

    Raises
    ------
    ModelError
        There is no such folder or repository, no model in it, or no way to reach it.
    MissingExtraError
        A repository is named, and huggingface_hub is not installed.
    """
    folder = Path(place)
    name = folder.resolve().name
    if folder.is_dir():
        path = folder / MODEL_FILE
        if not path.is_file():
            raise ModelError(
                f"{printable(folder)} holds no {MODEL_FILE}: name a folder that save_pretrained wrote"
            )
    else:
        hub, repository = _import_hub("from_pretrained"), str(place)
        with _hub_errors(repository, hub):
            path = Path(hub.hf_hub_download(repository, MODEL_FILE, revision=revision))
    return replace(modelfile.load_model(path), name=name)


def upload_model(
    model: Model, repository: str, *, private: bool = False, message: str = "Add a Tonewood model"
) -> str:
    """Upload a model and its card to a repository of the Hub, made if need be; its commit's URL.

    Who is asking is what huggingface_hub knows: `hf auth login`, or the variable HF_TOKEN.

    Raises
    ------
    ModelError
        The Hub cannot be reached, or refuses.
    MissingExtraError
        huggingface_hub is not installed.
    """
    hub = _import_hub("push_to_hub")
    with tempfile.TemporaryDirectory() as folder:
        write_model_folder(replace(model, name=repository.split("/")[-1]), Path(folder))
        with _hub_errors(repository, hub):
            api = hub.HfApi()
            api.create_repo(repository, private=private, exist_ok=True)
            done = api.upload_folder(repo_id=repository, folder_path=folder, commit_message=message)
    return str(done.commit_url)


def _import_hub(what: str) -> ModuleType:
    try:
        import huggingface_hub
        import huggingface_hub.errors
    except ImportError:
        raise MissingExtraError(
            f"{what} with a repository needs huggingface_hub: pip install '.[hub]'"
        ) from None
    return huggingface_hub


@contextmanager
def _hub_errors(repository: str, hub: ModuleType) -> Iterator[None]:
    """Whatever the Hub's client raises, in one line."""
    what, errors = printable(repository), hub.errors
    try:
        yield
    except errors.HFValidationError:
        raise ModelError(
            f"{what} is neither a folder nor a repository's name: give one such as somebody/cello"
        ) from None
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled):
        raise ModelError(
            f"{what} is neither a folder nor in the cache, and the Hub is not reached: go online "
            "(without HF_HUB_OFFLINE) or name a folder"
        ) from None
    except errors.RepositoryNotFoundError:
        raise ModelError(
            f"{what} is no repository of the Hub that you may see: check its name, or log in"
        ) from None
    except errors.RevisionNotFoundError:
        raise ModelError(f"{what} has no such revision: leave it out or name another") from None
    except errors.EntryNotFoundError:
        raise ModelError(f"{what} holds no {MODEL_FILE}: name another repository") from None
    except errors.LocalTokenNotFoundError:
        raise ModelError(f"{what}: the Hub knows no login of yours: run `hf auth login`") from None
    except errors.HfHubHTTPError as error:
        status = getattr(getattr(error, "response", None), "status_code", "unknown")
        raise ModelError(f"{what}: the Hub refuses (status {status}): log in, or wait") from None
    # Whatever its transport raises: of requests an OSError, of httpx none.
    except (OSError, *errors.HfHubHTTPError.__bases__):
        raise ModelError(f"{what}: the Hub is not reached: check the network") from None
