"""The site file: what it says, what is refused, and that the profiles in the repository are valid."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from volsam.blocks.cluster.batch import clean_environment
from volsam.blocks.cluster.settings import Cluster, load_cluster, locate
from volsam.errors import VolsamError

REPOSITORY = Path(__file__).resolve().parents[2]


def site(folder: Path, text: str) -> Path:
    path = folder / "cluster.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("kind", ["slurm", "lsf"])
def test_profiles_of_the_repository(kind: str) -> None:
    folder = REPOSITORY / "profiles" / kind
    cluster = load_cluster(folder / "cluster.yaml")
    assert cluster.kind == kind
    assert cluster.batch
    assert cluster.tls
    assert cluster.pool("segment").gpus == 1
    assert cluster.pool("label").gpus == 0
    drivers = yaml.safe_load((folder / "config.yaml").read_text())
    assert drivers["config"] == [f"cluster=profiles/{kind}/cluster.yaml"]
    assert drivers["retries"]
    assert drivers["keep-going"]


def test_words_need_no_file() -> None:
    assert load_cluster("local").kind == "local"
    assert not load_cluster("inline").batch


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("kind: pbs", "Key kind is wrong"),
        ("kind: slurm\ncolour: red", "Key colour is unknown"),
        ("stages: {segment: gpu}", "pool gpu is not among pools"),
        ("pools: {gpu: {}}", "pool cpu is not among pools"),
        ("stages: {dance: cpu}", "there is no stage dance"),
        ("pools: {cpu: {walltime: 4 hours}}", r"pools\.cpu\.walltime is wrong"),
        ("pools: {cpu: {minimum: 9, maximum: 2}}", "minimum is above maximum"),
        ("pools: {cpu: {gpus: -1}}", r"pools\.cpu\.gpus is wrong"),
        ("- slurm", "holds no keys"),
        ("kind: [", "no valid YAML"),
    ],
)
def test_bad_site_files(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(VolsamError, match=says) as caught:
        load_cluster(site(tmp_path, text))
    assert "\n" not in str(caught.value)


def test_missing_file() -> None:
    with pytest.raises(VolsamError, match="'moon' is unknown"):
        load_cluster("moon")


@pytest.mark.parametrize(
    ("walltime", "seconds"), [("04:00", 14400), ("00:01:30", 90), ("100:00:00", 360000)]
)
def test_walltime(walltime: str, seconds: int) -> None:
    cluster = Cluster.model_validate({"pools": {"cpu": {"walltime": walltime}}})
    assert cluster.pool("segment").seconds == seconds


def test_site_file_is_found_beside_the_workflow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    name = "profiles/slurm/cluster.yaml"
    assert locate(name, REPOSITORY) == str(REPOSITORY / name)
    assert locate("local", REPOSITORY) == "local"
    (tmp_path / "profiles" / "slurm").mkdir(parents=True)
    site(tmp_path / "profiles" / "slurm", "kind: slurm")
    assert locate(name, REPOSITORY) == str(tmp_path / name)


def test_environment_of_the_surrounding_job_stays_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SLURM_JOB_ID", "SBATCH_MEM_PER_NODE", "LSB_JOBID", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("SLURM_CONF", "/there")
    monkeypatch.setenv("MINE", "kept")
    environment = clean_environment()
    assert environment["SLURM_CONF"] == "/there"
    assert environment["MINE"] == "kept"
    assert not [
        n for n in environment if n.startswith(("SLURM_JOB", "SBATCH", "LSB_", "CUDA_VISIBLE"))
    ]
