"""`volsam clean`: remove what a finished run no longer needs.

The markers of the removed stages go too, so that a later change which needs them makes them again;
Snakemake does not rerun anything merely because they are gone.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from volsam.blocks.lease import lease
from volsam.blocks.ledger import record_path
from volsam.config import Config
from volsam.paths import SamplePaths

# Stages whose output is read by later stages only.
INTERMEDIATE = ("encode", "segment", "overlap", "partition")


def clean_sample(config: Config, sample: str) -> int:
    """Remove the intermediates of a sample.

    Returns
    -------
    int
        Bytes freed.
    """
    paths = SamplePaths(config.results, sample)
    if not paths.work.is_dir():
        return 0
    with lease(paths.work / "lease.json", f"clean of sample {sample}", wait=0):
        # First what says that a stage is done: a kill on the way must not leave a false claim.
        doomed = [paths.marker(stage) for stage in INTERMEDIATE]
        doomed += [record_path(paths, stage) for stage in INTERMEDIATE]
        doomed += [paths.ledger(stage) for stage in INTERMEDIATE]
        doomed += [paths.tables(stage) for stage in INTERMEDIATE]
        doomed += [paths.embeddings, paths.fragments, paths.fragment_table]
        doomed += [paths.offsets, paths.lookup]
        freed = sum(_bytes(path) for path in doomed)
        for path in doomed:
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
    return freed


def _bytes(path: Path) -> int:
    if path.is_dir():
        return sum(child.stat().st_size for child in path.rglob("*") if child.is_file())
    return path.stat().st_size if path.exists() else 0
