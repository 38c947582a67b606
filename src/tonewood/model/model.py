"""Model in memory, saved to and loaded from a model file, a folder, or the Hugging Face Hub."""

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tonewood.dsp.chunking import TimeSeries
from tonewood.errors import MissingExtraError, ModelError, printable
from tonewood.mask.certificate import OutOfDomainDetector, describe_windows
from tonewood.model.card import ModelCard, card_markdown
from tonewood.model.model_file import damaged_model_error, model_digest, read_model_file, serialize_model
from tonewood.priors.predictor import Predictor
from tonewood.priors.priors import Priors
from tonewood.scorer.guide import Guide
from tonewood.scorer.network import Scorer
from tonewood.settings import ModelSettings
from tonewood.utils.files import check_report_folder, real_path, write_bytes, write_text
from tonewood.utils.layers import tensors_below

MODEL_FILE, CARD_FILE = "model.tonewood", "README.md"  # in a folder or repository


class FolderDistances(NamedTuple):
    """Distances of a recording from both folders; 99 % of the windows of each folder lie within 1 of it."""

    source: float
    reference: float

    @property
    def nearer(self) -> float:
        """Distance from the nearer folder."""
        return min(self)


@dataclass(frozen=True, eq=False)
class Model:
    """Everything that `train` learns and `enhance` needs.

    Parameters
    ----------
    name : str
        Stem of the file's name.
    learnt_priors, learnt_guide : Priors, Guide or None
        None for a model learnt from listeners alone.
    reference_likeness, source_likeness : OutOfDomainDetector
        Of each folder's recordings.
    predictor : Predictor or None
        None if the model was trained without one.
    way_guide : Guide or None
        Guide that leads all the way from source to reference: the loss of the paper's search. None in
        models of earlier versions, of listeners, and of `training.targets=labels`.
    """

    name: str
    settings: ModelSettings
    scorer: Scorer
    judge: Scorer | None
    learnt_priors: Priors | None
    learnt_guide: Guide | None
    guide_weight: float
    reference_likeness: OutOfDomainDetector
    source_likeness: OutOfDomainDetector
    card: ModelCard
    predictor: Predictor | None = None
    way_guide: Guide | None = None

    def __repr__(self) -> str:
        parts = [f"scorer right on {100 * self.card.scorer.accuracy:.0f} %"]
        parts += [name for name in ("judge", "predictor") if getattr(self, name) is not None]
        return f"<Model {self.name!r}: {', '.join(parts)}>"

    @property
    def priors(self) -> Priors:
        """Priors, where masks start; ModelError for a model learnt from listeners alone."""
        if self.learnt_priors is None:
            raise self._missing_part_error("prior none")
        return self.learnt_priors

    @property
    def has_way_guide(self) -> bool:
        """True if the model has a whole-way guide."""
        return self.way_guide is not None

    @property
    def guide(self) -> Guide:
        """Guide, the second neural loss; ModelError for a model learnt from listeners alone."""
        if self.learnt_guide is None:
            raise self._missing_part_error("set search.guide=0")
        return self.learnt_guide

    @property
    def has_graded_scorer(self) -> bool:
        """True if scores grow with the distance from the reference, and masks with the need.

        False for models of earlier versions, of listeners, and of `training.targets=labels`.
        """
        # With listeners, folders are only labels (see `preference_training`).
        is_graded = self.settings.training.targets == "graded" and self.card.ears is None
        return is_graded and self.learnt_priors is not None and self.learnt_priors.source_need is not None

    def folder_distances(self, rows_db: TimeSeries) -> FolderDistances:
        """Return the distances of a recording [row, frame] in dB from both folders."""
        source, reference = self.source_likeness, self.reference_likeness
        windows = describe_windows(rows_db, source.frames)
        return FolderDistances(source.distance_of_windows(windows), reference.distance_of_windows(windows))

    def _missing_part_error(self, remedy: str) -> ModelError:
        return ModelError(
            f"{printable(self.name)} was learnt from listeners alone and has neither priors nor a guide: "
            f"use --{remedy}"
        )

    @cached_property
    def digest(self) -> str:
        """Hexadecimal SHA-256 of settings and tensors; the card does not change it."""
        tensors = {name: array.tobytes() for name, array in _model_tensors(self).items()}
        return model_digest(self.settings, tensors)

    def save(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write the model file, whole or not at all."""
        content = serialize_model(_model_tensors(self), self.settings, self.card)
        write_bytes(Path(path), content, overwrite=overwrite)


def load_model(model: str | Path) -> Model:
    """Load a model file, or a bundled model by its name; errors are those of `read_model_file`."""
    file = read_model_file(model)
    settings, card = file.settings, file.card
    hop_ms = settings.spectrum.hop_ms
    try:
        tensors = {name: tensor.array() for name, tensor in file.tensors.items()}
        _check_finite(tensors, printable(str(model)))
        scorer = Scorer(settings.scorer, settings.spectrum, tensors_below("scorer.", tensors))
        judge = None
        if card.judge:
            judge = Scorer(settings.scorer, settings.spectrum, tensors_below("judge.", tensors))
        # A model learnt from listeners alone has no prior in its card, and no tensors of priors and guide.
        priors = guide = way_guide = predictor = None
        if card.prior:
            priors = Priors.from_tensors(tensors_below("priors.", tensors), settings.priors, hop_ms)
            guide = Guide.from_tensors(tensors_below("guide.", tensors), settings.guide)
            if way_tensors := tensors_below("way_guide.", tensors):
                way_guide = Guide.from_tensors(way_tensors, settings.guide)
        if settings.predictor.taught:
            below = tensors_below("predictor.", tensors)
            predictor = Predictor.from_tensors(below, settings.predictor, hop_ms)
        reference_likeness, source_likeness = (
            OutOfDomainDetector.from_tensors(tensors_below(f"{side}_likeness.", tensors))
            for side in ("reference", "source")
        )
        return Model(
            name=file.name,
            settings=settings,
            scorer=scorer,
            judge=judge,
            learnt_priors=priors,
            learnt_guide=guide,
            guide_weight=float(tensors["guide_weight"]),
            reference_likeness=reference_likeness,
            source_likeness=source_likeness,
            card=card,
            predictor=predictor,
            way_guide=way_guide,
        )
    # The checksum is right, but tensors may be missing or have other shapes than the settings say.
    except (KeyError, ValueError):
        raise damaged_model_error(printable(str(model))) from None


def _check_finite(tensors: Mapping[str, NDArray[Any]], name: str) -> None:
    """Raise ModelError for a weight or statistic that is not a finite number."""
    for key, array in tensors.items():
        # A row at 0 Hz does not count for the level at all, which is minus infinity in dB.
        unusable = np.isnan(array) | np.isposinf(array) if key.endswith("loud_row") else ~np.isfinite(array)
        if unusable.any():
            raise ModelError(
                f"{name} is damaged: {printable(key)} contains values that are not finite numbers: train or "
                "fetch it again"
            )


def _model_tensors(model: Model) -> dict[str, NDArray[Any]]:
    parts: dict[str, Mapping[str, NDArray[Any]]] = {
        "scorer": model.scorer.weights,
        "judge": model.judge.weights if model.judge else {},
        "priors": model.learnt_priors.tensors() if model.learnt_priors else {},
        "guide": model.learnt_guide.tensors() if model.learnt_guide else {},
        "way_guide": model.way_guide.tensors() if model.way_guide else {},
        "predictor": model.predictor.tensors() if model.predictor else {},
        "reference_likeness": model.reference_likeness.tensors(),
        "source_likeness": model.source_likeness.tensors(),
    }
    tensors = {f"{part}.{name}": value for part, named in parts.items() for name, value in named.items()}
    # Double precision keeps a Python float exact.
    tensors["guide_weight"] = np.array(model.guide_weight)
    return tensors


def write_model_folder(model: Model, folder: Path, *, overwrite: bool = False) -> None:
    """Write a model and its card into a folder, created if necessary; OutputError if that fails."""
    check_report_folder(folder, (MODEL_FILE, CARD_FILE), overwrite)
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
