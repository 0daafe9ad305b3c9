"""A tiny run on made-up data: it learns, repeats itself and leaves complete files."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from safetensors.torch import load_file
from tiny import DECODER, ENCODER

from volsam.errors import VolsamError
from volsam.train.augment import degrade, random_crop
from volsam.train.data import CropDataset, Example, hold_out, load_dsb2018, normalise
from volsam.train.duplicates import likeness_to_part, near_duplicates
from volsam.train.loss import ais_loss
from volsam.train.network import AisNetwork
from volsam.train.predict import predict_maps
from volsam.train.recipe import TrainRecipe
from volsam.train.synthetic import nuclei_slices, nuclei_volume
from volsam.train.targets import distance_targets
from volsam.train.trainer import calibrate, one_cycle, train
from volsam.train.tune import mean_scores, tune_ais


@pytest.fixture
def data_root(tmp_path: Path) -> Path:
    """A folder in the form of the real DSB2018, with made-up images."""
    folder = tmp_path / "data" / "dsb2018"
    (folder / "images").mkdir(parents=True)
    (folder / "labels").mkdir()
    rows = []
    for number, (image, labels) in enumerate(nuclei_slices(0, 1)):
        tifffile.imwrite(folder / "images" / f"{number}.tif", (image * 200).astype(np.uint16))
        tifffile.imwrite(folder / "labels" / f"{number}.tif", labels.astype(np.uint16))
        split = "val" if number == 0 else "train"
        rows.append([str(number), "fluorescence_small_nuclei", *image.shape, split])
    rows.append(["absent", "fluorescence_small_nuclei", 64, 64, "train"])
    rows.append(["0", "histology_purple_on_pinkpurple", 64, 64, "train"])
    with (folder / "dsb2018.csv").open("w") as file:
        csv.writer(file).writerows([["id", "modality", "height", "width", "split"], *rows])
    return folder.parent


@pytest.fixture
def recipe(data_root: Path) -> TrainRecipe:
    return TrainRecipe.model_validate(
        {
            "seed": 3,
            "threads": 1,
            "workers": 0,
            "precision": "fp32",
            "data_root": str(data_root),
            "encoder": ENCODER,
            "decoder": DECODER,
            "data": {
                "crop": 64,
                "stardist": 0,
                "synthetic_volumes": 1,
                "tuning_images": 1,
                "margin": 8,
            },
            "optimiser": {"steps": 6, "batch": 2, "ema": 0.5},
        }
    )


def example(name: str, seed: int) -> Example:
    image, labels = nuclei_volume(np.random.default_rng(seed), (3, 96, 80))
    return Example(name, normalise(image[1]), labels[1])


def test_a_run_is_repeatable_and_leaves_its_files(recipe: TrainRecipe, tmp_path: Path) -> None:
    first = load_file(train(recipe, tmp_path / "a", report=lambda line: None))
    second = load_file(train(recipe, tmp_path / "b", report=lambda line: None))
    assert set(first) == set(AisNetwork(ENCODER, DECODER).state_dict())
    assert all(key.startswith(("image_encoder.", "decoder.")) for key in first)
    for key, value in first.items():
        torch.testing.assert_close(value, second[key], rtol=0, atol=0)
    assert TrainRecipe.from_file(tmp_path / "a" / "recipe.yaml") == recipe
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == [
        "recipe.yaml",
        "training-log.csv",
        "weights.safetensors",
    ]


def test_loss_falls_on_one_image_and_is_smallest_for_the_truth() -> None:
    torch.manual_seed(0)
    one = example("one", 1)
    targets = torch.from_numpy(distance_targets(one.labels[:64, :64]))[None]
    image = torch.from_numpy(np.clip(one.image[:64, :64], 0, 1) * 255).expand(1, 3, -1, -1)
    network = AisNetwork(ENCODER, DECODER)
    optimiser = torch.optim.AdamW(network.parameters(), 5e-3)
    losses = []
    for _ in range(25):
        loss = ais_loss(network(image), targets)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.8 * losses[0]
    assert float(ais_loss(torch.logit(targets, 1e-6), targets)) < 0.01


def test_crops_depend_on_seed_and_index_only(recipe: TrainRecipe) -> None:
    groups = [(1.0, [example("a", 1), example("b", 2)])]
    crops = CropDataset(groups, recipe.data, 10, seed=5)
    again = CropDataset(groups, recipe.data, 10, seed=5)
    for index in (3, 0):
        image, targets = crops[index]
        assert image.shape == targets.shape == (3, 64, 64)
        assert 0 <= float(image.min()) <= float(image.max()) <= 255
        torch.testing.assert_close(image, again[index][0], rtol=0, atol=0)
    assert not torch.equal(crops[0][0], crops[1][0])


def test_geometry_moves_image_and_instances_alike() -> None:
    labels = np.zeros((80, 80), np.int32)
    labels[30:50, 25:40] = 4
    rng = np.random.default_rng(0)
    for _ in range(20):
        image, truth = random_crop(labels / np.float32(4), labels, 64, 20.0, rng)
        assert set(np.unique(truth)) <= {0, 4}
        assert ((image > 0.5) == (truth > 0)).mean() > 0.97
    assert degrade(image.astype(np.float32), truth, rng).max() <= 1


def test_calibration_sets_the_statistics_of_the_batches() -> None:
    norm = torch.nn.BatchNorm2d(2)
    batch = torch.randn(8, 2, 16, 16) * 3 + 5
    calibrate(norm, [batch])
    torch.testing.assert_close(norm.running_mean, batch.mean((0, 2, 3)))
    assert norm.momentum == 0.1
    assert not norm.training


def test_learning_rate_rises_and_falls() -> None:
    rates = [one_cycle(p, 0.1) for p in np.linspace(0, 1, 101)]
    assert max(rates) == pytest.approx(1.0)
    assert int(np.argmax(rates)) == 10
    assert rates[-1] == pytest.approx(0, abs=1e-9)


def test_duplicates_are_found_in_any_orientation() -> None:
    references = [example(str(seed), seed) for seed in range(4)]
    turned = Example("turned", references[2].image[:, ::-1].T, references[2].labels[:, ::-1].T)
    assert near_duplicates([turned, example("new", 9)], references) == {"turned": "2"}


def test_tuning_recovers_perfect_maps_and_prediction_keeps_the_shape() -> None:
    truths = [example("a", seed).labels for seed in (1, 2)]
    maps = [distance_targets(truth) for truth in truths]
    _, scores = tune_ais(maps, truths, rounds=1)
    assert scores["SA50"] > 0.8
    assert mean_scores(truths, truths) == {"mSA": 1.0, "SA50": 1.0, "SA75": 1.0}
    network = AisNetwork(ENCODER, DECODER)
    assert predict_maps(network, example("a", 1).image).shape == (3, 96, 80)


def test_data_are_split_and_named(data_root: Path) -> None:
    examples = load_dsb2018(data_root, "train")
    assert {e.name for e in examples}.isdisjoint({"0", "absent"})
    kept, held = hold_out(examples, 1)
    assert len(held) == 1
    assert held[0] not in kept
    with pytest.raises(VolsamError, match="data_root"):
        load_dsb2018(data_root / "nowhere", "train")


def test_a_turned_piece_of_a_larger_image_is_found() -> None:
    large = example("large", 0).image
    large = np.kron(large, np.ones((2, 2))) * np.linspace(0.5, 1, 2 * large.shape[1])
    piece = np.rot90(large[20:84, 12:76])
    assert likeness_to_part(large, piece) > 0.99
    other = np.random.default_rng(1).random(piece.shape)
    assert likeness_to_part(large, other) < 0.7
