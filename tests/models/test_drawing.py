"""Prompts drawn as masks, and the prompt encoder that does it."""

import torch

from tests.tiny import ENCODER, PROMPTS
from volsam.models.drawing import LEVEL, draw
from volsam.models.sam import build_sam, modeling
from volsam.models.tiny_vit import TinyViT
from volsam.segment.prompts import Prompts, decode


def sam(drawn: bool) -> torch.nn.Module:
    torch.manual_seed(0)
    arguments = {**PROMPTS, "width": 16, "drawn": drawn}
    return build_sam(TinyViT(**ENCODER), 64, **arguments).eval()


def test_a_box_covers_its_pixels() -> None:
    drawing = draw(None, torch.tensor([[4.0, 8.0, 20.0, 12.0], [1.0, 0.0, 64.0, 64.0]]), 32, 0.5)
    assert drawing.shape == (2, 1, 32, 32)
    expected = torch.full((32, 32), -LEVEL)
    expected[4:6, 2:10] = LEVEL
    torch.testing.assert_close(drawing[0, 0], expected)
    assert drawing[1, 0, 5, 0] == 0, "half a pixel is covered"
    assert (drawing[1, 0, :, 1:] == LEVEL).all()


def test_points_say_inside_or_outside() -> None:
    places = torch.tensor([[[20.0, 10.0], [50.0, 40.0], [0.0, 0.0]]])
    drawing = draw((places, torch.tensor([[1, 0, -1]])), None, 32, 0.5)[0, 0]
    peak = (drawing == drawing.max()).nonzero()
    assert peak.tolist() == [[5, 10]]
    assert (drawing == drawing.min()).nonzero().tolist() == [[20, 25]]
    assert drawing[0, 0].abs() < 1e-3


def test_drawings_stand_in_for_masks_and_points_correct_them() -> None:
    plain, drawing = sam(False), sam(True)
    drawing.load_state_dict(plain.state_dict())
    assert isinstance(drawing.prompt_encoder, modeling().PromptEncoder)
    embedding = torch.rand(1, 16, 16, 16)
    boxes = torch.tensor([[8.0, 8.0, 40.0, 30.0]])
    mask = torch.randn(1, 1, 32, 32)
    with torch.inference_mode():
        for prompts in (Prompts(boxes=boxes), Prompts(boxes=boxes, masks=mask)):
            one, other = (decode(net, embedding, prompts, False)[0] for net in (plain, drawing))
            assert torch.equal(one, other) == (prompts.masks is not None)
        drawn = Prompts(boxes=boxes, masks=draw(None, boxes, 32, 0.5))
        torch.testing.assert_close(
            decode(plain, embedding, drawn, False),
            decode(drawing, embedding, Prompts(boxes=boxes), False),
        )
        points, labels = torch.tensor([[[20.0, 12.0]]]), torch.tensor([[0]])
        corrected = mask.clamp(-LEVEL, LEVEL) + draw((points, labels), None, 32, 0.5)
        torch.testing.assert_close(
            decode(plain, embedding, Prompts(points, labels, masks=corrected), False),
            decode(drawing, embedding, Prompts(points, labels, masks=mask), False),
        )
