"""A plain U-Net, the yardstick of the embedded model: same data, targets, loss and trainer."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def _block(inputs: int, outputs: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for channels in (inputs, outputs):
        layers += [
            nn.Conv2d(channels, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
        ]
    return nn.Sequential(*layers)


class PlainUNet(nn.Module):
    """U-Net (Ronneberger et al., MICCAI 2015) with batch norm and as many levels as given.

    Parameters
    ----------
    filters : int
        Channels at full resolution; they double from level to level.
    levels : int
        Number of resolutions.
    """

    def __init__(self, filters: int = 16, levels: int = 4) -> None:
        super().__init__()
        widths = [filters * 2**level for level in range(levels)]
        self.down = nn.ModuleList(
            _block(inputs, width) for inputs, width in zip([3, *widths], widths, strict=False)
        )
        self.up = nn.ModuleList(_block(3 * width, width) for width in widths[:-1])
        self.out = nn.Conv2d(filters, 3, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Map images (n, 3, h, w) in 0..255 to logits of the AIS maps."""
        x = (images / 128 - 1).contiguous(memory_format=torch.channels_last)
        skips = []
        for level, block in enumerate(self.down):
            x = block(F.max_pool2d(x, 2) if level else x)
            skips.append(x)
        for block, skip in zip(reversed(self.up), reversed(skips[:-1]), strict=True):
            x = block(torch.cat([F.interpolate(x, scale_factor=2, mode="bilinear"), skip], 1))
        return self.out(x)
