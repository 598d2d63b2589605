"""The key names of the released LeWorldModel, beside ours."""

from __future__ import annotations

# Our name -> released name, the first match is used; {} is a block's index.
OURS_TO_RELEASED = (
    (r"^encoder\.encoder\.summary$", "encoder.embeddings.cls_token"),
    (r"^encoder\.encoder\.positions$", "encoder.embeddings.position_embeddings"),
    (r"^encoder\.encoder\.patches\.", "encoder.embeddings.patch_embeddings.projection."),
    (r"^encoder\.encoder\.blocks\.(\d+)\.norm_attention\.", r"encoder.encoder.layer.\1.layernorm_before."),
    (r"^encoder\.encoder\.blocks\.(\d+)\.norm_mlp\.", r"encoder.encoder.layer.\1.layernorm_after."),
    (r"^encoder\.encoder\.blocks\.(\d+)\.attention\.to_qkv\.", r"encoder.encoder.layer.\1.attention.attention.qkv."),
    (r"^encoder\.encoder\.blocks\.(\d+)\.attention\.output\.", r"encoder.encoder.layer.\1.attention.output.dense."),
    (r"^encoder\.encoder\.blocks\.(\d+)\.mlp\.up\.", r"encoder.encoder.layer.\1.intermediate.dense."),
    (r"^encoder\.encoder\.blocks\.(\d+)\.mlp\.down\.", r"encoder.encoder.layer.\1.output.dense."),
    (r"^encoder\.encoder\.norm\.", "encoder.layernorm."),
    (r"^encoder\.projector\.up\.", "projector.net.0."),
    (r"^encoder\.projector\.norm\.", "projector.net.1."),
    (r"^encoder\.projector\.down\.", "projector.net.3."),
    (r"^predictor\.output\.head\.up\.", "pred_proj.net.0."),
    (r"^predictor\.output\.head\.norm\.", "pred_proj.net.1."),
    (r"^predictor\.output\.head\.down\.", "pred_proj.net.3."),
    (r"^predictor\.action_encoder\.smooth\.", "action_encoder.patch_embed."),
    (r"^predictor\.action_encoder\.up\.", "action_encoder.embed.0."),
    (r"^predictor\.action_encoder\.down\.", "action_encoder.embed.2."),
    (r"^predictor\.positions\.table$", "predictor.pos_embedding"),
    (r"^predictor\.trunk\.blocks\.(\d+)\.attention\.norm\.", r"predictor.transformer.layers.\1.attn.norm."),
    (r"^predictor\.trunk\.blocks\.(\d+)\.attention\.to_qkv\.", r"predictor.transformer.layers.\1.attn.to_qkv."),
    (r"^predictor\.trunk\.blocks\.(\d+)\.attention\.output\.0\.", r"predictor.transformer.layers.\1.attn.to_out.0."),
    (r"^predictor\.trunk\.blocks\.(\d+)\.mlp\.norm\.", r"predictor.transformer.layers.\1.mlp.net.0."),
    (r"^predictor\.trunk\.blocks\.(\d+)\.mlp\.up\.", r"predictor.transformer.layers.\1.mlp.net.1."),
    (r"^predictor\.trunk\.blocks\.(\d+)\.mlp\.down\.", r"predictor.transformer.layers.\1.mlp.net.4."),
    (r"^predictor\.trunk\.blocks\.(\d+)\.to_modulation\.", r"predictor.transformer.layers.\1.adaLN_modulation.1."),
    (r"^predictor\.trunk\.", "predictor.transformer."),
)

# The newer names of the encoder's inner keys -> the released ones.
NEWER_TO_RELEASED = (
    (r"\.attention\.q_proj\.", ".attention.attention.query."),
    (r"\.attention\.k_proj\.", ".attention.attention.key."),
    (r"\.attention\.v_proj\.", ".attention.attention.value."),
    (r"\.attention\.o_proj\.", ".attention.output.dense."),
    (r"\.mlp\.fc1\.", ".intermediate.dense."),
    (r"\.mlp\.fc2\.", ".output.dense."),
)
