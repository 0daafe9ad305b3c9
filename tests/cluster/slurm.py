"""A small but real SLURM on this machine, for the tests: one controller, three virtual nodes.

Invariants
----------
- Everything lies in one folder and listens on loopback; `stop` ends every process that `start` began.
- Partition ``cpu`` has two nodes, ``gpu`` one with two pretend GPUs (character devices, so that SLURM
  sets CUDA_VISIBLE_DEVICES). No systemd, no cgroups: memory is sampled once a second.
- Where it may not run (no packages, no root, a SLURM of the machine's own) it says why.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

NODES = ("cpu1", "cpu2", "gpu1")
DEFAULT = Path("/etc/slurm/slurm.conf")

CONTROLLER = """\
ClusterName=volsam
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
{listen}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/run/slurmctld.pid
SlurmdPidFile={folder}/run/slurmd-%n.pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/slurmd-%n.log
MailProg=/bin/true
ProctrackType=proctrack/linuxproc
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SlurmdParameters=config_overrides
DefMemPerCPU=500
EnforcePartLimits=ALL
SchedulerParameters=batch_sched_delay=0
KillWait=3
MinJobAge=300
ReturnToService=2
AccountingStorageType=accounting_storage/none
GresTypes=gpu
NodeName=DEFAULT CPUs=12 RealMemory=12000
NodeName=cpu1 NodeHostname={host} NodeAddr=127.0.0.1 Port={cpu1}
NodeName=cpu2 NodeHostname={host} NodeAddr=127.0.0.1 Port={cpu2}
NodeName=gpu1 NodeHostname={host} NodeAddr=127.0.0.1 Port={gpu1} Gres=gpu:2
PartitionName=cpu Nodes=cpu[1-2] Default=YES DefaultTime=10 MaxTime=60
PartitionName=gpu Nodes=gpu1 DefaultTime=10 MaxTime=60
"""

GPUS = """\
AutoDetect=off
NodeName=gpu1 Name=gpu File=/dev/null Flags=nvidia_gpu_env
NodeName=gpu1 Name=gpu File=/dev/zero Flags=nvidia_gpu_env
"""


class Unavailable(Exception):
    """SLURM cannot be started here."""


class Slurm:
    """The service; `start` may be called again to bring back what was killed."""

    def __init__(self, folder: Path, port: int = 16900) -> None:
        self.folder, self.port = folder, port
        self.environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}

    def start(self) -> None:
        """Start whatever does not run, and wait until all nodes are up."""
        self._check()
        for name in ("run", "log", "state", "spool", "munge"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        (self.folder / "munge").chmod(0o711)
        self._configure()
        DEFAULT.unlink(missing_ok=True)
        # Snakemake's plugin clears SLURM_* of what it starts: the default place must do.
        DEFAULT.symlink_to(self.folder / "slurm.conf")
        munge = self.folder / "munge"
        if not (munge / "key").exists():
            self.call("mungekey", "--create", f"--keyfile={munge}/key")
        if not self._alive("munged"):
            self.call(
                "munged",
                *(
                    f"--socket={munge}/socket",
                    f"--key-file={munge}/key",
                    f"--seed-file={munge}/seed",
                ),
                f"--pid-file={self.folder}/run/munged.pid",
                f"--log-file={self.folder}/log/munged.log",
            )
        if not self._alive("slurmctld"):
            self.call("slurmctld")
        for node in NODES:
            if not self._alive(f"slurmd-{node}"):
                self.call("slurmd", "-N", node)
        deadline = time.monotonic() + 40
        while not self._up():
            if time.monotonic() > deadline:
                raise Unavailable(f"SLURM does not come up: {self._states()}; {self.folder}/log")
            time.sleep(0.2)

    def attend(self, seconds: float) -> None:
        """Start what does not run, and put nodes back for some seconds, as an administrator does."""
        self.start()
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self._up()
            time.sleep(0.5)

    def stop(self) -> None:
        """Cancel all jobs and end all daemons."""
        with contextlib.suppress(subprocess.SubprocessError):
            self.call("scancel", "-u", getpass.getuser())
            deadline = time.monotonic() + 15
            while self.jobs() and time.monotonic() < deadline:
                time.sleep(0.2)
        for name in (*(f"slurmd-{node}" for node in NODES), "slurmctld", "munged"):
            self.kill(name, signal.SIGTERM)
        if DEFAULT.is_symlink() and DEFAULT.readlink() == self.folder / "slurm.conf":
            DEFAULT.unlink()

    def kill(self, daemon: str, number: int = signal.SIGKILL) -> None:
        """End a daemon and wait for it."""
        if not self._alive(daemon):
            return
        pid = int((self.folder / "run" / f"{daemon}.pid").read_text())
        os.kill(pid, number)
        deadline = time.monotonic() + 10
        while self._alive(daemon):
            if time.monotonic() > deadline:
                os.kill(pid, signal.SIGKILL)
            time.sleep(0.05)

    def call(self, *command: str, timeout: float = 20) -> str:
        """Run a command of SLURM; its output."""
        done = subprocess.run(
            command, env=self.environment, capture_output=True, text=True, timeout=timeout
        )
        if done.returncode:
            raise subprocess.SubprocessError(f"{' '.join(command)}: {done.stderr.strip()}")
        return done.stdout

    def jobs(self, name: str | None = None) -> list[dict[str, str]]:
        """Jobs that wait or run: id, name, state, partition, node."""
        rows = self.call("squeue", "-h", "-o", "%A|%j|%T|%P|%N").splitlines()
        keys = ("id", "name", "state", "partition", "node")
        jobs = [dict(zip(keys, row.split("|"), strict=True)) for row in rows]
        return [job for job in jobs if name is None or name in job["name"]]

    def workers(self, state: str = "RUNNING") -> list[dict[str, str]]:
        """Jobs of Dask workers in a state."""
        return [job for job in self.jobs("volsam-") if job["state"] == state]

    def drivers(self, state: str = "RUNNING") -> list[dict[str, str]]:
        """Jobs that Snakemake submitted, in a state."""
        return [
            job for job in self.jobs() if "volsam-" not in job["name"] and job["state"] == state
        ]

    def _check(self) -> None:
        for command in ("slurmctld", "slurmd", "munged", "sbatch"):
            if shutil.which(command) is None:
                raise Unavailable(f"{command} is not installed (Debian: slurm-wlm, munge)")
        if os.geteuid() != 0:
            raise Unavailable("SLURM's daemons need root")
        if DEFAULT.exists() and not DEFAULT.is_symlink():
            raise Unavailable(f"{DEFAULT} exists: this machine has a SLURM of its own")

    def _configure(self) -> None:
        host = socket.gethostname().split(".")[0]
        try:
            address = socket.gethostbyname(socket.gethostname())
        except OSError:
            raise Unavailable("the name of this machine does not resolve") from None
        # Only where the name means 127.0.0.1 can SLURM be told to listen there alone.
        alone = "CommunicationParameters=NoCtldInAddrAny,NoInAddrAny"
        ports = {node: self.port + 11 + number for number, node in enumerate(NODES)}
        text = CONTROLLER.format(
            host=host,
            user=getpass.getuser(),
            folder=self.folder,
            port=self.port,
            listen=alone if address == "127.0.0.1" else "",
            **ports,
        )
        (self.folder / "slurm.conf").write_text(text)
        (self.folder / "gres.conf").write_text(GPUS)
        # Needed, used or not; `disabled` is known from release 23.11 on.
        release = subprocess.run(["slurmd", "-V"], capture_output=True, text=True).stdout
        major, minor, *_ = release.split()[-1].split(".")
        plugin = "disabled" if (int(major), int(minor)) >= (23, 11) else "cgroup/v1"
        (self.folder / "cgroup.conf").write_text(f"CgroupPlugin={plugin}\n")

    def _alive(self, daemon: str) -> bool:
        try:
            pid = int((self.folder / "run" / f"{daemon}.pid").read_text())
            name = Path(f"/proc/{pid}/comm").read_text().strip()
            return name == daemon.split("-")[0] and Path(f"/proc/{pid}/exe").exists()
        except (OSError, ValueError):
            return False

    def _up(self) -> bool:
        """Whether all nodes are up; one that SLURM has taken out is put back."""
        states = self._states()
        for node, state in states.items():
            # A controller that was killed forgets its last seconds, and takes the nodes out where it
            # meets jobs that it does not know ("Duplicate jobid").
            if state.startswith(("drain", "down")):
                with contextlib.suppress(subprocess.SubprocessError):
                    self.call("scontrol", "update", f"NodeName={node}", "State=RESUME")
        return bool(states) and set(states.values()) <= {"idle", "mixed", "allocated"}

    def _states(self) -> dict[str, str]:
        try:
            rows = self.call("sinfo", "-h", "-N", "-o", "%N %T", timeout=5).splitlines()
        except subprocess.SubprocessError:
            return {}
        return dict(row.split() for row in rows)
