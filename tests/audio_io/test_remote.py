"""Files in an S3 object store, served by moto on loopback."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import soundfile

from tonewood.audio_io import remote
from tonewood.batch import results_table

s3fs = pytest.importorskip("s3fs")
moto = pytest.importorskip("moto.server")

Play = Callable[..., npt.NDArray[np.float32]]
Run = Callable[..., Any]
FEW = ("--prior", "static", "--steps", "0", "--force", "--set", "certificate.control_steps=0")


@pytest.fixture(scope="module")
def store() -> Iterator[Any]:
    """File system of a store with an empty bucket; environment variables give its address."""
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    fields = {
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in fields.items():
            patch.setenv(name, value)
        system = s3fs.S3FileSystem()
        system.mkdir("archive")
        yield system
        s3fs.S3FileSystem.clear_instance_cache()
    server.stop()


@pytest.mark.parametrize("more", [(), ("--workers", 1)], ids=["alone", "workers"])
def test_enhance_reads_and_writes_an_object_store(
    tmp_path: Path, store: Any, play: Play, run: Run, model_file: Path, more: tuple[object, ...]
) -> None:
    name = "many" if more else "one"
    for number in range(3):
        path = tmp_path / "in" / f"take{number}.wav"
        path.parent.mkdir(exist_ok=True)
        soundfile.write(path, play(1.0, seed=number).T, 16_000)
        store.put_file(str(path), f"archive/{name}/in/day/{path.name}")
    assert run("enhance", tmp_path / "in", "-o", tmp_path / "out", "-m", model_file, *FEW).code == 0
    out, table = f"s3://archive/{name}/out", f"s3://archive/{name}/out/tonewood.parquet"
    command = ("enhance", f"s3://archive/{name}/in", "-o", out, "-m", model_file, "--json", *FEW)
    ran = run(*command, *more, "--parquet", table)
    assert ran.code == 0, ran.err
    for path in (tmp_path / "out").iterdir():
        assert store.cat_file(f"{out}/day/{path.name}") == path.read_bytes()
    with remote.local_copy(table) as local:
        rows = results_table.read_results(local)
    assert sorted(row.output or "" for row in rows) == [f"{out}/day/take{k}.wav" for k in range(3)]
    store.rm_file(f"archive/{name}/out/day/take1.wav")
    again = run(*command, "--parquet", table)  # a run without workers continues one with workers
    assert {Path(item["output"]).name: item["already"] for item in again.objects} == {
        "take0.wav": True, "take1.wav": False, "take2.wav": True,
    }  # fmt: skip
    assert len(store.find(f"archive/{name}/out")) == 7


def test_refusal_of_an_object_store_is_one_line(
    tmp_path: Path, store: Any, run: Run, model_file: Path
) -> None:
    assert os.environ["AWS_ENDPOINT_URL"]
    ran = run("enhance", "s3://nobucket/a.wav", "-o", tmp_path / "out", "-m", model_file)
    assert ran.code == 1
    assert "s3://nobucket/a.wav does not exist: check its name" in ran.err
    ran = run("score", "s3://nobucket/", "-m", model_file)
    assert ran.code == 1
    assert ran.err.count("\n") == 1
