"""The two larger SAMs, at their full size and with random weights, against segment_anything's modules."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from volsam.models import load_model
from volsam.models.sam import VIT_H, VIT_L, VitArchitecture, build_sam, normalise

PARAMETERS = {"vit_l": 312_342_832, "vit_h": 641_090_608}


@pytest.mark.slow
@pytest.mark.parametrize("architecture", [VIT_L, VIT_H], ids=lambda a: a.name)
def test_a_checkpoint_loads_and_embeds_as_its_own_code(
    architecture: VitArchitecture, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    sam = build_sam(architecture.encoder(), architecture.image_size)
    assert sum(weights.numel() for weights in sam.parameters()) == PARAMETERS[architecture.name]
    images = 255 * torch.rand(1, 3, architecture.image_size, architecture.image_size)
    with torch.no_grad():
        expected = sam.image_encoder(normalise(images, architecture.image_size))
    torch.save(sam.state_dict(), tmp_path / "sam.pth")
    del sam

    model = load_model(str(tmp_path / "sam.pth"), need_decoder=False)
    assert model.embedding_shape == (256, 64, 64)
    assert (model.embed(images) - expected).abs().max() < 1e-4
    assert model.sam is not None
