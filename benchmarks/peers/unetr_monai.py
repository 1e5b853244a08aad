"""MONAI's UNETR, whose patches are 16 × 16 × 16."""

from __future__ import annotations

import torch
from monai.networks.nets.unetr import UNETR
from torch.nn import functional

from benchmarks.peers.training import DEVICE, device, random_crops, scale, sgd, training

LIBRARIES = ("monai", "torch")


def network(crop, patch, encoder, channels, outputs) -> UNETR:
    """The network whose levels have these channels."""
    width, depth, heads = encoder
    assert (*patch, depth) == (16, 16, 16, 12), "MONAI has no other"
    assert [c // channels[0] for c in channels] == [1, 2, 4, 8], "MONAI has no other"
    return UNETR(
        in_channels=1,
        out_channels=outputs,
        img_size=tuple(crop),
        feature_size=channels[0],
        hidden_size=width,
        mlp_dim=4 * width,
        num_heads=heads,
    )


def prepare(crop, patch, encoder, channels, outputs, batch, steps=1):
    torch.manual_seed(0)
    model = network(crop, patch, encoder, channels, outputs).to(DEVICE)
    crops = random_crops(batch, 1, *crop)
    targets = torch.randint(0, 2, (batch, outputs, *crop), device=DEVICE).float()

    def loss() -> torch.Tensor:
        return functional.binary_cross_entropy_with_logits(model(scale(crops)), targets)

    step, parameters = training(model, loss, sgd(model), steps)
    return step, lambda: {"amount": steps * batch, "parameters": parameters, **device()}
