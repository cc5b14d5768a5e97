"""What makes small encoders members of their families."""

from typing import Any

DEBERTA_V3: dict[str, Any] = {
    "relative_attention": True,
    "position_biased_input": False,
    "pos_att_type": ["p2c", "c2p"],
    "norm_rel_ebd": "layer_norm",
    "share_att_key": True,
    "position_buckets": 16,
    "type_vocab_size": 0,
}
# A layer of global and one of local attention.
MODERNBERT: dict[str, Any] = {
    "layer_types": ["full_attention", "sliding_attention"],
    "local_attention": 16,
    "bos_token_id": 2,
    "cls_token_id": 2,
    "eos_token_id": 3,
    "sep_token_id": 3,
}
