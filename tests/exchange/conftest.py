"""Small models for packages."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "models"))  # seeded

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def embedded() -> Path:
    """Description of the embedded model."""
    from volsam.models.model import EMBEDDED

    return EMBEDDED / "model.json"


@pytest.fixture(scope="session")
def package(embedded: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded model as a package."""
    from volsam.exchange.bioimageio import export_package

    path = tmp_path_factory.mktemp("package") / "embedded.zip"
    return export_package(embedded, path, authors=["A. Uthor"])
