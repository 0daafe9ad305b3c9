"""`volsam evaluate`: the command of the evaluation rule."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from volsam.config import Config
from volsam.paths import EvaluationPaths, write_json


def evaluate(config: Config, marker: Path | None, threads: int) -> None:
    """Evaluate models as the section `evaluate` says, and print their scores.

    Parameters
    ----------
    config : Config
        What to evaluate.
    marker : Path, optional
        File that tells Snakemake what came of it.
    threads : int
        CPU threads.
    """
    from volsam.evaluate.figures import table_markdown
    from volsam.evaluate.run import evaluate_models
    from volsam.models.registry import file_hash

    started = time.monotonic()

    def say(text: str) -> None:
        print(f"evaluate {time.monotonic() - started:.0f} s: {text}", file=sys.stderr, flush=True)

    scores = evaluate_models(config, threads=threads, say=say)
    print(table_markdown(scores["models"]), end="")
    if marker is not None:
        paths = EvaluationPaths(config.results, config.evaluate.name)
        outcome = {name: model["automatic"]["mean"] for name, model in scores["models"].items()}
        write_json(marker, {"scores": file_hash(paths.scores), "models": outcome})
