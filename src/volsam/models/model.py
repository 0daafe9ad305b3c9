"""Load a model by name or path, and run it: images to embeddings, embeddings to maps.

Invariants
----------
- On a CPU images are run one after the other, so that a result does not depend on the batch.
- Running out of memory is a `MemoryError` on every device.
- A loaded model is for inference: its parameters are rearranged and take no gradient.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import xxhash
from torch import Tensor, nn

from volsam.errors import VolsamError
from volsam.models.attention import FusedEncoder
from volsam.models.checkpoint import Checkpoint, fit, read_checkpoint, read_json
from volsam.models.decoder import FusedDecoder, use_tile_statistics
from volsam.models.linear import has_bf16, replace_linears
from volsam.models.memory import keep_freed_memory
from volsam.models.registry import MODELS, fetch, file_hash
from volsam.models.sam import build_sam, normalise, recognise
from volsam.models.tiny_vit import TinyViT
from volsam.models.unetr import UNETR, is_transposed

EMBEDDED = Path(__file__).parent / "embedded"
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass
class Source:
    """Where a model comes from and what is known of it besides its weights.

    Attributes
    ----------
    name : str
        For messages and reports.
    files : list of Path
        Weights; the second, if there is one, is the decoder's.
    normalisation : str
        ``"percentile"`` or ``"minmax"``.
    diameter, pixel_size : float or None
        Object diameter in pixels, and pixel size in µm, of the training.
    ais : dict
        Tuned parameters of `segment.ais.AisParameters`, in pixels of the network's input.
    encoder, decoder, prompts : dict or None
        Arguments of `TinyViT`, `UNETR` and `build_sam` where they are not SAM's.
    learning_rate : float
        What suits training on from it.
    """

    name: str
    files: list[Path]
    normalisation: str = "minmax"
    diameter: float | None = None
    pixel_size: float | None = None
    ais: Mapping[str, float] = field(default_factory=dict)
    encoder: dict[str, Any] | None = None
    decoder: dict[str, Any] | None = None
    prompts: dict[str, Any] | None = None
    learning_rate: float = 1e-5

    @classmethod
    def find(cls, spec: str) -> Source:
        """Resolve what a user writes as the model; downloads a registered one."""
        if spec == "embedded":
            return cls.described(EMBEDDED / "model.json")
        if spec in MODELS:
            entry = MODELS[spec]
            files = [path for path in fetch(spec, entry) if path]
            return cls(spec, files, entry.normalisation, ais=entry.ais)
        encoder, _, decoder = spec.partition("::")
        files = [Path(part).expanduser() for part in (encoder, decoder) if part]
        for path in files:
            if not path.is_file():
                known = ", ".join(("embedded", *MODELS))
                raise VolsamError(
                    f"There is no model or file {str(path)!r}; give the path of a checkpoint or "
                    f"one of {known}."
                )
        if files[0].suffix == ".json":
            return cls.described(files[0])
        return cls(files[0].stem, files)

    @classmethod
    def described(cls, path: Path) -> Source:
        """A model of our own: a description with the weights beside it."""
        data = read_json(path)
        return cls(
            name=data.get("name", path.parent.name),
            files=[path.parent / data.get("weights", "weights.safetensors")],
            normalisation=data.get("normalisation", "percentile"),
            diameter=data.get("diameter"),
            pixel_size=data.get("pixel_size"),
            ais=data.get("ais", {}),
            encoder=data.get("encoder"),
            decoder=data.get("decoder"),
            prompts=data.get("prompts"),
            learning_rate=data.get("learning_rate", 1e-5),
        )


def load_model(
    spec: str,
    *,
    device: str = "cpu",
    precision: str = "fp32",
    need_decoder: bool = True,
    compile: bool = False,
    allow_pickle: bool = False,
) -> Model:
    """Load a model.

    Parameters
    ----------
    spec : str
        A name in the registry, ``"embedded"``, a checkpoint's path, ``encoder.pt::decoder.pt``, or
        the path of a ``model.json`` beside the weights it describes.
    device : str
        ``"cpu"``, ``"cuda"`` (or another of torch), or ``"auto"``.
    precision : {"fp32", "bf16", "fp16", "auto"}
        Number format of matrix products and convolutions; ``"auto"`` is fp32 on a CPU, else bf16,
        or fp16 where the GPU lacks it.
    need_decoder : bool
        Refuse a model without the decoder for automatic instance segmentation.
    compile : bool
        Compile the encoder with torch on a GPU; the first call takes a minute. Without effect on a
        CPU, where the encoder's own layers are twice as fast as what torch compiles.
    allow_pickle : bool
        See `checkpoint.read_checkpoint`.

    Raises
    ------
    VolsamError
        If the model is unknown, cannot be had, does not fit, or lacks the decoder.
    """
    place, dtype = _place(device, precision)
    source = Source.find(spec)
    checkpoint = read_checkpoint(*source.files, allow_pickle=allow_pickle)
    if need_decoder and checkpoint.decoder is None:
        raise VolsamError(
            f"Model {source.name} has no decoder for automatic instance segmentation; use a model "
            "trained with one, or write encoder.pt::decoder.pt if it is in a second file."
        )
    encoder, sam = _encoder(source, checkpoint)
    decoder = _decoder(source, checkpoint, encoder.embedding_shape[0])
    if place.type == "cpu":
        keep_freed_memory()
    return Model(source, encoder, decoder, sam, place, dtype, compile)


class Model:
    """A loaded model; made by `load_model`.

    Attributes
    ----------
    name : str
        Name or file name.
    hash, encoder_hash : str
        xxh128 of the weights' files, and of the first of them, which holds the encoder.
    image_size : int
        Side of the network's square input in pixels.
    embedding_shape : (int, int, int)
        Shape (channels, height, width) of one embedding.
    diameter, pixel_size : float or None
        Object diameter in pixels, and pixel size in µm, of the training.
    ais : dict
        Tuned parameters of `segment.ais.AisParameters`, in pixels of the network's input.
    normalisation : str
        ``"percentile"`` or ``"minmax"``: how intensities became 0..1 in training.
    precision : {"fp32", "bf16", "fp16"}
        Number format of matrix products and convolutions.
    device : torch.device
        Where it runs.
    sam : torch.nn.Module or None
        Prompt encoder and mask decoder, where the checkpoint has them.
    """

    def __init__(
        self,
        source: Source,
        encoder: FusedEncoder | TinyViT,
        decoder: UNETR | None,
        sam: nn.Module | None,
        device: torch.device,
        dtype: torch.dtype,
        compile: bool,
    ) -> None:
        self.name, self.normalisation = source.name, source.normalisation
        self.diameter, self.pixel_size = source.diameter, source.pixel_size
        self.ais = dict(source.ais)
        hashes = [file_hash(path) for path in source.files]
        self.encoder_hash = hashes[0]
        self.hash = (
            hashes[0] if len(hashes) == 1 else xxhash.xxh128("".join(hashes).encode()).hexdigest()
        )
        self.image_size: int = encoder.img_size
        self.embedding_shape: tuple[int, int, int] = encoder.embedding_shape
        self.precision = next(name for name, value in _DTYPES.items() if value == dtype)
        self.device, self._dtype = device, dtype
        self.sam = None if sam is None else sam.to(device).eval()
        self._encoder: Any = _place_encoder(encoder.eval(), device, dtype)
        self._decoder = None if decoder is None else _place_decoder(decoder, device, dtype)
        if compile and device.type != "cpu":
            self._encoder = torch.compile(self._encoder)

    @property
    def has_decoder(self) -> bool:
        """Whether there is a decoder for automatic instance segmentation."""
        return self._decoder is not None

    def embed(self, images: Tensor) -> Tensor:
        """Embed images.

        Parameters
        ----------
        images : (n, 3, h, w) tensor
            In 0..255; sides up to `image_size`, padded right and below with the mean colour.

        Returns
        -------
        (n, *embedding_shape) float32 tensor
        """
        with self._running():
            images = images.to(self.device, torch.float32)
            return self._each(self._embed, images)

    def decode(self, embeddings: Tensor) -> Tensor:
        """Decode embeddings to the maps of automatic instance segmentation.

        Returns
        -------
        (n, 3, image_size, image_size) float32 tensor
            Foreground, distance to the centre, distance to the boundary, in 0..1; the distances
            are 0 at the centre or inside, and 1 at the border and in the background.
        """
        if self._decoder is None:
            raise VolsamError(
                f"Model {self.name} has no decoder for automatic instance segmentation; use a "
                "model trained with one."
            )
        with self._running():
            return self._each(self._decode, embeddings.to(self.device, torch.float32))

    def _embed(self, images: Tensor) -> Tensor:
        images = normalise(images, self.image_size)
        return self._encoder(images).float()

    def _decode(self, embeddings: Tensor) -> Tensor:
        assert self._decoder is not None
        return self._decoder(embeddings).float()

    def _each(self, function: Any, batch: Tensor) -> Tensor:
        """All at once on a GPU, one after the other on a CPU, where a batch gains nothing."""
        if self.device.type != "cpu" or len(batch) == 1:
            result: Tensor = function(batch)
            return result
        return torch.cat([function(item[None]) for item in batch])

    @contextmanager
    def _running(self) -> Iterator[None]:
        with torch.inference_mode(), memory_errors():
            yield


@contextmanager
def memory_errors() -> Iterator[None]:
    """Turn torch's ways to say that memory ran out into `MemoryError`."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        torch.cuda.empty_cache()
        raise MemoryError(str(error).splitlines()[0]) from None
    except RuntimeError as error:
        text = str(error)
        if "not enough memory" in text or "can't allocate memory" in text:
            raise MemoryError(text.splitlines()[0]) from None
        raise


