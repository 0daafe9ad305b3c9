"""The suite with a small model that has all parts, and with one that sees the truth."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import ndimage as ndi
from torch import Tensor, nn
from torch.nn import functional as F

from volsam.errors import VolsamError
from volsam.evaluate.suite import Pair, evaluate_model, predict_image
from volsam.models import Model
from volsam.models.sam import build_sam, normalise
from volsam.models.tiny_vit import TinyViT
from volsam.models.unetr import UNETR

SIDE = 32


class Seer:
    """Bright discs are objects: its maps are the distances within the bright regions."""

    name, hash, image_size, device, sam = "seer", "0", 64, torch.device("cpu"), None
    ais = {"min_size": 3, "foreground_smoothing": 0.0}  # noqa: RUF012

    def embed(self, images: Tensor) -> Tensor:
        pad = (0, self.image_size - images.shape[-1], 0, self.image_size - images.shape[-2])
        return F.pad(images[:, :1], pad)

    def decode(self, embeddings: Tensor) -> Tensor:
        bright = embeddings[:, 0].numpy() > 127
        inside = np.stack([ndi.distance_transform_edt(b) for b in bright])
        distance = 1 - np.clip(inside / 6, 0, 1)
        return torch.from_numpy(np.stack([bright, distance, distance], axis=1)).float()


def pair(name: str, height: int = 60, width: int = 50, seed: int = 0, n: int = 6) -> Pair:
    rng = np.random.default_rng(seed)
    labels = np.zeros((height, width), np.int32)
    y, x = np.mgrid[:height, :width]
    for number in range(1, n + 1):
        a, b = rng.integers(7, [height - 7, width - 7])
        disc = (y - a) ** 2 + (x - b) ** 2 <= 25
        if not labels[ndi.binary_dilation(disc, iterations=3)].any():
            labels[disc] = number
    return Pair(name, (labels > 0).astype(np.float32), labels)


@pytest.fixture
def small(seeded: Callable[[nn.Module], nn.Module]) -> Any:
    encoder = seeded(
        TinyViT(
            image_size=SIDE,
            embed_dims=(8, 16),
            depths=(1, 1),
            num_heads=(1, 2),
            window_sizes=(4, 4),
            stage_strides=(1,),
            neck_channels=16,
        )
    )
    side = cast(Any, encoder).embedding_shape[-1]
    unetr = seeded(UNETR(embed_dim=16, features=(8, 4), norm="batch"))
    return SimpleNamespace(
        name="small",
        hash="1",
        image_size=SIDE,
        ais={},
        device=torch.device("cpu"),
        sam=seeded(build_sam(encoder, SIDE, width=16, side=side, heads=2, mlp_width=32)),
        embed=lambda images: encoder(normalise(images, SIDE)),
        decode=unetr,
    )


def run(model: Any, images: list[Pair], **options: Any) -> dict[str, Any]:
    settings = {"interactive": False, "grid": False, "neurites": False, "seed": 0} | options
    result = evaluate_model(cast(Model, model), images, **settings)
    assert json.loads(json.dumps(result)) == result
    return result


def test_automatic_scores_of_the_truth() -> None:
    images = [pair("a"), pair("large", 130, 170, 1, 30)]
    result = run(Seer(), images, neurites=True)
    rows = result["automatic"]["per_image"]
    assert [row["name"] for row in rows] == ["a", "large"]
    assert result["automatic"]["mean"] == dict.fromkeys(
        ("mSA", "SA50", "SA75", "precision", "recall"), 1
    )
    assert result["automatic"]["deviation"]["mSA"] == 0
    assert result["automatic"]["parameters"]["min_size"] == 3
    assert rows[1]["objects"] == rows[1]["truth_objects"] == np.unique(images[1].labels).size - 1
    assert result["neurites"]["mean"]["vi"] == result["neurites"]["mean"]["rand_error"] == 0


def test_means_count_images_once() -> None:
    good, bad = pair("good"), pair("bad", seed=1)
    bad = Pair("bad", 1 - bad.image, bad.labels)
    result = run(Seer(), [good, bad])["automatic"]
    scores = [row["mSA"] for row in result["per_image"]]
    assert scores[0] == 1 > scores[1]
    assert result["mean"]["mSA"] == pytest.approx(np.mean(scores))
    assert result["deviation"]["mSA"] == pytest.approx(np.std(scores, ddof=1))


def test_ignored_pixels_do_not_count() -> None:
    whole = pair("a")
    half = np.where(np.arange(50) < 25, whole.labels, 0)
    ignore = np.broadcast_to(np.arange(50) >= 25, half.shape)
    sparse = Pair("a", whole.image, half, ignore)
    assert run(Seer(), [sparse])["automatic"]["mean"]["mSA"] == 1
    without = Pair("a", whole.image, half)
    assert run(Seer(), [without])["automatic"]["mean"]["mSA"] < 1


@pytest.mark.parametrize("shape", [(64, 64), (20, 63), (64, 65), (150, 90)])
@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_maps_lie_where_the_image_does(shape: tuple[int, int], scale: float) -> None:
    class Echo(Seer):
        def decode(self, embeddings: Tensor) -> Tensor:
            return (embeddings / 255).expand(-1, 3, -1, -1)

    y, x = np.mgrid[: shape[0], : shape[1]]
    image = (0.5 + 0.4 * np.sin(y / 20) * np.cos(x / 25)).astype(np.float32)
    maps = predict_image(cast(Model, Echo()), image, scale)
    assert maps.shape == (3, *shape)
    assert np.allclose(maps, image, atol=1e-6 if scale == 1 else 0.02)


def test_grid_on_the_tuning_images_sets_the_parameters(tmp_path: Path) -> None:
    class Wrong(Seer):
        ais = Seer.ais | {"center_threshold": 0.01}

    images, tuning = [pair("a")], [pair("b", seed=1)]
    own = run(Wrong(), images)["automatic"]["mean"]["mSA"]
    store = tmp_path / "grid.jsonl"
    tuned = run(Wrong(), images, grid=True, tuning=tuning, store=store)
    assert tuned["automatic"]["mean"]["mSA"] > own
    assert tuned["grid"]["on"] == "tuning"
    assert tuned["automatic"]["parameters"] == pytest.approx(tuned["grid"]["best"])
    assert len(store.read_text().splitlines()) == len(tuned["grid"]["table"])
    honest = run(Wrong(), images, grid=True)
    assert honest["grid"]["on"] == "scored"
    assert honest["automatic"]["mean"]["mSA"] == own
    assert honest["grid"]["scores"]["mSA"] > own


def test_all_parts_of_a_small_model(small: Any) -> None:
    steps: list[tuple[str, int, int]] = []
    images = [pair("a", 30, 28), pair("b", 45, 40, 1)]
    options = {"interactive": True, "rounds": 2, "grid": True, "neurites": True}
    result = run(small, images, progress=lambda *step: steps.append(step), **options)
    curves = result["interactive"]["curves"]
    assert [(c["start"], c["with_mask"]) for c in curves] == [
        ("point", False),
        ("point", True),
        ("box", False),
        ("box", True),
    ]
    objects = sum(np.unique(p.labels).size - 1 for p in images)
    for curve in curves:
        assert curve["objects"] == objects
        for key in ("iou", "iou_deviation", "mSA", "SA50", "SA75", "precision", "recall"):
            assert len(curve[key]) == 3
            assert all(np.isfinite(curve[key]))
    assert {what for what, _, _ in steps} == {"predict", "search parameters", "interact"}
    again = run(small, images[::-1], **options)
    assert again["interactive"]["curves"][0]["iou"] == pytest.approx(curves[0]["iou"])


def test_interactive_alone_needs_no_decoder(small: Any) -> None:
    small.decode = None
    result = run(small, [pair("a", 30, 28)], interactive=True, rounds=1, automatic=False)
    assert "automatic" not in result
    assert len(result["interactive"]["curves"][0]["iou"]) == 2


def change(one: Pair, **fields: NDArray[Any]) -> list[Pair]:
    return [Pair(one.name, **{"image": one.image, "labels": one.labels} | fields)]


def test_refusals() -> None:
    one = pair("a")
    with pytest.raises(VolsamError, match="no image"):
        run(Seer(), [])
    with pytest.raises(VolsamError, match="'a' is given twice"):
        run(Seer(), [one], tuning=[one])
    with pytest.raises(VolsamError, match="bring them to one grid"):
        run(Seer(), change(one, labels=one.labels[1:]))
    with pytest.raises(VolsamError, match="NaN"):
        run(Seer(), change(one, image=np.full_like(one.image, np.nan)))
    with pytest.raises(VolsamError, match="no prompt encoder"):
        run(Seer(), [one], interactive=True)
