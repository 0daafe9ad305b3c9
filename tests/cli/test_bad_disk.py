"""Disks that are full or may not be written, and results that another run holds."""

from __future__ import annotations

import json
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import psutil
import pytest
import scenes

if TYPE_CHECKING:
    from conftest import Bench

Refusal = Callable[..., str]


class Outcome(NamedTuple):
    """What a command in a process of its own left."""

    code: int
    out: str
    err: str


def command(bench: Bench, stage: str, **options: object) -> Outcome:
    """`volsam run <stage>` with its default cluster in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "volsam", "run", stage, "--config", bench.config(), "--sample", "a"],
        capture_output=True,
        text=True,
        check=False,
        cwd=bench.root,
        **options,  # type: ignore[call-overload]
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


@contextmanager
def room(size: int) -> Iterator[None]:
    """No file can grow beyond `size` bytes: what a full disk looks like to a writer."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture(scope="module")
def undisturbed(scene: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of a run with room enough."""
    results = tmp_path_factory.mktemp("undisturbed")
    scenes.run_pipeline(scenes.settings(scene, results))
    return results


def test_full_disk(bench: Bench, refusal: Refusal, undisturbed: Path) -> None:
    """Whatever write fails, the stage says so and goes on where it was when there is room again."""
    before = scenes.tree_digest(bench.folder)
    stages = list(scenes.STAGES)
    size, refusals = 0, []
    while stages:
        arguments = bench.arguments(stages[0])
        with room(size):
            outcome = bench.call(*arguments)
        if outcome.code:
            sentence = refusal(outcome, "Cannot write", str(bench.results), "room on its disk")
            refusals.append((stages[0], sentence))
            bench.unfinished(stages[0])
            size = 2 * size + 64
            assert size < 2**20, sentence
        else:
            stages.pop(0)
            size = 320  # the lease fits
    written = {sentence.split()[2] for _, sentence in refusals}
    assert {Path(path).name for path in written} >= {
        "lease.json",
        "a.ome.zarr",
        "0_0-0-0.parquet",
        "lookup.npy",
        "objects.parquet",
    }
    assert {stage for stage, _ in refusals} == set(scenes.STAGES)
    assert scenes.tree_digest(bench.folder) == before
    expected = scenes.SamplePaths(str(undisturbed), scenes.SAMPLE)
    mine, theirs = scenes.result_digest(bench.paths), scenes.result_digest(expected)
    # Names the model, and with it the folder of the predictions.
    for digest in (mine, theirs):
        assert digest.pop("objects/zarr.json")
    assert mine == theirs


def test_full_disk_of_a_worker(bench: Bench, refusal: Refusal, undisturbed: Path) -> None:
    """The sentence travels from a Dask worker to the user."""
    fragments = undisturbed / "a" / ".volsam" / "fragments.zarr"
    sizes = {p.name: p.stat().st_size for p in fragments.rglob("*") if p.is_file()}
    metadata = sizes.pop("zarr.json")
    assert metadata < min(sizes.values()) - 1
    limit = min(sizes.values()) - 1
    bench.run_before("segment")

    def full() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    outcome = command(bench, "segment", preexec_fn=full)
    refusal(outcome, "Cannot write", "fragments.zarr", "File too large")
    bench.unfinished("segment")


def test_results_are_a_file(bench: Bench, refusal: Refusal) -> None:
    bench.results.write_text("mine")
    refusal(bench.run("ingest"), "Cannot write", str(bench.results))
    assert bench.results.read_text() == "mine"


@pytest.fixture
def others(bench: Bench) -> Iterator[Path]:
    """A folder that everyone may enter, with the scene; for users who cannot enter pytest's own."""
    with tempfile.TemporaryDirectory(prefix="volsam-test-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        shutil.copytree(bench.folder, folder / "input")
        bench.data = scenes.settings(folder / "input", folder / "results")
        bench.sample = bench.data["samples"][scenes.SAMPLE]
        bench.folder, bench.root, bench.results = folder / "input", folder, folder / "results"
        yield folder


# The first run, as we are, imports all that is needed: another user may not read our Python.
AS_NOBODY = """
import os, sys
from volsam.cli import main
for number, path in enumerate(sys.argv[1:]):
    print("=====", file=sys.stderr)
    if number == 1 and os.geteuid() == 0:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
    sys.argv = ["volsam", "run", "ingest", "--config", path, "--sample", "a", "--cluster", "inline"]
    try:
        main()
    except SystemExit as left:
        print("code", left.code, file=sys.stderr)
"""


def test_what_the_user_may_not_write_or_read(bench: Bench, others: Path, refusal: Refusal) -> None:
    secret = others / "secret.tif"
    shutil.copyfile(bench.folder / "image.tif", secret)
    secret.chmod(0)
    configs = []
    for name, mode, image in (
        ("fine", 0o755, bench.sample["image"]),
        ("closed", 0o555, bench.sample["image"]),
        ("open", 0o777, str(secret)),
    ):
        bench.sample["image"] = image
        results = others / name
        results.mkdir()
        results.chmod(mode)
        configs.append(others / f"{name}.yaml")
        configs[-1].write_text(json.dumps({**bench.data, "results": str(results)}))
    done = subprocess.run(
        [sys.executable, "-c", AS_NOBODY, *configs],
        capture_output=True,
        text=True,
        check=True,
        cwd=others,
    )
    _, fine, closed, unread = done.stderr.split("=====\n")
    assert fine.endswith("code 0\n"), fine
    for text, words in (
        (closed, ("Cannot write", str(others / "closed"), "Permission denied")),
        (unread, ("Cannot read", "secret.tif", "Permission denied")),
    ):
        head, _, code = text.rpartition("code ")
        refusal(Outcome(int(code), "", head), *words)
    assert not list((others / "closed").iterdir())
    assert not (others / "open" / "a" / ".volsam" / "ingest.json").exists()
    assert not (others / "open" / "a" / "a.ome.zarr").exists()


def test_results_in_use(bench: Bench, refusal: Refusal) -> None:
    bench.paths.work.mkdir(parents=True)
    lease = bench.paths.work / "lease.json"
    me = psutil.Process()
    entry = {
        "purpose": "stage segment of sample a",
        "host": socket.gethostname(),
        "pid": me.pid,
        "born": me.create_time(),
        "since": "2026-01-01 10:00:00",
        "token": "other",
    }
    lease.write_text(json.dumps(entry))
    sentence = refusal(bench.run("ingest", "--wait", 0), str(bench.results), "in use by")
    assert f"stage segment of sample a (process {me.pid} on {entry['host']}" in sentence
    refusal(bench.call("clean", "--config", bench.config()), "in use by")
    assert json.loads(lease.read_text()) == entry
    lease.unlink()
    bench.unfinished("ingest")