def _place(device: str, precision: str) -> tuple[torch.device, torch.dtype]:
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        place = torch.device(device)
    except RuntimeError:
        raise VolsamError(f"Device {device!r} is unknown; use cpu, cuda or auto.") from None
    if place.type == "cuda" and not torch.cuda.is_available():
        raise VolsamError("torch finds no CUDA GPU here; set compute.device: cpu or auto.")
    if precision == "auto":
        reduced = "bf16" if place.type != "cuda" or torch.cuda.is_bf16_supported() else "fp16"
        precision = "fp32" if place.type == "cpu" else reduced
    if precision not in _DTYPES:
        raise VolsamError(f"Precision {precision!r} is unknown; use fp32, bf16, fp16 or auto.")
    if place.type == "cpu" and precision == "fp16":
        raise VolsamError("fp16 is for GPUs; set compute.precision: bf16 or fp32 on a CPU.")
    if place.type == "cpu" and precision == "bf16" and not has_bf16():
        raise VolsamError("This CPU has no AVX-512 for bf16; set compute.precision: fp32.")
    return place, _DTYPES[precision]


def _encoder(
    source: Source, checkpoint: Checkpoint
) -> tuple[FusedEncoder | TinyViT, nn.Module | None]:
    """The encoder with its weights, and the rest of the SAM if the checkpoint has one."""
    path, state = source.files[0], checkpoint.sam
    encoder: Any
    if source.encoder is None:
        architecture = recognise(state)
        what, encoder = architecture.name, architecture.encoder()
    else:
        what, encoder = source.name, TinyViT(**source.encoder)
    sam = None
    if all(key.startswith("image_encoder.") for key in state):
        bare = {key.removeprefix("image_encoder."): value for key, value in state.items()}
        fit(encoder, bare, f"{what} image encoder", path)
    else:
        sam = build_sam(encoder, encoder.img_size, **prompt_arguments(source, encoder))
        fit(sam, state, what, path)
        sam.image_encoder = nn.Identity()
    return encoder if isinstance(encoder, TinyViT) else FusedEncoder(encoder), sam


