import sys
from pathlib import Path
from shlex import quote

from snakemake.exceptions import WorkflowError

from volsam.blocks.cluster.settings import locate
from volsam.config import validate
from volsam.dependence import evaluate_config, stage_config, train_config
from volsam.errors import VolsamError
from volsam.inputs import check_inputs, evaluation_inputs, fingerprints, training_inputs
from volsam.paths import EvaluationPaths, SamplePaths, trained_marker
from volsam.track.correction_table import corrects_objects

# Where to run comes from the profile, what to run from the configuration.
if "cluster" not in config and workflow.resource_settings.cores is None:
    # Snakemake's --config replaces the profile's: blocks would be computed within the drivers' jobs.
    raise WorkflowError(
        "Nothing says where blocks run: --config on the command line replaces the profile's own; "
        "add cluster=<site file> to it, e.g. cluster=profiles/slurm/cluster.yaml."
    )
CLUSTER = locate(config.get("cluster", "local"), Path(workflow.basedir).parent)
# Drivers of a batch system only feed workers, which are jobs of their own.
THREADS = workflow.cores if CLUSTER in ("local", "inline") else 1
# The command of the environment that runs Snakemake, whether it is activated or not.
shell.prefix(f"set -euo pipefail; export PATH={quote(str(Path(sys.executable).parent))}:$PATH; ")

try:
    CONFIG = validate({k: v for k, v in config.items() if k != "cluster"})
    SAMPLES = {name: CONFIG.of_sample(name) for name in CONFIG.samples}
    for sentence in check_inputs(CONFIG):
        print(sentence, file=sys.stderr)
except VolsamError as error:
    raise WorkflowError(str(error))


# What a training leaves for Snakemake.
TRAINED = str(trained_marker(CONFIG)) if CONFIG.train else ""
# What an evaluation of models leaves.
EVALUATED = str(EvaluationPaths(CONFIG.results, CONFIG.evaluate.name).marker)


wildcard_constraints:
    sample="|".join(SAMPLES) or "none",


def marker(stage):
    """Marker of a finished stage: the file that Snakemake sees."""
    return str(SamplePaths(CONFIG.results, "{sample}").marker(stage))


def log_of(stage):
    """Log of a stage."""
    return str(SamplePaths(CONFIG.results, "{sample}").work / "logs" / f"{stage}.log")


def settings(stage):
    """What the stage depends on, as text: a changed key reruns the stages that read it."""
    return lambda wildcards: stage_config(CONFIG, wildcards.sample, stage)


def handed(stage):
    """The same and what the stage refuses by: Snakemake compares no params made with `resources`."""
    return lambda wildcards, resources: stage_config(CONFIG, wildcards.sample, stage, limits=True)


def inputs(stage):
    """Fingerprints of the stage's inputs from outside: changed content reruns it."""

    def of(wildcards):
        try:
            return fingerprints(CONFIG, wildcards.sample, stage)
        except VolsamError as error:
            return str(error)  # its own job says so and fails; the other samples go on

    return of


def embeddings(wildcards):
    """The stage `encode` is asked for only where embeddings are to be kept."""
    if SAMPLES[wildcards.sample].compute.store_embeddings:
        return [marker("encode").format(sample=wildcards.sample)]
    return []


def objects(wildcards):
    """Objects come from the graph of fragments, or from labels that are there already."""
    chosen = SAMPLES[wildcards.sample].samples[wildcards.sample]
    known = chosen.segmentation or chosen.prompts
    return marker("number" if known else "partition").format(sample=wildcards.sample)


def corrected(wildcards):
    """Objects as they were found, or as a user merged and split them."""
    chosen = SAMPLES[wildcards.sample].samples[wildcards.sample]
    if corrects_objects(chosen.corrections):
        return marker("regroup").format(sample=wildcards.sample)
    return objects(wildcards)


def given(wildcards):
    """Labels that are there already are numbered; those of prompted objects are made first."""
    prompted = SAMPLES[wildcards.sample].samples[wildcards.sample].prompts
    return marker("propagate" if prompted else "plan").format(sample=wildcards.sample)


def trained(wildcards):
    """A model that learns from new annotations is trained before it is used."""
    chosen = SAMPLES[wildcards.sample]
    train = chosen.train
    if train and train.when == "new-annotations" and chosen.model == train.name:
        return [TRAINED]
    return []


def scores(wildcards):
    """The stage `evaluate` is asked for only where there is a truth."""
    if SAMPLES[wildcards.sample].samples[wildcards.sample].truth:
        return [marker("evaluate").format(sample=wildcards.sample)]
    return []


def lineages(wildcards):
    """Lineages are asked for only where the task is to track, scores where there is a truth."""
    if CONFIG.task != "track":
        return []
    chosen = SAMPLES[wildcards.sample].samples[wildcards.sample]
    stages = ["export", "compare"] if chosen.truth_tracks else ["export"]
    return [marker(stage).format(sample=wildcards.sample) for stage in stages]


def targets():
    """Reports of all samples, the trained model, or scores of models; all else leads to them."""
    if CONFIG.task == "train":
        return [TRAINED]
    if CONFIG.task == "evaluate":
        return [EVALUATED]
    return [marker("report").format(sample=name) for name in SAMPLES]
