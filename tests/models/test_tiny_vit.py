"""TinyViT has MobileSAM's keys and works at any size and resolution."""

from __future__ import annotations

import pytest
import torch

from volsam.models.tiny_vit import Attention, TinyViT, TinyViTBlock, vit_t

NANO = {
    "image_size": 64,
    "embed_dims": (8, 16, 32),
    "depths": (1, 1, 2),
    "num_heads": (1, 2, 4),
    "window_sizes": (4, 4, 4),
    "patch_strides": (2, 1),
    "stage_strides": (2, 1),
    "neck_channels": 24,
}


def mobile_sam_keys() -> set[str]:
    """The keys under ``image_encoder.`` of MobileSAM's checkpoint, written out from its layout."""
    norm = ("weight", "bias")
    conv = ("c.weight", *(f"bn.{k}" for k in (*norm, "running_mean", "running_var")))
    conv += ("bn.num_batches_tracked",)
    keys = {f"patch_embed.seq.{i}.{k}" for i in (0, 2) for k in conv}
    for stage, depth in enumerate((2, 2, 6, 2)):
        for block in range(depth):
            prefix = f"layers.{stage}.blocks.{block}"
            if stage == 0:
                keys |= {f"{prefix}.conv{i}.{k}" for i in (1, 2, 3) for k in conv}
                continue
            keys |= {f"{prefix}.local_conv.{k}" for k in conv}
            keys |= {f"{prefix}.attn.{m}.{k}" for m in ("norm", "qkv", "proj") for k in norm}
            keys |= {f"{prefix}.attn.attention_biases"}
            keys |= {f"{prefix}.mlp.{m}.{k}" for m in ("norm", "fc1", "fc2") for k in norm}
        if stage < 3:
            keys |= {f"layers.{stage}.downsample.conv{i}.{k}" for i in (1, 2, 3) for k in conv}
    keys |= {f"{m}.{k}" for m in ("norm_head", "head", "neck.1", "neck.3") for k in norm}
    return keys | {"neck.0.weight", "neck.2.weight"}


def test_vit_t_has_the_keys_and_shapes_of_mobile_sam() -> None:
    model = vit_t()
    state = model.state_dict()
    assert set(state) == mobile_sam_keys()
    assert state["layers.2.blocks.0.attn.attention_biases"].shape == (5, 14 * 14)
    assert state["layers.1.blocks.0.attn.attention_biases"].shape == (4, 7 * 7)
    assert state["layers.2.downsample.conv2.c.weight"].shape == (320, 1, 3, 3)
    assert state["neck.0.weight"].shape == (256, 320, 1, 1)
    assert model.embedding_shape == (256, 64, 64)


@pytest.mark.parametrize("size", [64, 96, 40])
def test_embedding_has_the_announced_shape_at_any_resolution(size: int) -> None:
    model = TinyViT(**NANO).eval()
    with torch.inference_mode():
        embedding = model(torch.rand(2, 3, size, size))
    assert embedding.shape == (2, 24, size // 4, size // 4)
    if size == model.img_size:
        assert embedding.shape[1:] == model.embedding_shape


def test_attention_is_softmax_with_a_bias_per_offset() -> None:
    torch.manual_seed(0)
    window, heads, dim = 3, 2, 8
    layer = Attention(dim, heads, window).eval()
    torch.nn.init.normal_(layer.attention_biases)
    torch.nn.init.normal_(layer.qkv.weight)
    x = torch.randn(4, window * window, dim)
    points = [(y, x) for y in range(window) for x in range(window)]
    bias = torch.empty(heads, 9, 9)
    for i, (ya, xa) in enumerate(points):
        for j, (yb, xb) in enumerate(points):
            bias[:, i, j] = layer.attention_biases[:, abs(ya - yb) * window + abs(xa - xb)]
    qkv = layer.qkv(layer.norm(x)).view(4, 9, heads, 3, dim // heads)
    query, key, value = qkv.permute(3, 0, 2, 1, 4)
    weights = (query @ key.transpose(-2, -1) * (dim // heads) ** -0.5 + bias).softmax(-1)
    expected = layer.proj((weights @ value).transpose(1, 2).reshape(4, 9, dim))
    torch.testing.assert_close(layer(x), expected, atol=1e-5, rtol=1e-5)


def test_windows_do_not_see_each_other() -> None:
    torch.manual_seed(0)
    block = TinyViTBlock(8, 2, 4, 2.0).eval()
    x = torch.randn(1, 10, 10, 8)  # padded to 12 x 12
    y = x.clone()
    y[:, 4:] += 1
    torch.testing.assert_close(block._attend(x)[:, :4], block._attend(y)[:, :4])
    assert block._attend(x).shape == x.shape


def test_settings_of_unequal_length_are_refused() -> None:
    with pytest.raises(ValueError, match="as many settings"):
        TinyViT(depths=(1, 2))
