"""Run benchmarks and print their tables: ``python -m benchmarks.run [--out FOLDER] [NAME ...]``."""

from __future__ import annotations

import argparse
import importlib
import sys
import tempfile
from pathlib import Path

from benchmarks.common import Unavailable

BENCHMARKS = (
    *("against_micro_sam", "merging", "stitching", "network", "tiles"),
    *("replay", "scaling", "coordination", "training", "prompt_parts", "few_shot", "loop"),
    "linking",
    *("linking_scale", "linking_wide", "tracking"),
)


def main() -> int:
    """Run what is asked for; a benchmark that cannot run here says why."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="keep working files and tables here")
    parser.add_argument("names", nargs="*", default=BENCHMARKS, metavar="NAME")
    arguments = parser.parse_args()
    root = arguments.out or Path(tempfile.mkdtemp(prefix="volsam-bench-"))
    skipped = []
    for name in arguments.names:
        folder = root / name
        folder.mkdir(parents=True, exist_ok=True)
        module = importlib.import_module(f"benchmarks.{name}")
        title = (module.__doc__ or "").splitlines()[0]
        print(f"\n## {name}\n\n{title}\n", flush=True)
        try:
            text = module.main(folder)
            (folder / "table.md").write_text(text + "\n")
        except Unavailable as reason:
            text = f"skipped: {reason}"
            skipped.append(name)
        print(text, flush=True)
    if skipped:
        print(f"\nNot measured, for the reasons above: {', '.join(skipped)}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
