"""maemem's masked autoencoder, written by hand in plain PyTorch."""

from __future__ import annotations

import math

import torch
from torch import nn

from benchmarks.peers.training import DEVICE, adamw, device, random_crops, scale, training
from benchmarks.peers.transformer import Transformer, patchify, sincos

LIBRARIES = ("torch",)


class MaskedAutoencoder(nn.Module):
    """The encoder sees what is visible; only masked tokens pass through the last layer."""

    def __init__(self, grid, values: int, encoder, decoder):
        super().__init__()
        self.patch_embedding = nn.Linear(values, encoder[0])
        self.encoder, self.decoder = Transformer(*encoder), Transformer(*decoder)
        self.embedding = nn.Linear(encoder[0], decoder[0])
        self.mask_token = nn.Parameter(0.02 * torch.randn(decoder[0]))
        self.head = nn.Linear(decoder[0], values)
        self.register_buffer("encoder_places", sincos(grid, encoder[0]))
        self.register_buffer("decoder_places", sincos(grid, decoder[0]))

    def forward(self, patches: torch.Tensor, ids: torch.Tensor, visible: int) -> torch.Tensor:
        """Predicts the patches from `ids[:, visible:]`, of those before."""
        seen = take(patches, ids[:, :visible])
        tokens = self.patch_embedding(seen) + self.encoder_places[ids[:, :visible]]
        seen = self.embedding(self.encoder(tokens)[-1])
        hidden = self.mask_token.expand(len(ids), ids.shape[1] - visible, -1)
        tokens = torch.cat([seen, hidden], dim=1) + self.decoder_places[ids]
        return self.head(self.decoder(tokens)[-1][:, visible:])


def prepare(crop, patch, encoder, decoder, ratio, batch, steps=1, compiled=False):
    torch.manual_seed(0)
    grid = [c // p for c, p in zip(crop, patch, strict=True)]
    tokens, values = math.prod(grid), math.prod(patch)
    visible = int(tokens * (1 - ratio) + 1e-6)
    model = MaskedAutoencoder(grid, values, encoder, decoder).to(DEVICE)
    crops = random_crops(batch, *crop)

    def loss() -> torch.Tensor:
        patches = patchify(scale(crops), patch)
        ids = torch.rand(batch, tokens, device=DEVICE).argsort(dim=1)
        truth = take(patches, ids[:, visible:])
        variance, mean = torch.var_mean(truth, dim=-1, correction=0, keepdim=True)
        truth = (truth - mean) / torch.sqrt(variance + 1e-6)
        return (model(patches, ids, visible) - truth).square().mean()

    loss = torch.compile(loss) if compiled else loss
    step, parameters = training(model, loss, adamw(model), steps)
    return step, lambda: {"amount": steps * batch, "parameters": parameters, **device()}


def take(tokens: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """The tokens `[b n d]` at the places `[b m]`."""
    return tokens.gather(1, ids[:, :, None].expand(-1, -1, tokens.shape[-1]))
