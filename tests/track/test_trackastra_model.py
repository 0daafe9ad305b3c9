"""Folders of models of trackastra: what is refused without the package, and a small network with it."""

from __future__ import annotations

import importlib.util
import logging
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from volsam.config import validate
from volsam.demo.colony import NUCLEI, grow
from volsam.errors import VolsamError
from volsam.inputs import check_inputs
from volsam.track import trackastra_model
from volsam.track.associate import Descriptions, associate
from volsam.track.observe import Frame

NETWORK = {"coord_dim": 2, "feat_dim": 7, "window": 4, "spatial_pos_cutoff": 60}
SMALL = {"d_model": 32, "nhead": 2, "num_encoder_layers": 1, "num_decoder_layers": 1,
         "pos_embed_per_dim": 8, "feat_embed_per_dim": 4}  # fmt: skip


def write_folder(folder: Path, training: Any = None, **config: Any) -> Path:
    """The files of a model, its weights an empty file."""
    folder.mkdir(exist_ok=True)
    settings = ({**NETWORK, **SMALL, **config}, training or {"features": "wrfeat"})
    for name, content in zip(trackastra_model.FILES, settings, strict=False):
        (folder / name).write_text(yaml.safe_dump(content))
    (folder / "model.pt").touch()
    return folder


def write_model(folder: Path, **config: Any) -> Path:
    """A model with random weights."""
    torch = pytest.importorskip("torch")
    reason = "the optional package trackastra is not installed"
    network = pytest.importorskip("trackastra.model", reason=reason).TrackingTransformer
    write_folder(folder, **config)
    torch.manual_seed(0)
    network(**{**NETWORK, **SMALL, **config}).save(folder)
    return folder


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the package were there."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)


def test_a_missing_package_is_told_when_inputs_are_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "i.tif").touch()
    folder = write_folder(tmp_path / "m")
    data: dict[str, Any] = {
        "task": "track",
        "track": {"associations": str(folder)},
        "samples": {"a": {"image": str(tmp_path / "i.tif")}},
    }
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(VolsamError, match=r"pip install 'volsam\[trackastra\]'"):
        check_inputs(validate(data))
    assert check_inputs(validate({**data, "task": "segment"})) == []
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    assert check_inputs(validate(data)) == []
    (folder / "model.pt").unlink()
    with pytest.raises(VolsamError, match=r"has no model\.pt"):
        check_inputs(validate(data))


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"training": {"features": "pretrained_feats"}}, "describes objects by 'pretrained_feats'"),
        ({"pretrained_feat_dim": 64}, "which volsam cannot do"),
        ({"feat_dim": 3}, "contradict its features"),
        ({"coord_dim": 3}, "contradict its features"),
        ({"window": 1}, "no window of at least 2"),
        ({"spatial_pos_cutoff": None}, "no spatial_pos_cutoff|or no"),
    ],
)
def test_other_models_are_refused(tmp_path: Path, change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(VolsamError, match=sentence):
        trackastra_model.check(write_folder(tmp_path / "m", **change))
    assert trackastra_model.check(write_folder(tmp_path / "m"))["window"] == 4


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("text", ["!!python/object/apply:os.getcwd []", "[1, 2]", "a: [", "\xff"])
def test_settings_are_plain(tmp_path: Path, text: str) -> None:
    folder = write_folder(tmp_path / "m")
    (folder / "config.yaml").write_text(text, encoding="latin-1")
    with pytest.raises(VolsamError, match=r"config\.yaml holds no plain settings"):
        trackastra_model.check(folder)


class Told:
    """Runs code when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("touched"),))


def test_weights_with_code_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_model(tmp_path / "m")
    monkeypatch.chdir(tmp_path)
    torch = pytest.importorskip("torch")
    torch.save({"state_dict": Told()}, folder / "model.pt")
    with pytest.raises(VolsamError, match="can run any code"):
        trackastra_model.load.__wrapped__(str(folder))
    assert not Path("touched").exists()
    (folder / "model.pt").write_bytes(pickle.dumps(Told()))
    with pytest.raises(VolsamError, match=r"model\.pt"):
        trackastra_model.load.__wrapped__(str(folder))
    assert not Path("touched").exists()
    torch.save({"one": torch.zeros(1)}, folder / "model.pt")
    with pytest.raises(VolsamError, match=r"does not fit its config\.yaml"):
        trackastra_model.load.__wrapped__(str(folder))
    write_folder(folder, unknown_key=1)
    with pytest.raises(VolsamError, match="another version of trackastra"):
        trackastra_model.load.__wrapped__(str(folder))


@pytest.mark.parametrize(("dimensions", "depth"), [(2, 1), (3, 1), (3, 4)])
def test_scores_are_those_of_trackastra(tmp_path: Path, dimensions: int, depth: int) -> None:
    """Of every window by itself; ours is their mean."""
    config = {"coord_dim": dimensions, "feat_dim": 7 if dimensions == 2 else 12}
    folder = write_model(tmp_path / "m", **config)
    handlers = logging.getLogger().handlers[:]
    model = trackastra_model.load.__wrapped__(str(folder))
    assert logging.getLogger().handlers == handlers
    grown = grow(NUCLEI, 6, (96, 96), 3)
    labels = np.repeat(np.asarray(grown.labels)[:, None], depth, axis=1)
    image = np.repeat(np.asarray(grown.image)[:, None], depth, axis=1)
    labels[:, :1, :8] = labels[2] = 0  # not the same in all slices; a frame without objects
    high = np.uint64(1 << 40)  # more than 32 bits hold
    ids = np.where(labels > 0, labels.astype(np.uint64) + high, np.uint64(0))
    described = Descriptions(lambda n: Frame(ids[n], image[n]), model)
    found = associate(described, range(6), range(6), model)

    from trackastra.model import Trackastra
    from trackastra.utils import normalize

    theirs = Trackastra(model._network, {"features": "wrfeat"}, device="cpu")
    planes = image[:, 0] if depth == 1 else image
    masks = (labels[:, 0] if depth == 1 else labels).astype(np.int32)
    scores: dict[tuple[int, int, int], list[float]] = {}
    for start in range(6 - 4 + 1):
        window = slice(start, start + 4)
        seen = theirs._predict(
            np.stack([normalize(frame) for frame in planes[window]]),
            masks[window],
            normalize_imgs=False,
            progbar_class=lambda things, **_: things,
        )
        for (one, other), score in seen["weights"]:
            node, later = seen["nodes"][one], seen["nodes"][other]
            scores.setdefault((start + node["time"], node["label"], later["label"]), []).append(
                score
            )
    expected = [np.mean(scores[key]) for key in sorted(scores)]
    assert len(expected) > 20
    pairs = [key[1:] for key in sorted(scores)]
    assert np.array_equal(np.stack([found["source"], found["target"]], 1) - high, pairs)
    assert np.allclose(found["score"], expected, atol=1e-6)
