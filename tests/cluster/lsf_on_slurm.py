#!/usr/bin/env python3
"""The few commands of LSF that Snakemake's plugin and dask-jobqueue call, spoken to SLURM.

A stand-in: jobs are really queued, limited and killed, by SLURM; what a real LSF's queues, units, esub
scripts and clean-up do it cannot show. Unknown options are refused, so that no test passes because one
was dropped. Linked into a folder on PATH as bsub, bjobs, bkill, badmin, lsclusters and bhist.
"""

from __future__ import annotations

import math
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

STATES = {
    "PENDING": "PEND",
    "RUNNING": "RUN",
    "COMPLETING": "RUN",
    "CONFIGURING": "RUN",
    "SUSPENDED": "SSUSP",
    "COMPLETED": "DONE",
}
VALUED = {"-J", "-o", "-e", "-q", "-P", "-W", "-n", "-M", "-R", "-cwd", "-env", "-gpu"}


def fail(text: str) -> NoReturn:
    """Leave as LSF's commands do."""
    sys.exit(text)


def parse(words: list[str]) -> tuple[list[tuple[str, str]], list[str]]:
    """Options with their values, and the rest."""
    options: list[tuple[str, str]] = []
    rest = list(words)
    while rest and rest[0].startswith("-"):
        option = rest.pop(0)
        if option not in VALUED:
            fail(f"{option}: Illegal option.")
        options.append((option, rest.pop(0)))
    return options, rest


def minutes(limit: str) -> int:
    """`hours:minutes` or minutes."""
    *hours, rest = limit.split(":")
    return int(hours[0] if hours else 0) * 60 + int(rest)


def bsub(words: list[str]) -> None:
    options, command = parse(words)
    body = " ".join(command)
    if not command:
        body = sys.stdin.read()
        inside = [parse(shlex.split(t))[0] for t in re.findall(r"^#BSUB\s+(.*)", body, re.M)]
        options = [*(o for found in inside for o in found), *options]
        body = body.replace("#BSUB", "# BSUB")  # sbatch reads these lines, too
    given = {o: v for o, v in options if o != "-R"}
    slots = int(given.pop("-n", "1"))
    call = ["sbatch", "--parsable", "--no-requeue", "--ntasks=1", f"--cpus-per-task={slots}"]
    call += [f"--partition={given.pop('-q', 'cpu')}"]
    if "-M" in given:
        call += [f"--mem={math.ceil(float(given.pop('-M')))}"]
    for option, value in options:
        if option != "-R" or value == "span[hosts=1]":
            continue
        memory = re.fullmatch(r"rusage\[mem=([\d.]+)\]", value)
        if not memory:
            fail(f"-R {value}: unknown to the stand-in")
        if not any(part.startswith("--mem=") for part in call):
            call += [f"--mem-per-cpu={math.ceil(float(memory[1]))}"]
    for option, value in given.items():
        match option, value:
            case "-J", _:
                call += [f"--job-name={value}"]
            case "-o", _:
                call += [f"--output={value.replace('%J', '%j')}"]
            case "-e", _:
                call += [f"--error={value.replace('%J', '%j')}"]
            case "-W", _:
                call += [f"--time={minutes(value)}"]
            case "-cwd", _:
                call += [f"--chdir={value}"]
            case "-gpu", _ if number := re.match(r"num=(\d+)", value):
                call += [f"--gres=gpu:{number[1]}"]
            case ("-P", _) | ("-env", "all"):
                pass
            case _:
                fail(f"{option} {value}: unknown to the stand-in")
    script = f"#!/bin/bash\nexport LSB_JOBID=$SLURM_JOB_ID LSB_DJOB_NUMPROC={slots}\n{body}\n"
    keep = {
        k: v
        for k, v in os.environ.items()
        if k == "SLURM_CONF" or not k.startswith(("SLURM_", "SBATCH_", "SRUN_"))
    }
    done = subprocess.run(call, input=script, capture_output=True, text=True, env=keep)
    if done.returncode:
        fail(f"{done.stderr.strip()}\nRequest aborted by esub. Job not submitted.")
    print(f"Job <{done.stdout.strip()}> is submitted to queue.")


def bjobs(words: list[str]) -> None:
    heading, finished, name, ids = True, False, "*", []
    rest = list(words)
    while rest:
        match rest.pop(0):
            case "-noheader":
                heading = False
            case "-o":
                rest.pop(0)
            case "-aJ":
                finished, name = True, rest.pop(0)
            case "-J":
                name = rest.pop(0)
            case word if word.startswith("-"):
                fail(f"{word}: Illegal option.")
            case word:
                ids.append(word)
    states = ["-t", "all"] if finished or ids else []
    listed = subprocess.run(
        ["squeue", "-h", *states, "-o", "%A|%T|%j"], capture_output=True, text=True
    )
    if listed.returncode:
        fail("LSF is down. Please wait ...")
    pattern = re.escape(name).replace(r"\*", ".*")
    rows = [line.split("|") for line in listed.stdout.splitlines()]
    rows = [r for r in rows if re.fullmatch(pattern, r[2]) and (not ids or r[0] in ids)]
    if not rows:
        fail(f"Job <{name}> is not found")
    if heading:
        print("JOBID STAT")
    for job, state, _ in rows:
        print(job, STATES.get(state, "EXIT"))


def bkill(words: list[str]) -> None:
    for job in words:
        if subprocess.run(["scancel", job], capture_output=True).returncode:
            fail(f"Job <{job}>: No matching job found")
        print(f"Job <{job}> is being terminated")


def badmin(_: list[str]) -> None:
    home = os.environ["LSF_ENVDIR"]
    print("MBD configuration at now")
    print(f"  LSF_CONFDIR = {home}\n  LSB_SHAREDIR = {home}/work\n  LSF_UNIT_FOR_LIMITS = MB")


def lsclusters(_: list[str]) -> None:
    print("CLUSTER_NAME STATUS MASTER_HOST ADMIN HOSTS SERVERS\ntest ok localhost root 1 1")


def bhist(_: list[str]) -> None:
    fail("No matching job found")


COMMANDS: dict[str, Callable[[list[str]], None]] = {
    f.__name__: f for f in (bsub, bjobs, bkill, badmin, lsclusters, bhist)
}


def install(folder: Path) -> dict[str, str]:
    """Put the commands and LSF's files into `folder`; the environment that uses them."""
    (folder / "bin").mkdir(parents=True)
    me = Path(__file__).resolve()
    for name in COMMANDS:
        path = folder / "bin" / name
        start = f"import sys; sys.path[0] = {str(me.parent)!r}; import lsf_on_slurm as l"
        path.write_text(f"#!{sys.executable}\n{start}; l.{name}(sys.argv[1:])\n")
        path.chmod(0o755)
    queues = folder / "lsbatch" / "test" / "configdir"
    queues.mkdir(parents=True)
    (queues / "lsb.params").write_text("Begin Parameters\nDEFAULT_QUEUE = cpu\nEnd Parameters\n")
    (folder / "lsf.conf").write_text("LSF_UNIT_FOR_LIMITS=MB\n")
    return {"PATH": f"{folder / 'bin'}:{os.environ['PATH']}", "LSF_ENVDIR": str(folder)}
