"""The masked autoencoder of transformers."""

from __future__ import annotations

import torch
from transformers import ViTMAEConfig, ViTMAEForPreTraining

from benchmarks.peers.training import DEVICE, adamw, device, random_crops, scale, training

LIBRARIES = ("transformers", "torch")


def prepare(crop, patch, encoder, decoder, ratio, batch, steps=1):
    torch.manual_seed(0)
    model = ViTMAEForPreTraining(
        ViTMAEConfig(
            image_size=crop[-1],
            patch_size=patch[-1],
            num_channels=1,
            hidden_size=encoder[0],
            num_hidden_layers=encoder[1],
            num_attention_heads=encoder[2],
            intermediate_size=4 * encoder[0],
            decoder_hidden_size=decoder[0],
            decoder_num_hidden_layers=decoder[1],
            decoder_num_attention_heads=decoder[2],
            decoder_intermediate_size=4 * decoder[0],
            mask_ratio=ratio,
            norm_pix_loss=True,
        )
    ).to(DEVICE)
    crops = random_crops(batch, *crop)  # One section is one channel.

    def loss() -> torch.Tensor:
        return model(scale(crops)).loss

    step, parameters = training(model, loss, adamw(model), steps)
    return step, lambda: {"amount": steps * batch, "parameters": parameters, **device()}
