import base64
import json
import shutil
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tonewood.batch.enhance_file import FileEnhanced, enhance_file
from tonewood.enhancement.recipe import MaskRecord, Recipe, load_recipe
from tonewood.errors import OutputError, RecipeError
from tonewood.mask.mask import Mask
from tonewood.model.model import Model
from tonewood.settings import EnhanceSettings


def mask(gain: np.ndarray[Any, Any]) -> Mask:
    rows = gain.shape[0]
    return Mask(gain.astype(np.float32), np.linspace(50.0, 7_900.0, rows) / 3, 0.01, 8_000.0)


@pytest.fixture(scope="module")
def saved_recipe(model: Model, play: Callable[..., Any]) -> Recipe:
    """A recipe as the workflow makes it."""
    folder = Path(tempfile.mkdtemp())
    path = folder / "Stück.wav"
    soundfile.write(path, play(0.5)[0], 16_000)
    settings = EnhanceSettings().replace(search=dict(steps=1))
    *_, result = enhance_file(path, folder / "out" / path.name, model, settings)
    assert isinstance(result, FileEnhanced)
    result_recipe = load_recipe(Path(result.recipe))
    shutil.rmtree(folder)
    return result_recipe


@given(
    hnp.arrays(
        np.int16,
        hnp.array_shapes(min_dims=2, max_dims=2, max_side=40),
        elements=st.integers(-6000, 6000),
    )
)
def test_quantized_mask_survives_its_record_exactly(cells: np.ndarray[Any, Any]) -> None:
    first = mask(cells / 500).quantize()
    back = MaskRecord.from_mask(first).to_mask()
    np.testing.assert_array_equal(back.gain_db, first.gain_db)
    np.testing.assert_array_equal(back.hz, first.hz)
    assert (back.hop_seconds, back.top_hz) == (first.hop_seconds, first.top_hz)
    assert back.gain_db.dtype == np.float32


def test_recipe_survives_its_file(tmp_path: Path, saved_recipe: Recipe) -> None:
    path = tmp_path / "a.wav.recipe.json"
    saved_recipe.save(path)
    assert load_recipe(path) == saved_recipe
    assert json.loads(path.read_text("utf-8"))["input"]["name"] == "Stück.wav"
    with pytest.raises(OutputError, match="exists"):
        saved_recipe.save(path)


def test_recipe_of_earlier_version_loads_and_saves_unchanged(tmp_path: Path) -> None:
    # Written by commit 98e61a4, with a random mask of 6 rows.
    path = Path(__file__).with_name("recipe_format_2.json")
    recipe = load_recipe(path)
    assert recipe.carried is not None
    gain = recipe.mask.to_mask().gain_db
    assert gain.shape == (6, 24)
    np.testing.assert_allclose(gain[0, :3], [4.098, 7.32, -11.458], rtol=1e-6)
    assert float(gain.sum()) == pytest.approx(-46.298, abs=1e-4)
    recipe.save(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == path.read_bytes()


def test_long_mask_is_unpacked_in_parts() -> None:
    cells = np.random.default_rng(0).integers(-6000, 6000, (3, 13_001))
    first = mask(cells / 500).quantize()
    long = MaskRecord.from_mask(first).to_mask()
    for begin, end in ((0, 1), (5_990, 6_010), (12_500, 13_001), (0, 13_001)):
        np.testing.assert_array_equal(long.slice_frames(begin, end).gain_db, first.gain_db[:, begin:end])


def test_record_of_ten_minutes_is_small() -> None:
    # Ten minutes of a mask that changes all the time.
    drift = np.cumsum(np.full((48, 60_000), 0.01), axis=1) % 18
    assert len("".join(MaskRecord.from_mask(mask(drift)).parts)) < 5e5


@pytest.mark.parametrize(
    "content",
    [b"", b"{}", b"[1]", b"\xff\xfe", b"not json", b'{"format": "tonewood-recipe"}'],
)
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a\nb.json"
    path.write_bytes(content)
    with pytest.raises(RecipeError, match=r"a\\nb\.json is not a Tonewood recipe, or is damaged"):
        load_recipe(path)


def test_missing_file_and_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"no\.json cannot be read \(no such file"):
        load_recipe(tmp_path / "no.json")
    with pytest.raises(RecipeError, match=r"cannot be read \(is a directory"):
        load_recipe(tmp_path)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"version": 1}, "version 1; this Tonewood reads 2"),
        ({"format": "other"}, "is not a Tonewood recipe"),
        ({"steps": "many"}, "is not a Tonewood recipe"),
        ({"extra": 1}, "is not a Tonewood recipe"),
        ({"gain_db": 1e308}, r"is not a Tonewood recipe, or is damaged \(gain_db: input should be less"),
        ({"steps": -1}, r"is damaged \(steps: input should be greater"),
        ({"input": {"samples": -1}}, r"is damaged \(input: samples: input should be greater"),
    ],
)
def test_altered_recipes_are_refused(
    tmp_path: Path, saved_recipe: Recipe, change: dict[str, Any], reason: str
) -> None:
    tree = saved_recipe.model_dump(mode="json")
    path = tmp_path / "a.json"
    nested = {key: tree[key] | value for key, value in change.items() if isinstance(value, dict)}
    path.write_text(json.dumps(tree | change | nested))
    with pytest.raises(RecipeError, match=reason):
        load_recipe(path)


def packed(content: bytes) -> str:
    return base64.b64encode(zlib.compress(content)).decode()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"rows": 0}, "is inconsistent"),
        ({"rows": -3, "frames": -4}, "is inconsistent"),
        ({"rows": 4, "frames": 3}, "is inconsistent"),
        ({"frames": 2**40}, "is inconsistent"),
        ({"frames": 5}, "is damaged"),
        ({"parts": ("%",)}, "is damaged"),
        ({"parts": ("AAAA",)}, "is damaged"),
        ({"parts": (packed(bytes(23)),)}, "is damaged"),
        ({"parts": (packed(bytes(10**7)),)}, "is damaged"),
        ({"parts": ()}, "is inconsistent"),
        ({"hop_seconds": 0.0}, "is inconsistent"),
        ({"top_hz": -1.0}, "is inconsistent"),
        ({"hz": [3.0, 2.0, 1.0]}, "is inconsistent"),
    ],
)
def test_damaged_masks_are_refused(change: dict[str, Any], reason: str) -> None:
    record = MaskRecord.from_mask(mask(np.ones((3, 4)))).model_copy(update=change)
    with pytest.raises(RecipeError, match=reason):
        record.to_mask().load()
