"""A training checkpoint as micro-sam (torch_em) writes it is trained on here."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from volsam.errors import VolsamError
from volsam.models.sam import VitArchitecture, build_sam
from volsam.models.unetr import UNETR
from volsam.train import joint
from volsam.train.joint import Prompting, automatic_step, build, prompt_step
from volsam.train.targets import distance_targets

SMALL = VitArchitecture("small", 32, 2, 2, (1,), image_size=128)


@pytest.fixture
def checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """With prefixed keys, an optimiser's state and objects of Python, as in ``best.pt``."""
    monkeypatch.setattr(joint, "recognise", lambda state: SMALL)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        sam = build_sam(SMALL.encoder(), 128)
        decoder = UNETR(256)
    content = {
        "model_state": {f"sam.{key}": value for key, value in sam.state_dict().items()},
        "decoder_state": decoder.state_dict(),
        "optimizer_state": {"state": {}, "param_groups": []},
        "init": {"logger": SimpleNamespace(name="a class of somebody's")},
        "iteration": 10,
    }
    path = tmp_path / "best.pt"
    torch.save(content, path)
    return path


def test_goes_on_from_its_weights(checkpoint: Path) -> None:
    network = build(str(checkpoint), allow_pickle=True)
    stated = torch.load(checkpoint, weights_only=False)
    ours = network.state_dict()
    for key, value in stated["model_state"].items():
        name = key.removeprefix("sam.")
        if not name.startswith("pixel_"):
            assert torch.equal(ours[name], value), name
    for key, value in stated["decoder_state"].items():
        assert torch.equal(ours[f"decoder.{key}"], value), key
    truth = torch.zeros(1, 128, 128, dtype=torch.bool)
    truth[0, 20:60, 20:60] = True
    images = torch.rand(1, 3, 128, 128) * 255
    targets = torch.from_numpy(distance_targets(truth[0].numpy().astype(np.int32)))[None]
    rng = np.random.default_rng(0)
    prompt_step(network, images, [truth], False, Prompting(2), rng, lambda x: x.backward())
    known = torch.ones(1, 1, 128, 128)
    automatic_step(network, images, targets, known, False, lambda x: x.backward())
    for part in (network.image_encoder, network.mask_decoder, network.decoder):
        assert any(p.grad is not None and p.grad.any() for p in part.parameters())


def test_objects_in_it_are_refused_unless_allowed(checkpoint: Path) -> None:
    with pytest.raises(VolsamError, match="can run any code"):
        build(str(checkpoint))
