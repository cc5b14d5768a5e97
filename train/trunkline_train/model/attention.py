"""Runs attention in fp32 when training under bf16 autocast on a CPU.

The backward pass of torch's fused attention takes about eight times as long there in bf16 as in
fp32, which would undo the gain in the matrix products.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel

_NAME = "trunkline_full_precision"
_sdpa = AttentionInterface()["sdpa"]


def install_attention(encoder: PreTrainedModel) -> None:
    """Makes an encoder's fused attention leave autocast on a CPU; other devices are unaffected.

    Encoders that do not use transformers' registry of attention functions keep their own. The name
    of the function is never written to config.json.
    """
    fused = encoder.config._attn_implementation == "sdpa"
    if fused and encoder._can_set_attn_implementation():
        encoder.set_attn_implementation(_NAME)


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Computes transformers' "sdpa", in the type of `query`; [B, S, heads, H/heads]."""
    if query.device.type != "cpu" or not torch.is_autocast_enabled("cpu"):
        output, _ = _sdpa(module, query, key, value, attention_mask, **options)
        return output, None
    if attention_mask is not None and attention_mask.is_floating_point():
        attention_mask = attention_mask.float()
    with torch.autocast("cpu", enabled=False):
        output, _ = _sdpa(
            module, query.float(), key.float(), value.float(), attention_mask, **options
        )
    return output.to(query.dtype), None


AttentionInterface.register(_NAME, _attention)
AttentionMaskInterface.register(_NAME, AttentionMaskInterface()["sdpa"])
