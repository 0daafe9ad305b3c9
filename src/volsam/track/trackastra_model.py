"""Models of trackastra (Gallusser and Weigert 2024), from folders of the user's.

The package is optional. It describes objects and has the network; windows and their mean are ours
(`associate`), so that a sequence need not fit in memory.

Invariants
----------
- Nothing is fetched, and nothing that a folder holds is run: settings are plain YAML, weights are read as
  weights only, whatever the package does by itself.
- `check` is cheap and says all that is wrong but for damaged weights; it imports neither torch nor
  trackastra.
- The network runs on the CPU in single precision: it is small, and scores do not depend on a device.
"""

from __future__ import annotations

import importlib.util
import logging
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import fastremap
import numpy as np
import yaml

from volsam.errors import VolsamError
from volsam.track.associate import Described, Singles
from volsam.track.lineage import Ints
from volsam.track.observe import Frame

FILES = ("config.yaml", "train_config.yaml", "model.pt")
"""What a folder holds: settings of the network and of its training, and weights."""
_FEATURES = {2: 7, 3: 12}  # how many numbers describe an object, by dimensions


def check(folder: str | Path) -> dict[str, Any]:
    """Settings of the network of a model.

    Raises
    ------
    VolsamError
        If trackastra is not installed, or the folder holds no model that can be used.
    """
    if importlib.util.find_spec("trackastra") is None:
        raise VolsamError(
            "Key track.associations needs the package trackastra; pip install 'volsam[trackastra]', or "
            "leave the key out."
        )
    folder = Path(folder)
    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing:
        raise VolsamError(
            f"The folder {folder} (track.associations) has no {missing[0]}; name the folder of a model "
            f"of trackastra, with {', '.join(FILES)}."
        )
    config, training = (_plain(folder / name) for name in FILES[:2])
    kind = training.get("features")
    if kind != "wrfeat" or "pretrained_feat_dim" in config:
        raise VolsamError(
            f"The model {folder} (track.associations) describes objects by {kind!r}, which volsam cannot "
            "do; use one that was trained with the features 'wrfeat', such as general_2d or ctc."
        )
    dimensions = config.get("coord_dim")
    if dimensions not in _FEATURES or config.get("feat_dim") != _FEATURES[dimensions]:
        raise VolsamError(
            f"The settings of the network in {folder / FILES[0]} contradict its features; get the model "
            "of trackastra again."
        )
    window, reach = config.get("window"), config.get("spatial_pos_cutoff")
    if not isinstance(window, int) or window < 2 or not isinstance(reach, int | float):
        raise VolsamError(
            f"The settings in {folder / FILES[0]} have no window of at least 2 frames or no "
            "spatial_pos_cutoff; get the model of trackastra again."
        )
    return config


def _plain(path: Path) -> dict[str, Any]:
    """Settings without objects of Python, which would be made while they are read."""
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        found = None
    if not isinstance(found, dict):
        raise VolsamError(
            f"The file {path} holds no plain settings of a model of trackastra; get the model again."
        )
    return found


@lru_cache(maxsize=1)
def load(folder: str, threads: int = 1) -> Trackastra:
    """The model of a folder, loaded once per worker process.

    Raises
    ------
    VolsamError
        If there is none, or it cannot be used.
    """
    config = check(folder)
    import torch

    with _quiet():
        from trackastra.model import TrackingTransformer

    torch.set_num_threads(threads)
    weights = Path(folder) / FILES[2]
    try:
        network = TrackingTransformer(**config)
    except (TypeError, ValueError, AssertionError):
        raise VolsamError(
            f"The installed trackastra has no network of the settings in {Path(folder) / FILES[0]}; the "
            "model is of another version of trackastra."
        ) from None
    try:
        state = torch.load(weights, map_location="cpu", weights_only=True)
        if "state_dict" in state:  # a checkpoint of its training
            prefix = "model."
            state = {
                key.removeprefix(prefix): value
                for key, value in state["state_dict"].items()
                if key.startswith(prefix)
            }
        network.load_state_dict(state)
    except MemoryError:
        raise
    except Exception as error:  # torch raises whatever its reader meets
        what = "is damaged or does not fit its config.yaml; get the model of trackastra again"
        if isinstance(error, pickle.UnpicklingError):
            what = "holds Python objects besides weights, which can run any code; get the model of "
            what += "trackastra again, from where it is published"
        raise VolsamError(f"The file {weights} {what}.") from None
    return Trackastra(network, config)


class Trackastra:
    """A network of trackastra that describes and scores objects; see `associate.Model`.

    Parameters
    ----------
    network : trackastra.model.TrackingTransformer
    config : dict
        Its settings.
    """

    def __init__(self, network: Any, config: dict[str, Any]) -> None:
        self._network = network.eval()
        self._dimensions: int = config["coord_dim"]
        self.window: int = config["window"]
        self.reach = float(config["spatial_pos_cutoff"])

    def describe(self, frame: Frame) -> Described:
        """Objects of a frame, sorted by id; brightness in percentiles of the frame, as in training."""
        from trackastra.data import WRFeatures
        from trackastra.utils import normalize

        assert frame.image is not None
        labels, image = frame.labels, frame.image
        if self._dimensions == 2:
            labels, image = labels[0], image[0]
        # Ids may be greater than what trackastra counts with.
        local, numbers = fastremap.renumber(labels, in_place=False)
        numbers.pop(0, None)
        if not numbers:
            empty = np.zeros((0, _FEATURES[self._dimensions]), np.float32)
            return Described(np.zeros(0, np.uint64), empty[:, : self._dimensions], empty)
        seen = WRFeatures.from_mask_img(mask=local[None], img=normalize(image)[None])
        ids = np.zeros(len(numbers) + 1, np.uint64)
        ids[np.fromiter(numbers.values(), np.int64)] = np.fromiter(numbers, np.uint64)
        found = ids[seen.labels]
        order = np.argsort(found)
        return Described(found[order], seen.coords[order], seen.features_stacked[order])

    def scores(self, when: Ints, position: Singles, features: Singles) -> Singles:
        """Scores (n, n) that objects of a window, the rows, are the pasts of others, the columns."""
        # trackastra subtracts the first time from positions as well; it is 0 here, as `associate` counts.
        import torch
        from trackastra.model.predict import predict

        window = {"timepoints": when, "coords": position, "features": features}
        batch = [{name: torch.from_numpy(values) for name, values in window.items()}]
        found: Singles = predict(batch, self._network)[0]
        return found


@contextmanager
def _quiet() -> Iterator[None]:
    """Logging as it was: trackastra sets up that of the whole program when it is imported."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
