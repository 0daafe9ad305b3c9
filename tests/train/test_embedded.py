"""The model in the repository is complete, small, and segments nuclei."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from volsam.config import load
from volsam.evaluate.metrics import segmentation_accuracy
from volsam.models import load_model
from volsam.segment.ais import AisParameters
from volsam.train.crops import crop
from volsam.train.data import Example, hold_out, load_dsb2018
from volsam.train.evaluate_embedded import EMBEDDED, model_segmenter
from volsam.train.joint import Prompting, build, prompt_step
from volsam.train.recipe import TrainRecipe
from volsam.train.synthetic import nuclei_slices


def test_files_are_complete_and_small() -> None:
    names = {path.name for path in EMBEDDED.iterdir()}
    assert {"weights.safetensors", "model.json", "card.md"} <= names
    count = sum(name.startswith("recipe-") for name in names)
    assert count == sum(name.startswith("training-log-") for name in names) == 11
    recipes = [f"recipe-{number}.yaml" for number in range(1, count + 1)]
    assert names.issuperset(recipes)
    assert (EMBEDDED / "weights.safetensors").stat().st_size <= 16e6
    description = json.loads((EMBEDDED / "model.json").read_text())
    AisParameters(**description["ais"])
    for name in recipes[:5]:  # of the first trainer
        recipe = TrainRecipe.from_file(EMBEDDED / name)
        assert description["encoder"] == recipe.encoder
        assert not Path(recipe.data_root).is_absolute()
    for name in recipes[5:]:  # of the training rule
        train = load(EMBEDDED / name).train
        assert train is not None
        assert all(data.licence in ("CC0-1.0", "BSD-3-Clause", "ours") for data in train.data)


def test_it_takes_prompts() -> None:
    image, truth = nuclei_slices(11, 1)[0]
    example = Example("one", image[:256, :256], truth[:256, :256])
    objects = crop(example.image, example.labels, 30)
    truths = objects.objects(20, np.random.default_rng(0))
    network = build("embedded").eval()
    found = [
        prompt_step(
            network, objects.image[None], [truths], box, Prompting(1), np.random.default_rng(0)
        )
        for box in (False, True)
    ]
    assert found[0]["dice"] < 0.4
    assert found[1]["dice"] < 0.25


def test_the_pipelines_model_predicts_what_the_trainers_does() -> None:
    image = np.clip(nuclei_slices(7, 1)[1][0], 0, 1)
    batch = torch.from_numpy(np.resize(image, (256, 256)) * np.float32(255)).expand(1, 3, -1, -1)
    network = build("embedded").eval()
    model = load_model("embedded")
    with torch.inference_mode():
        expected = network.maps(batch).sigmoid()
        maps = model.decode(model.embed(batch))
    torch.testing.assert_close(maps, expected, atol=1e-4, rtol=0)


def test_synthetic_nuclei_are_found() -> None:
    segment = model_segmenter(EMBEDDED)
    scores = [segmentation_accuracy(segment(i), t)["SA50"] for i, t in nuclei_slices(11, 2)]
    assert np.mean(scores) > 0.5


def test_validation_images_are_segmented(shared_data: Path) -> None:
    examples = [e for e in load_dsb2018(shared_data, "val") if e.image.shape == (256, 256)]
    _, chosen = hold_out(examples, 6)
    segment = model_segmenter(EMBEDDED)
    scores = [segmentation_accuracy(segment(e.image), e.labels)["SA50"] for e in chosen]
    assert np.mean(scores) > 0.7


@pytest.mark.slow
def test_the_card_holds_on_all_validation_images(shared_data: Path) -> None:
    segment = model_segmenter(EMBEDDED)
    scores = [
        segmentation_accuracy(segment(e.image), e.labels) for e in load_dsb2018(shared_data, "val")
    ]
    card = json.loads((EMBEDDED / "model.json").read_text())["validation"]
    for key in ("mSA", "SA50"):
        assert np.mean([s[key] for s in scores]) == pytest.approx(card[key], abs=0.005)
