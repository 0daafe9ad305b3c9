"""Loading a model and running it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import xxhash
from safetensors.torch import save_file
from seeded import seeded_state

from volsam.errors import VolsamError
from volsam.models import load_model
from volsam.models.decoder import use_tile_statistics
from volsam.models.memory import keep_freed_memory
from volsam.models.model import memory_errors
from volsam.models.sam import VIT_T, VitArchitecture, build_sam, normalise, recognise
from volsam.models.tiny_vit import TinyViT
from volsam.models.unetr import UNETR

pytestmark = pytest.mark.usefixtures("small_vit_b")
TINY = {
    "image_size": 32,
    "embed_dims": [8, 16],
    "depths": [1, 1],
    "num_heads": [1, 2],
    "window_sizes": [4, 4],
    "stage_strides": [1],
    "neck_channels": 16,
}
UNET = {"embed_dim": 16, "features": [8, 4], "norm": "batch"}


def images(n: int, side: int) -> torch.Tensor:
    return torch.rand(n, 3, side, side, generator=torch.Generator().manual_seed(0)) * 255


def described(folder: Path, **more: object) -> Path:
    """A model of our own with its description."""
    encoder = {f"image_encoder.{k}": v for k, v in seeded_state(TinyViT(**TINY)).items()}
    decoder = {f"decoder.{k}": v.half() for k, v in seeded_state(UNETR(**UNET)).items()}
    save_file(encoder | decoder, folder / "weights.safetensors")
    path = folder / "model.json"
    path.write_text(json.dumps({"name": "tiny", "encoder": TINY, "decoder": UNET, **more}))
    return path


def test_a_sam_as_micro_sam_exports_it(combined: Path, small_vit: VitArchitecture) -> None:
    model = load_model(str(combined))
    assert (model.name, model.image_size, model.embedding_shape) == ("combined", 64, (256, 4, 4))
    assert model.hash == xxhash.xxh128(combined.read_bytes()).hexdigest()
    assert (model.normalisation, model.precision) == ("minmax", "fp32")
    sam = build_sam(small_vit.encoder(), 64)
    sam.load_state_dict(seeded_state(sam))
    decoder = UNETR().eval()
    decoder.load_state_dict(seeded_state(decoder))
    use_tile_statistics(decoder)
    with torch.no_grad():
        batch = images(2, 64)
        expected = sam.image_encoder(sam.preprocess(batch))
        embeddings = model.embed(batch)
        assert (embeddings - expected).abs().max() < 1e-4
        assert (model.decode(embeddings) - decoder(expected)).abs().max() < 1e-4
        assert model.sam is not None
        prompts = model.sam.prompt_encoder(points=None, boxes=None, masks=None)
        assert torch.equal(prompts[1], sam.prompt_encoder(points=None, boxes=None, masks=None)[1])


def test_a_result_does_not_depend_on_the_batch(combined: Path) -> None:
    model = load_model(str(combined))
    batch = images(3, 64)
    together = model.decode(model.embed(batch))
    alone = torch.cat([model.decode(model.embed(image[None])) for image in batch])
    assert torch.equal(together, alone)


def test_small_images_are_padded_after_normalisation(combined: Path) -> None:
    model = load_model(str(combined))
    padded = normalise(images(1, 40), 64)
    assert padded.shape == (1, 3, 64, 64)
    assert not padded[..., 40:].any()
    assert not padded[..., 40:, :].any()
    assert model.embed(images(1, 40)).shape == (1, 256, 4, 4)


def test_separate_decoder_and_need_of_it(combined: Path, tmp_path: Path) -> None:
    content = torch.load(combined, weights_only=True)
    encoder, decoder = tmp_path / "encoder.pt", tmp_path / "decoder.pt"
    torch.save(content["model_state"], encoder)
    torch.save(content["decoder_state"], decoder)
    with pytest.raises(VolsamError, match="has no decoder"):
        load_model(str(encoder))
    bare = load_model(str(encoder), need_decoder=False)
    with pytest.raises(VolsamError, match="has no decoder"):
        bare.decode(torch.zeros(1, 256, 4, 4))
    pair = load_model(f"{encoder}::{decoder}")
    whole = load_model(str(combined))
    assert pair.hash != pair.encoder_hash == bare.hash
    embeddings = whole.embed(images(1, 64))
    assert torch.equal(pair.decode(embeddings), whole.decode(embeddings))


def test_bf16_is_close(combined: Path) -> None:
    model, reduced = load_model(str(combined)), load_model(str(combined), precision="bf16")
    assert reduced.precision == "bf16"
    batch = images(1, 64)
    maps = reduced.decode(reduced.embed(batch))
    assert maps.dtype == torch.float32
    assert (maps - model.decode(model.embed(batch))).abs().mean() < 0.03


def test_a_model_of_our_own(tmp_path: Path) -> None:
    path = described(tmp_path, diameter=20, ais={"min_size": 5})
    model = load_model(str(path))
    assert (model.name, model.diameter, model.ais) == ("tiny", 20, {"min_size": 5})
    assert (model.normalisation, model.embedding_shape) == ("percentile", (16, 8, 8))
    batch = images(1, 32)
    encoder, decoder = TinyViT(**TINY).eval(), UNETR(**UNET).eval()
    encoder.load_state_dict(seeded_state(encoder))
    decoder.load_state_dict({k: v.half() for k, v in seeded_state(decoder).items()})
    with torch.no_grad():
        expected = decoder(encoder(normalise(batch, 32)))
    assert (model.decode(model.embed(batch)) - expected).abs().max() < 1e-4


def test_the_embedded_model() -> None:
    folder = Path(sys.modules["volsam.models"].__file__ or "").parent / "embedded"
    if not (folder / "model.json").is_file():
        pytest.skip("no embedded model in this checkout")
    model = load_model("embedded")
    maps = model.decode(model.embed(images(1, model.image_size)))
    assert maps.shape == (1, 3, model.image_size, model.image_size)
    assert 0 <= maps.min() <= maps.max() <= 1


@pytest.mark.parametrize(
    ("spec", "settings", "says"),
    [
        ("vit_q_lm", {}, "no model or file 'vit_q_lm'; give the path"),
        ("{}", {"device": "abacus"}, "Device 'abacus' is unknown"),
        ("{}", {"precision": "fp8"}, "Precision 'fp8' is unknown"),
        ("{}", {"precision": "fp16"}, "fp16 is for GPUs"),
        ("{}::nowhere.pt", {}, "no model or file 'nowhere.pt'"),
    ],
)
def test_what_cannot_be_loaded(
    combined: Path, spec: str, settings: dict[str, str], says: str
) -> None:
    with pytest.raises(VolsamError, match=says):
        load_model(spec.format(combined), **settings)


def test_a_processor_without_bf16(combined: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """oneDNN would say so in the middle of a block."""
    monkeypatch.setattr("volsam.models.model.has_bf16", lambda: False)
    with pytest.raises(VolsamError, match="no AVX-512 for bf16"):
        load_model(str(combined), precision="bf16", device="cpu")


def test_unreadable_description(tmp_path: Path) -> None:
    path = tmp_path / "model.json"
    path.write_text("{")
    with pytest.raises(VolsamError, match="Cannot read the model description"):
        load_model(str(path))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_no_gpu(combined: Path) -> None:
    with pytest.raises(VolsamError, match="no CUDA GPU"):
        load_model(str(combined), device="cuda")
    assert load_model(str(combined), device="auto", precision="auto").precision == "fp32"


def test_recognise() -> None:
    key = "image_encoder.patch_embed.proj.weight"
    assert recognise({key: torch.empty(1280, 3, 16, 16)}).name == "vit_h"
    assert recognise({"image_encoder.patch_embed.seq.0.c.weight": torch.empty(1)}) is VIT_T
    with pytest.raises(VolsamError, match="500 wide"):
        recognise({key: torch.empty(500, 3, 16, 16)})
    with pytest.raises(VolsamError, match="no patch embedding"):
        recognise({"image_encoder.x": torch.empty(1)})


def test_mobile_sam_loads_as_a_whole(tmp_path: Path) -> None:
    whole = build_sam(VIT_T.encoder(), VIT_T.image_size)
    torch.save(whole.state_dict(), tmp_path / "mobile_sam.pt")
    model = load_model(str(tmp_path / "mobile_sam.pt"), need_decoder=False)
    assert model.embedding_shape == (256, 64, 64)


def test_vit_t_embeds_as_mobile_sam() -> None:
    """Recorded from MobileSAM's own code with the same seeded weights, narrow and shallow."""
    encoder = TinyViT(embed_dims=(8, 16, 16, 320), depths=(1, 1, 1, 1), num_heads=(1, 2, 2, 10),
                      num_classes=10).eval()  # fmt: skip
    encoder.load_state_dict(seeded_state(encoder))
    image = np.random.default_rng(0).standard_normal((1, 3, 1024, 1024)).astype(np.float32)
    with torch.no_grad():
        embedding = encoder(torch.from_numpy(image))[0, ::8, ::4, ::4].numpy()
    expected = np.load(Path(__file__).with_name("mobile_sam.npz"))["embedding"]
    assert np.abs(embedding - expected).max() < 1e-4


def test_memory_errors() -> None:
    for error in (
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 12"),
        RuntimeError("not enough memory: you tried to allocate 1 bytes"),
    ):
        with pytest.raises(MemoryError), memory_errors():
            raise error
    with pytest.raises(RuntimeError, match="other"), memory_errors():
        raise RuntimeError("other")


def test_allocator_settings_are_taken_on_linux() -> None:
    assert keep_freed_memory() in (True, False)
    assert keep_freed_memory() or "linux" not in sys.platform or not Path("/lib64").exists()
