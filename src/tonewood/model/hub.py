"""Models in folders and on the Hugging Face Hub: a model file, and its card as README.md."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import ModuleType

from tonewood.errors import MissingExtraError, ModelError, printable
from tonewood.model.card import card_markdown
from tonewood.model.model import Model, load_model
from tonewood.utils.atomic_write import prepare_report_folder, write_text
from tonewood.utils.paths import real_path

MODEL_FILE, CARD_FILE = "model.tonewood", "README.md"


def write_model_folder(model: Model, folder: Path, *, overwrite: bool = False) -> None:
    """Write a model and its card into a folder, created if necessary; OutputError if that fails."""
    prepare_report_folder(folder, (MODEL_FILE, CARD_FILE), overwrite)
    model.save(folder / MODEL_FILE, overwrite=overwrite)
    write_text(folder / CARD_FILE, card_markdown(model), overwrite=overwrite)


def load_pretrained(location: str | Path, revision: str | None = None) -> Model:
    """Load a model from a folder that `write_model_folder` wrote, or from a repository of the Hub.

    After one download a repository is available without a network.

    Parameters
    ----------
    location : path or str
        Folder; if none of that name exists, a repository such as ``somebody/cello``.
    revision : str, optional
        Branch, tag or commit of the repository.

    Raises
    ------
    ModelError
        The folder or repository does not exist, contains no model, or cannot be reached.
    MissingExtraError
        A repository needs huggingface_hub, which is not installed.
    """
    folder = Path(location)
    name = real_path(folder).name
    if folder.is_dir():
        path = folder / MODEL_FILE
        if not path.is_file():
            raise ModelError(
                f"{printable(folder)} contains no {MODEL_FILE}: name a folder that save_pretrained wrote"
            )
    else:
        hub, repository = _import_hub("from_pretrained"), str(location)
        with _hub_errors(repository, hub):
            path = Path(hub.hf_hub_download(repository, MODEL_FILE, revision=revision))
    # Named after the folder or repository, because every file in one is called `model.tonewood`.
    return replace(load_model(path), name=name)


def upload_model(
    model: Model, repository: str, *, private: bool = False, message: str = "Add a Tonewood model"
) -> str:
    """Upload a model and its card to a repository of the Hub; return the URL of the commit.

    A missing repository is created. Log in with `hf auth login` or set HF_TOKEN first.

    Raises
    ------
    ModelError
        The Hub cannot be reached, or refuses access.
    MissingExtraError
        huggingface_hub is not installed.
    """
    hub = _import_hub("push_to_hub")
    # The card shows the repository's name, because the name of a local file may be arbitrary.
    with tempfile.TemporaryDirectory() as folder:
        write_model_folder(replace(model, name=repository.split("/")[-1]), Path(folder))
        with _hub_errors(repository, hub):
            api = hub.HfApi()
            api.create_repo(repository, private=private, exist_ok=True)
            commit = api.upload_folder(repo_id=repository, folder_path=folder, commit_message=message)
    return str(commit.commit_url)


def _import_hub(function: str) -> ModuleType:
    try:
        import huggingface_hub
        import huggingface_hub.errors
    except ImportError:
        raise MissingExtraError(
            f"{function} with a repository needs huggingface_hub: pip install '.[hub]'"
        ) from None
    return huggingface_hub


@contextmanager
def _hub_errors(repository: str, hub: ModuleType) -> Iterator[None]:
    """Turn every exception of the Hub's client into an error of one line."""
    name, errors = printable(repository), hub.errors
    try:
        yield
    # Subclasses come before their bases: most of these errors derive from HfHubHTTPError or OSError.
    except errors.HFValidationError:
        raise ModelError(
            f"{name} is neither a folder nor a repository's name: give one such as somebody/cello"
        ) from None
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled):
        raise ModelError(
            f"{name} is neither a folder nor in the cache, and the Hub cannot be reached: go online "
            "(without HF_HUB_OFFLINE) or name a folder"
        ) from None
    except errors.RepositoryNotFoundError:
        raise ModelError(
            f"{name} does not exist on the Hub, or is private: check its name, or log in"
        ) from None
    except errors.RevisionNotFoundError:
        raise ModelError(f"{name} has no such revision: omit it or name another") from None
    except errors.EntryNotFoundError:
        raise ModelError(f"{name} contains no {MODEL_FILE}: name another repository") from None
    except errors.LocalTokenNotFoundError:
        raise ModelError(f"{name}: you are not logged in to the Hub: run `hf auth login`") from None
    except errors.HfHubHTTPError as error:
        status = getattr(getattr(error, "response", None), "status_code", "unknown")
        raise ModelError(f"{name}: the Hub refuses access (status {status}): log in, or wait") from None
    # Errors of the client's transport: those of requests are OSErrors, those of httpx are not.
    except (OSError, *errors.HfHubHTTPError.__bases__):
        raise ModelError(f"{name}: the Hub cannot be reached: check the network") from None
