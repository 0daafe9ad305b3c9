"""The typed site file: where blocks run. What to run is in `volsam.config`.

Invariants
----------
- A profile names one such file (`profiles/slurm/cluster.yaml`); the words ``local`` and ``inline``
  stand for files that need no keys.
- Every stage runs its blocks in one pool of equal workers; a stage that is not named uses the
  pool ``cpu``.
- Nothing here changes a result: block bytes are the same whatever the pool.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from volsam.errors import VolsamError, fault
from volsam.section import Name, PathText, Section
from volsam.stages import STAGES

Seconds = Annotated[float, Field(gt=0)]
Walltime = Annotated[str, Field(pattern=r"^\d{1,4}:[0-5]\d(:[0-5]\d)?$")]
# Dask's own processes in a job, beside what a block needs; measured at 139 MB idle.
OVERHEAD_GB = 0.4


class Pool(Section):
    """Workers of one kind; each is one job of the batch system and computes one block at a time."""

    queue: str | None = None
    """Partition (SLURM) or queue (LSF); the site's default if not stated."""
    account: str | None = None
    """Account or project to charge."""
    walltime: Walltime = "04:00:00"
    """Longest time of a worker, `hours:minutes` or `hours:minutes:seconds`; a worker
    leaves by itself before it, and is replaced."""
    cores: int = Field(default=1, ge=1)
    """CPU cores of a worker."""
    memory_gb: float = Field(default=4.0, gt=0)
    """Memory of a worker's job."""
    gpus: int = Field(default=0, ge=0)
    """GPUs of a worker; 1 for the network, which uses one."""
    minimum: int = Field(default=0, ge=0)
    """Workers to keep while there is a block left, even if it is the last."""
    maximum: int = Field(default=8, ge=1)
    """Workers of a driver at most; there are never more than blocks."""
    directives: list[str] = Field(default_factory=list)
    """Further lines for the batch system, e.g. `--constraint=a100` for nodes of one GPU memory."""
    prologue: list[str] = Field(default_factory=list)
    """Shell lines before the worker starts: modules, environments."""
    python: str | None = None
    """Command that runs Python on the node, e.g. `apptainer exec --nv volsam.sif python`; by default the
    interpreter that runs the driver."""
    scratch: str | None = None
    """Node-local folder for a worker's own temporary files, e.g. `${TMPDIR:-/tmp}`."""

    @model_validator(mode="after")
    def _ordered(self) -> Pool:
        if self.minimum > self.maximum:
            raise ValueError("minimum is above maximum")
        return self

    @property
    def seconds(self) -> int:
        """The walltime in seconds."""
        hours, minutes, *rest = (int(part) for part in self.walltime.split(":"))
        return hours * 3600 + minutes * 60 + sum(rest)


class Cluster(Section):
    """Where blocks run."""

    kind: Literal["local", "inline", "slurm", "lsf"] = "local"
    """`local` is Dask on this machine, `inline` the driver itself, the others a batch system."""
    pools: dict[Name, Pool] = Field(default_factory=lambda: {"cpu": Pool()})
    """Kinds of workers by name; `cpu` must be among them."""
    stages: dict[str, Name] = Field(default_factory=dict)
    """Pool of a stage, e.g. `{encode: gpu, segment: gpu}`; the others use `cpu`."""
    interface: str | None = None
    """Network interface that driver and workers share, e.g. `ib0`; `lo` if all is
    one machine. A batch system needs it."""
    dashboard: Literal["loopback", "interface"] = "loopback"
    """Where the Dask dashboard listens; loopback is reached through `ssh -L`."""
    tls: bool = False
    """Encrypt and authenticate what driver and workers say to each other, with keys made for the run."""
    lost_workers: int = Field(default=8, ge=0)
    """How often a block may lose its worker (preempted, killed, node down) before the stage fails."""
    start_seconds: Seconds = 300.0
    """A worker that has not found its driver in this time leaves."""
    patience_hours: Seconds = 48.0
    """The stage fails if there was no worker at all for this long."""
    lsf_units: Literal["kb", "mb", "gb"] = "mb"
    """The site's LSF_UNIT_FOR_LIMITS."""

    @field_validator("stages")
    @classmethod
    def _known(cls, stages: dict[str, str]) -> dict[str, str]:
        for stage in stages:
            if stage not in STAGES:
                raise ValueError(f"there is no stage {stage}")
        return stages

    @model_validator(mode="after")
    def _complete(self) -> Cluster:
        for pool in ("cpu", *self.stages.values()):
            if pool not in self.pools:
                raise ValueError(f"pool {pool} is not among pools")
        return self

    @property
    def batch(self) -> bool:
        """Whether workers are jobs of a batch system."""
        return self.kind in ("slurm", "lsf")

    def pool(self, stage: str) -> Pool:
        """Workers of a stage."""
        return self.pools[self.stages.get(stage, "cpu")]


def locate(where: str, base: Path) -> str:
    """A site file by its absolute path, looked for here and then below `base`; words stay words."""
    if where in ("local", "inline"):
        return where
    path = next((p for p in (Path(where), base / where) if p.is_file()), Path(where))
    return str(path.absolute())


def load_cluster(where: PathText | Path) -> Cluster:
    """Read a site file, or make the one of the words ``local`` and ``inline``.

    Raises
    ------
    VolsamError
        If the file cannot be read or a key in it is wrong.
    """
    if str(where) in ("local", "inline"):
        return Cluster.model_validate({"kind": str(where)})
    try:
        data: Any = yaml.safe_load(Path(where).read_text(encoding="utf-8"))
    except OSError as error:
        raise VolsamError(
            f"Cluster {str(where)!r} is unknown: neither local, inline nor a readable site file "
            f"({error.strerror}); docs/hpc.md shows one."
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError):
        raise VolsamError(f"The site file {where} is no valid YAML; mend it.") from None
    if not isinstance(data, dict):
        raise VolsamError(f"The site file {where} holds no keys; docs/hpc.md shows one.")
    try:
        return Cluster.model_validate(data)
    except ValidationError as error:
        raise VolsamError(fault(error, f"the site file {where}", "docs/site-file.md")) from None
