"""Small models that have the form of real ones."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from seeded import seeded_state

from volsam.models import sam
from volsam.models.unetr import UNETR

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def small_vit() -> sam.VitArchitecture:
    """A vit_b in miniature: 4 x 4 tokens."""
    return sam.VitArchitecture("vit_b", 32, 2, 2, (1,), image_size=64)


@pytest.fixture
def small_vit_b(small_vit: sam.VitArchitecture, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the miniature what the keys of a vit_b stand for."""
    monkeypatch.setattr(sam, "VIT_B", small_vit)


@pytest.fixture(scope="session")
def combined(small_vit: sam.VitArchitecture, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A combined export of micro-sam's form with a miniature SAM and a whole decoder."""
    torch.manual_seed(0)
    whole = sam.build_sam(small_vit.encoder(), small_vit.image_size)
    path = tmp_path_factory.mktemp("weights") / "combined.pt"
    decoder = seeded_state(UNETR())
    torch.save({"model_state": seeded_state(whole), "decoder_state": decoder}, path)
    return path
