"""A random-weight ``vit_b`` with decoder in micro-sam's combined form; run in its environment.

    python random_checkpoint.py <checkpoint.pt>

The output layer is scaled so that the predicted maps spread over 0..1 instead of staying near one half:
thresholds then cut slopes and not noise.
"""

import sys

import torch
from micro_sam.instance_segmentation import get_unetr
from segment_anything import sam_model_registry

torch.manual_seed(0)
sam = sam_model_registry["vit_b"]()
for key, value in sam.state_dict().items():
    if "rel_pos" in key or "pos_embed" in key:
        value.normal_(0, 0.02)
unetr = get_unetr(sam.image_encoder, device="cpu")
unetr.state_dict()["out_conv.weight"].mul_(20)
decoder = {k: v for k, v in unetr.state_dict().items() if not k.startswith("encoder.")}
torch.save({"model_state": sam.state_dict(), "decoder_state": decoder}, sys.argv[1])