def prompt_arguments(source: Source, encoder: Any) -> dict[str, Any]:
    """Arguments of `build_sam`: SAM's own, or what the model's description says."""
    if source.encoder is None:
        return {}
    channels, side, _ = encoder.embedding_shape
    return {"width": channels, "side": side, **(source.prompts or {})}


def _decoder(source: Source, checkpoint: Checkpoint, channels: int) -> UNETR | None:
    state = checkpoint.decoder
    if state is None:
        return None
    arguments = source.decoder or {"embed_dim": channels, "transposed": is_transposed(state)}
    decoder = UNETR(**arguments)
    fit(decoder, state, "decoder for automatic instance segmentation", source.files[-1])
    if source.decoder is None:  # micro-sam's
        use_tile_statistics(decoder)
    return decoder


def _place_encoder(
    encoder: FusedEncoder | TinyViT, device: torch.device, dtype: torch.dtype
) -> nn.Module:
    replace_linears(encoder)
    if isinstance(encoder, FusedEncoder):
        encoder.reduce_precision(dtype)
        placed: nn.Module = encoder
    else:
        placed = Cast(encoder.to(dtype))
    return placed.to(device).requires_grad_(False)


def _place_decoder(decoder: UNETR, device: torch.device, dtype: torch.dtype) -> nn.Module:
    if device.type == "cpu":
        fused = FusedDecoder(decoder.requires_grad_(False))
        fused.reduce_precision(dtype)
        return fused.requires_grad_(False)
    return Cast(decoder.eval().to(device, dtype)).requires_grad_(False)


class Cast(nn.Module):
    """Hand the input to a module in the module's type, channels-last."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        dtype = next(self.module.parameters()).dtype
        result: Tensor = self.module(x.to(dtype, memory_format=torch.channels_last))
        return result
