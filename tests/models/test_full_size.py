"""The two larger SAMs, at their full size and with random weights, against segment_anything's modules."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
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
    # In a process of its own, whose gigabytes end with it.
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        found = pool.submit(compare, architecture, tmp_path / "sam.pth").result()
    parameters, shape, takes_prompts, difference = found
    assert parameters == PARAMETERS[architecture.name]
    assert shape == (256, 64, 64)
    assert takes_prompts
    assert difference < 1e-4


def compare(
    architecture: VitArchitecture, path: Path
) -> tuple[int, tuple[int, int, int], bool, float]:
    """Parameters, embedding shape, whether it takes prompts; largest difference of an embedding."""
    torch.manual_seed(0)
    sam = build_sam(architecture.encoder(), architecture.image_size)
    parameters = sum(weights.numel() for weights in sam.parameters())
    images = 255 * torch.rand(1, 3, architecture.image_size, architecture.image_size)
    with torch.no_grad():
        expected = sam.image_encoder(normalise(images, architecture.image_size))
    torch.save(sam.state_dict(), path)
    del sam

    model = load_model(str(path), need_decoder=False)
    difference = float((model.embed(images) - expected).abs().max())
    return parameters, model.embedding_shape, model.sam is not None, difference
