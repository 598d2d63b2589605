"""Object slots learned from video: a few slots reconstruct each frame's features and predict their motion.

    loss = |d(s_t) - f_t|^2 + w * CE(d'(s_t), softmax(cos(f_t, f_t+1) / tau))

Reference: Zadaianchuk et al. 2023, arXiv:2306.04829 (VideoSAUR); Kipf et al. 2022, arXiv:2111.12594 (SAVi).  Preset
"videosaur" has VideoSAUR's sizes over a frozen vision Transformer of the size of DINOv2 ViT-S/14, whose weights must be
supplied; motion targets come from the same features (in the paper: the keys of the last attention layer).  "lab" and
"tiny" are our own: a small convolutional network trained jointly, and raw pixel patches as features, since no trained
features are available; learned initial slots (lab), SAVi's transition.  Logits are divided by the root of the head's
width; the released weights need `logit_scale="inverse"`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from torch import Generator, nn

from jepa_mpc.encoders.layers.pixels import IMAGENET_MEAN, IMAGENET_STD, NormalisePixels
from jepa_mpc.encoders.layers.slot_attention import LogitScale, NormedStep, SlotAttention, SlotBlock, normed_mlp
from jepa_mpc.encoders.layers.weights import draw_weights
from jepa_mpc.encoders.slot_broadcast import BroadcastDecoder
from jepa_mpc.encoders.slot_decoder import SlotMixer
from jepa_mpc.encoders.slots import GaussianStart, LearnedStart, PatchFeatures, SlotEncoder, SlotRecurrence
from jepa_mpc.encoders.vit import VisionTransformer, ViTSizes
from jepa_mpc.errors import choose
from jepa_mpc.world_model.parts.objectives.slot_features import PixelPatches, SlotFeatureObjective


@dataclass(frozen=True, kw_only=True)
class VideoSlotSizes:
    """Sizes of a slot encoder and of the decoder that trains it.

    Args:
        image: Side of the images in pixels.
        cell: Side of one token's cell, in pixels.
        num_slots: Slots N.
        slot_dim: Their width D.
        features: Width of the tokens.
        hidden: Width of the token MLP.
        decoder: Widths of the decoder's last layers.
        depth: Blocks of the decoder.
        heads: Attention heads of decoder and transition.
        form: Builds the encoder.
        weight: Weight of the motion term.
        temperature: Temperature of the motion term.
    """

    image: int
    cell: int
    num_slots: int
    slot_dim: int
    features: int
    hidden: int
    decoder: tuple[int, ...]
    depth: int = 3
    heads: int = 4
    form: Callable[[VideoSlotSizes], SlotEncoder]
    weight: float = 0.0
    temperature: float = 0.15


def over_patches(
    sizes: VideoSlotSizes, *, features: nn.Module | None = None, logit_scale: LogitScale = "standard"
) -> SlotEncoder:
    """VideoSAUR's slots over a frozen image encoder.

    Args:
        sizes: All sizes.
        features: Maps images to tokens `(B, L, sizes.features)`; by default an untrained vision Transformer.
        logit_scale: Logit scale of the transition, see `SlotBlock`.
    """
    vit = ViTSizes(image=sizes.image, patch=sizes.cell, width=sizes.features, depth=12, heads=6, mlp_dim=1536)
    seen = (features or VisionTransformer(vit, pool="patches")).requires_grad_(False).eval()
    attend = SlotAttention(sizes.slot_dim, slot_dim=sizes.slot_dim)
    return SlotEncoder(
        features=seen,
        embed=normed_mlp(sizes.features, hidden=sizes.hidden, output=sizes.slot_dim),
        start=GaussianStart(sizes.num_slots, slot_dim=sizes.slot_dim),
        recurrence=SlotRecurrence(
            attend, step=SlotBlock(sizes.slot_dim, heads=sizes.heads, logit_scale=logit_scale), first=3
        ),
        slot_dim=sizes.slot_dim,
    )


def over_pixels(
    sizes: VideoSlotSizes, *, start: type[LearnedStart] | type[GaussianStart] = LearnedStart
) -> SlotEncoder:
    """SAVi's slots over a small convolutional network.

    Args:
        sizes: All sizes; a cell must be 2, 4 or 8 pixels wide.
        start: Initial slots.
    """
    strides = {2: (2, 1, 1, 1), 4: (2, 2, 1, 1), 8: (2, 2, 2, 1)}[sizes.cell]
    attend = SlotAttention(sizes.slot_dim, slot_dim=sizes.slot_dim, hidden=2 * sizes.slot_dim, memory="plain", eps=1e-6)
    return SlotEncoder(
        features=PatchFeatures(width=sizes.features, size=sizes.image, strides=strides),
        embed=normed_mlp(sizes.features, hidden=sizes.hidden, output=sizes.slot_dim),
        start=start(sizes.num_slots, slot_dim=sizes.slot_dim),
        recurrence=SlotRecurrence(attend, step=NormedStep(sizes.slot_dim), first=3),
        slot_dim=sizes.slot_dim,
    )


def _drawn(sizes: VideoSlotSizes) -> SlotEncoder:
    return over_pixels(sizes, start=GaussianStart)


PRESETS = {
    "videosaur": VideoSlotSizes(
        image=196, cell=14, num_slots=4, slot_dim=128, features=384, hidden=768, decoder=(1024, 1024),
        form=over_patches, weight=0.25, temperature=0.25,
    ),
    "lab": VideoSlotSizes(
        image=64, cell=4, num_slots=5, slot_dim=64, features=32, hidden=64, decoder=(128,), depth=2, form=over_pixels,
    ),
    "tiny": VideoSlotSizes(
        image=28, cell=4, num_slots=3, slot_dim=16, features=8, hidden=16, decoder=(32,), depth=1, form=_drawn,
        weight=0.1,
    ),
}  # fmt: skip


def slots_of(sizes: VideoSlotSizes, encoder: nn.Module | None) -> SlotEncoder:
    """A slot encoder: the given one, slots over the tokens of another encoder, or one of these sizes."""
    if encoder is None:
        return sizes.form(sizes)
    if getattr(encoder, "gives_slots", False):
        return encoder  # type: ignore[return-value]  # or whatever else gives slots of its own
    width: Any = encoder.width
    return over_patches(replace(sizes, features=width), features=encoder)


def build(
    *,
    preset: str | VideoSlotSizes = "videosaur",
    encoder: nn.Module | None = None,
    places: int | None = None,
    decoder: SlotMixer | BroadcastDecoder | None = None,
    generator: Generator | None = None,
    **parts: Any,
) -> SlotFeatureObjective:
    """Assemble the training loss; its `encoder` becomes that of a `causal_jepa` of the same preset.

    Args:
        preset: A name of `PRESETS`, or custom sizes.
        encoder: The slot encoder; by default the preset's. Any other encoder of several tokens is frozen and gets the
            preset's slots over its tokens.
        places: Number of reconstructed tokens, if not the preset's.
        decoder: The decoder; by default a slot mixer of the preset's sizes.
        generator: Draws all initial weights; by default the global stream is used.
        **parts: Further parts of `SlotFeatureObjective`: features, keys, weight, temperature, preprocess.

    Raises:
        UnknownName: If there is no such preset.
    """
    sizes = choose(PRESETS, preset, "preset") if isinstance(preset, str) else preset
    seen = slots_of(sizes, encoder)
    frozen = not any(weight.requires_grad for weight in seen.features.parameters())
    if "features" not in parts and not frozen:
        parts["features"] = PixelPatches(patch=sizes.cell)
    rebuilt = int(getattr(seen.features, "width", sizes.features)) if frozen else 3 * sizes.cell**2
    weight, places = parts.setdefault("weight", sizes.weight), places or (sizes.image // sizes.cell) ** 2
    decoder = decoder or SlotMixer(
        sizes.slot_dim,
        num_places=places,
        output_dim=rebuilt + (places if weight else 0),
        heads=sizes.heads,
        depth=sizes.depth,
        hidden=sizes.decoder,
    )
    parts.setdefault("temperature", sizes.temperature)
    parts.setdefault("preprocess", NormalisePixels(mean=IMAGENET_MEAN, std=IMAGENET_STD))
    objective = SlotFeatureObjective(encoder=seen, decoder=decoder, **parts)
    if generator is not None:
        draw_weights(objective, generator)
    return objective
