"""What a BioImage.IO package says of a network: its kind, its arguments, its source in one file.

The file is put together from the modules that volsam itself runs, so the two cannot differ.

Invariant: a package's file is never run. Whether a package is one of ours is told from the name of its
callable and arguments, which are checked against what these can be, and the network is then built from
our own modules.
"""

from __future__ import annotations

import ast
import importlib.util
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from volsam.errors import VolsamError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from volsam.models.checkpoint import Checkpoint
    from volsam.models.model import Source

TINY, VIT = "tiny_vit_network", "sam_vit_network"
_MODULES = {
    TINY: ("volsam.models.tiny_vit", "volsam.models.unetr", "volsam.exchange.network"),
    VIT: (
        "segment_anything.modeling.common",
        "segment_anything.modeling.image_encoder",
        "volsam.models.unetr",
        "volsam.exchange.network",
        "volsam.exchange.vit_network",
    ),
}
_OURS = ("volsam", "segment_anything")
_LARGEST = 8192  # of any number among the arguments


@dataclass(frozen=True)
class Network:
    """The network of a model, as a package describes it.

    Attributes
    ----------
    kind : str
        `TINY` or `VIT`.
    kwargs : dict
        Its arguments, plain JSON.
    image_size : int
        Side of the input that it was trained with, in pixels.
    step : int or None
        Sides may be any multiple of this; None if `image_size` is the only one.
    """

    kind: str
    kwargs: dict[str, Any]
    image_size: int
    step: int | None

    def module(self, state: Mapping[str, Tensor]) -> nn.Module:
        """The network for inference, from volsam's own modules, with weights."""
        from volsam.exchange.network import AisNetwork, tiny_vit_network
        from volsam.models.sam import VitArchitecture
        from volsam.models.unetr import UNETR

        if self.kind == TINY:
            network = tiny_vit_network(**self.kwargs)
        else:
            encoder = VitArchitecture(name="vit", **self.kwargs["encoder"]).encoder()
            decoder = UNETR(**self.kwargs["decoder"])
            network = AisNetwork(encoder, decoder, self.kwargs["tile_statistics"])
        network.load_state_dict(state)
        return network.eval()

    def source(self) -> str:
        """One Python file that needs torch only and has the callable."""
        return "\n\n".join([_HEADER, *map(_body, _MODULES[self.kind])]) + "\n"


_HEADER = '''"""Network for automatic instance segmentation, put together by volsam from its modules.

Parts under "segment_anything" are by Meta Platforms, Inc. and affiliates, under the Apache licence 2.0
(https://www.apache.org/licenses/LICENSE-2.0); all others are part of volsam, MIT.
"""

from __future__ import annotations'''


def network(source: Source, checkpoint: Checkpoint) -> Network:
    """Describe the network of a model with a decoder.

    Parameters
    ----------
    source : Source
        Of the model.
    checkpoint : Checkpoint
        Its weights.
    """
    from volsam.models.sam import EMBED_DIM, VitArchitecture, recognise
    from volsam.models.unetr import is_transposed

    if checkpoint.decoder is None:
        raise VolsamError(
            f"Model {source.name} has no decoder for automatic instance segmentation, without which "
            "a BioImage.IO package has nothing to show; train one with it."
        )
    micro_sam = source.decoder is None
    transposed = is_transposed(checkpoint.decoder)
    decoder = source.decoder or {"embed_dim": EMBED_DIM, "transposed": transposed}
    kwargs = {"decoder": decoder, "tile_statistics": micro_sam}
    if source.encoder is not None:
        step = _step(source.encoder) if decoder.get("norm") == "batch" else None
        return Network(TINY, {"encoder": source.encoder, **kwargs}, _size(source.encoder), step)
    architecture = recognise(checkpoint.sam)
    if isinstance(architecture, VitArchitecture):
        encoder = {k: v for k, v in asdict(architecture).items() if k != "name"}
        encoder["global_blocks"] = list(encoder["global_blocks"])
        return Network(VIT, {"encoder": encoder, **kwargs}, architecture.image_size, None)
    encoder = {"image_size": architecture.image_size, "num_classes": 1000}
    return Network(TINY, {"encoder": encoder, **kwargs}, architecture.image_size, None)


def recognised(kind: object, kwargs: object) -> tuple[dict[str, Any] | None, dict[str, Any]]:
    """Arguments of `TinyViT` (None: SAM's own encoder) and of `UNETR` that a package names.

    Raises
    ------
    VolsamError
        If the network is none of ours.
    """
    foreign = VolsamError(
        f"The network {kind!r} of this package is not known to volsam, which does not run the "
        "code of a package; import packages that volsam or micro-sam made."
    )
    if kind not in (TINY, VIT) or not isinstance(kwargs, dict):
        raise foreign
    encoder, decoder = kwargs.get("encoder"), kwargs.get("decoder")
    if not isinstance(encoder, dict) or not isinstance(decoder, dict):
        raise foreign
    if not (bounded(encoder) and bounded(decoder)):
        raise foreign
    standard = kwargs.get("tile_statistics") is True
    own = kind == TINY and encoder.get("num_classes") != 1000
    return (encoder if own else None), ({} if standard else decoder)


def bounded(value: object) -> bool:
    """Whether arguments are plain and small, so that building the network cannot exhaust memory."""
    if isinstance(value, dict):
        return (
            len(value) <= 32
            and all(isinstance(key, str) for key in value)
            and all(map(bounded, value.values()))
        )
    if isinstance(value, list):
        return len(value) <= 32 and all(map(bounded, value))
    if isinstance(value, (int, float)):
        return 0 <= value <= _LARGEST
    return isinstance(value, str) and len(value) <= 32


def _size(encoder: Mapping[str, Any]) -> int:
    return int(encoder.get("image_size", 1024))


def _step(encoder: Mapping[str, Any]) -> int:
    """Pixels in which every stage has whole windows."""
    from volsam.models.tiny_vit import TinyViT

    whole = TinyViT(**encoder)
    stride = math.prod(encoder.get("patch_strides", (2, 2)))
    sides = [whole.stride]
    windows = encoder.get("window_sizes", (7, 7, 14, 7))
    for step, window in zip(encoder.get("stage_strides", (2, 2, 1)), windows[1:], strict=True):
        stride *= step
        sides.append(stride * window)
    return math.lcm(*sides)


def _body(name: str) -> str:
    """Source of a module without its docstring and without imports from its neighbours."""
    path = _path(name)
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines()
    dropped: set[int] = set()
    for index, node in enumerate(ast.parse(text).body):
        docstring = index == 0 and isinstance(node, ast.Expr)
        if docstring or _is_own(node):
            dropped.update(range(node.lineno - 1, node.end_lineno or node.lineno))
    kept = [line for number, line in enumerate(lines) if number not in dropped]
    rule = "# " + "-" * 70
    return f"{rule}\n# {name}\n{rule}\n\n" + "\n".join(kept).strip()


def _is_own(node: ast.stmt) -> bool:
    if not isinstance(node, ast.ImportFrom):
        return False
    module = node.module or ""
    return node.level > 0 or module == "__future__" or module.split(".")[0] in _OURS


def _path(name: str) -> Path:
    """File of a module, found without importing the package it is in."""
    package, *rest = name.split(".")
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise VolsamError(f"The package {package} is missing; install volsam again with pip.")
    return Path(next(iter(spec.submodule_search_locations))).joinpath(*rest).with_suffix(".py")
