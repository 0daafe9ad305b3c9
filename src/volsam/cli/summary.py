"""`volsam summary`: where the results are, what they score, how to look at them."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from pathlib import Path

from volsam.config import Config
from volsam.errors import VolsamError
from volsam.paths import SamplePaths


def print_summary(config: Config) -> None:
    """Print a few lines per sample.

    Raises
    ------
    VolsamError
        If a sample is not finished.
    """
    command = _command()
    for sample in config.samples:
        paths = SamplePaths(config.results, sample)
        try:
            outputs = json.loads(paths.marker("label").read_text(encoding="utf-8"))["outputs"]
        except (OSError, ValueError, KeyError):
            raise VolsamError(f"Sample {sample} is not finished; run snakemake first.") from None
        print(f"\n{sample}: {outputs['objects']} objects")
        print(f"  labels   {Path(outputs['store']) / outputs['labels']}")
        print(f"  objects  {paths.objects}")
        print(f"  report   {paths.report}")
        if paths.metrics.is_file():
            metrics = json.loads(paths.metrics.read_text(encoding="utf-8"))
            print(
                f"  score    SA50 {metrics['SA50']:.3f}, mSA {metrics['mSA']:.3f} against the truth"
            )
            if baseline := metrics.get("baseline"):
                name = baseline.get("name", "classical baseline")
                print(f"           SA50 {baseline['SA50']:.3f}, mSA {baseline['mSA']:.3f}: {name}")
        print(f"  view     {command} view {shlex.quote(str(paths.folder))}   # after: make viewer")


def _command() -> str:
    """`volsam` as the shell that called can find it, also if no environment is active."""
    script = Path(sys.executable).with_name("volsam")
    return shlex.quote(str(script)) if not shutil.which("volsam") and script.is_file() else "volsam"
