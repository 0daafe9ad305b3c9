"""A parent small enough to train in a second, and images to learn from."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny


@pytest.fixture(scope="session")
def parent(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Path of a model with random weights and all parts."""
    return tiny.write_parent(tmp_path_factory.mktemp("parent"))


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with ``im/*.tif`` and ``lab/*.tif``."""
    folder = tmp_path_factory.mktemp("images")
    tiny.write_images(folder)
    return folder
