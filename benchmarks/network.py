"""Encoder and decoder of ``vit_b``: tiles per second, stock beside ours, on a GPU where there is one.

Targets on a GPU: >= 6 x stock fp32, and >= 1.3 x stock in bf16 at the same batch. Stock is
segment-anything's image encoder and the plain decoder, random weights; on a CPU one tile is timed in CPU
seconds. The matrix peak is that of one large bf16 product in the same run.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.common import table

BATCH = int(os.environ.get("VOLSAM_BATCH", "8"))
# Multiply-adds of one 1024 x 1024 tile through the ViT-B encoder and the decoder, times two.
TILE_FLOP = 2 * (487e9 + 300e9)


def main(folder: Path) -> str:
    """Measure, and return the table."""
    import torch

    from volsam.models import load_model

    gpu = torch.cuda.is_available()
    device, batch = ("cuda", BATCH) if gpu else ("cpu", 1)
    checkpoint = folder / "vit_b.pt"
    if not checkpoint.exists():
        _random_checkpoint(checkpoint)
    images = torch.rand(batch, 3, 1024, 1024, device=device) * 255
    rows = []
    first = 0.0
    for name, precision, stock in (
        ("stock fp32", "fp32", True),
        ("stock bf16", "bf16", True),
        ("volsam fp32", "fp32", False),
        ("volsam bf16", "bf16", False),
    ):
        if stock:
            forward = _stock(checkpoint, device, precision)
        else:
            model = load_model(str(checkpoint), device=device, precision=precision)

            def forward(x: Any, model: Any = model) -> Any:
                return model.decode(model.embed(x))

        seconds = _time(lambda f=forward: f(images), gpu) / batch
        first = first or seconds
        rows.append((name, f"{1 / seconds:.2f}", f"{seconds:.3f}", f"{first / seconds:.2f}"))
    unit = "s" if gpu else "CPU s"
    text = table(("", "tiles/s", f"{unit} per tile", "times stock fp32"), rows)
    if not gpu:
        return text + "\n\nNo GPU here: one tile on the CPU, GPU figures are missing."
    fraction = TILE_FLOP * float(rows[-1][1]) / _matrix_peak()
    return text + f"\n\n{torch.cuda.get_device_name()}: {fraction:.0%} of the measured matrix peak."


def _random_checkpoint(path: Path) -> None:
    import torch

    from volsam.models.sam import VIT_B, build_sam
    from volsam.models.unetr import UNETR

    torch.manual_seed(0)
    sam = build_sam(VIT_B.encoder(), VIT_B.image_size)
    torch.save({"model_state": sam.state_dict(), "decoder_state": UNETR().state_dict()}, path)


def _stock(checkpoint: Path, device: str, precision: str) -> Callable[[Any], Any]:
    """Segment-anything's encoder as it is, and the decoder without our rearrangements."""
    import torch

    from volsam.models.sam import VIT_B, normalise
    from volsam.models.unetr import UNETR

    state = torch.load(checkpoint, weights_only=True)
    prefix = "image_encoder."
    weights = state["model_state"].items()
    stock, maps = VIT_B.encoder(), UNETR()
    stock.load_state_dict({k.removeprefix(prefix): v for k, v in weights if k.startswith(prefix)})
    maps.load_state_dict(state["decoder_state"])
    encoder, decoder = stock.to(device).eval(), maps.to(device).eval()

    def forward(images: Any) -> Any:
        with (
            torch.inference_mode(),
            torch.autocast(device, torch.bfloat16, enabled=precision == "bf16"),
        ):
            return decoder(encoder(normalise(images, 1024)))

    return forward


def _time(call: Callable[[], Any], gpu: bool, repeats: int = 5) -> float:
    """Least seconds of a call: wall on a GPU, CPU time elsewhere."""
    import torch

    clock = time.perf_counter if gpu else time.process_time
    best = float("inf")
    for _ in range(repeats + 2 if gpu else 2):
        started = clock()
        call()
        if gpu:
            torch.cuda.synchronize()
        best = min(best, clock() - started)
    return best


def _matrix_peak() -> float:
    """Operations per second of one large bf16 matrix product."""
    import torch

    n = 8192
    a = torch.randn(n, n, device="cuda", dtype=torch.bfloat16)
    return 2 * n**3 / _time(lambda: a @ a, gpu=True)
