"""Slice merging alone, array to array, on label slices of real EM: ours beside micro-sam's.

20 real slices of 2D neurite profiles, there and back again in z until the stack is as deep as each of
`DEPTHS`. Limits: time <= 0.5 x the peer's, memory flat from one depth to the next; our method
``micro-sam`` gives the peer's partition. Without a peer ours is measured alone. Zarr to Zarr counts
reading and writing too.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray

from benchmarks.common import REPOSITORY, Unavailable, data, peer, table

DEPTHS = (120, 240)  # multiples of there and back
OURS = (("micro-sam", "array"), ("volsam", "array"), ("volsam", "zarr"))


def main(folder: Path) -> str:
    """Measure, and return a table for each depth."""
    slices = tifffile.imread(data("em_vnc_sstem/neurites_2d_instances.tif")).astype(np.uint32)
    return "\n\n".join(_compare(_stack(slices, depth), folder) for depth in DEPTHS)


def same_partition(ours: NDArray[np.integer], theirs: NDArray[np.integer]) -> bool:
    """Whether two (z, y, x) label images are one up to renumbering, background for background."""
    if ours.shape != theirs.shape:
        return False
    for one, other in ((ours, theirs), (theirs, ours)):
        number = np.zeros(int(one.max(initial=0)) + 1, other.dtype)
        for a, b in zip(one, other, strict=True):
            number[a] = b  # the last one wins; that there were others shows below
        if number[0] or not all(
            np.array_equal(number[a], b) for a, b in zip(one, other, strict=True)
        ):
            return False
    return True


def _stack(slices: NDArray[np.uint32], depth: int) -> NDArray[np.uint32]:
    """The slices there and back again; an id occurs in one slice only."""
    there_and_back = np.concatenate([slices, slices[::-1]])
    labels = np.concatenate([there_and_back] * (depth // len(there_and_back)))
    step = int(slices.max()) + 1
    for z, plane in enumerate(labels):
        plane[plane > 0] += z * step
    return labels


def _compare(labels: NDArray[np.uint32], folder: Path) -> str:
    import zarr

    depth, plane = len(labels), labels.shape[1:]
    path, merged = folder / f"slices_{depth}.npy", folder / f"peer_merged_{depth}.npy"
    np.save(path, labels)
    zarr.create_array(path.with_suffix(".in.zarr"), data=labels, chunks=(1, *plane), overwrite=True)
    script = str(REPOSITORY / "benchmarks" / "peer" / "merge_slices.py")
    rows = []
    theirs: dict[str, float] | None = None
    missing = ""
    try:
        theirs = _json([peer(), script, str(path), str(merged)])
        rows.append(("micro-sam", f"{theirs['cpu']:.2f}", "1.00", f"{theirs['growth_mb']:.0f}", ""))
    except Unavailable as reason:
        missing = f"\n\nNot compared with micro-sam: {reason}."
    for method, store in OURS:
        ours = _json([sys.executable, "-m", "benchmarks.merging", str(path), method, store])
        ratio = f"{ours['cpu'] / theirs['cpu']:.2f}" if theirs else ""
        same = ""
        if theirs and (method, store) == ("micro-sam", "array"):
            equal = same_partition(np.load(_result(path)), np.load(merged))
            same = "identical" if equal else "DIFFERENT"
        name = f"volsam, method {method}, {store}"
        rows.append((name, f"{ours['cpu']:.2f}", ratio, f"{ours['growth_mb']:.0f}", same))
    title = (
        f"{depth} slices of {plane} pixels, {labels.nbytes / 2**20:.0f} MiB "
        f"(20 real ones, mirrored {depth // 20}-fold).\n\n"
    )
    header = ("", "CPU s", "ratio", "memory growth, MiB", "partition against micro-sam's")
    return title + table(header, rows) + missing


def _peak_mb() -> float:
    """Largest memory of this process; what `resource` says includes that of the one it came from."""
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(s.split()[1]) / 1024 for s in status if s.startswith("VmHWM"))


def _result(path: Path) -> Path:
    return path.with_suffix(".merged.npy")


def _json(command: list[str]) -> dict[str, float]:
    output = subprocess.run(command, check=True, capture_output=True, text=True, cwd=REPOSITORY)
    result: dict[str, float] = json.loads(output.stdout.splitlines()[-1])
    return result


def _merge(path: Path, method: str, store: str) -> dict[str, float]:
    """One of our merges, in a process of its own."""
    import zarr

    from volsam.stitch.slices import merge_slices

    if store == "zarr":  # the stack is never in memory as a whole
        source = zarr.open_array(path.with_suffix(".in.zarr"), mode="r")
        out = zarr.create_array(
            path.with_suffix(".out.zarr"),
            shape=source.shape,
            dtype="u8",
            chunks=source.chunks,
            overwrite=True,
        )
    else:
        source = np.load(path)
        out = np.zeros(source.shape, np.uint64)
        out.fill(
            1
        )  # the pages of the result are not the merge's to pay for, as little as the input's
    before = _peak_mb()
    started = time.process_time()
    merge_slices(source, out, method=method)  # type: ignore[arg-type]
    seconds = time.process_time() - started
    growth = _peak_mb() - before
    if (method, store) == ("micro-sam", "array"):
        np.save(_result(path), out)
    return {"cpu": seconds, "growth_mb": growth}


if __name__ == "__main__":
    print(json.dumps(_merge(Path(sys.argv[1]), sys.argv[2], sys.argv[3])))
