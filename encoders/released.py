"""The released encoders: the V-JEPA 2 family with sizes, structures and files, and earlier ones."""

from __future__ import annotations

from torch import nn

from jepa_mpc.encoders.release import Release
from jepa_mpc.encoders.released_first import DINOV2, IJEPA, VJEPA
from jepa_mpc.encoders.released_views import LEJEPA
from jepa_mpc.encoders.video import VideoSizes, VideoTransformer
from jepa_mpc.errors import choose

NUM_LEVELS = 4
UNEVEN_LEVELS = {48: (11, 23, 37, 47)}
"""Depths whose released levels are not the ends of their quarters."""

PRETRAINING_PIXELS = 256
"""Image side whose patch grid V-JEPA 2.1 stretches its positions to."""


def vjepa2(sizes: VideoSizes, *, recompute: bool = False) -> VideoTransformer:
    """The encoder of V-JEPA 2: tiled rotary positions, one norm, no image path.

    Reference: Assran et al. 2025, arXiv:2506.09985.
    """
    return VideoTransformer(sizes, pairing="tiled", recompute=recompute)


def vjepa2_1(sizes: VideoSizes, *, recompute: bool = False) -> VideoTransformer:
    """The encoder of V-JEPA 2.1: stretched, interleaved rotary positions, four normalised levels, an image path.

    Raises:
        ValueError: If the depth is not divisible by four.

    Reference: V-JEPA 2.1, arXiv:2603.14482.
    """
    return VideoTransformer(
        sizes,
        pairing="interleaved",
        span=PRETRAINING_PIXELS // sizes.patch,
        levels=levels_of(sizes.depth),
        pictures=True,
        recompute=recompute,
    )


def levels_of(depth: int) -> tuple[int, ...]:
    """The blocks whose outputs V-JEPA 2.1 concatenates: the last of each quarter, except in the deepest network.

    Raises:
        ValueError: If the depth is not divisible by four.
    """
    if depth % NUM_LEVELS or depth < NUM_LEVELS:
        raise ValueError(f"{NUM_LEVELS} levels need a depth divisible by {NUM_LEVELS}, got {depth} blocks")
    return UNEVEN_LEVELS.get(depth) or tuple(depth // NUM_LEVELS * (level + 1) - 1 for level in range(NUM_LEVELS))


BASE = VideoSizes(width=768, depth=12, heads=12, mlp_dim=3072)
LARGE = VideoSizes(width=1024, depth=24, heads=16, mlp_dim=4096)
HUGE = VideoSizes(width=1280, depth=32, heads=16, mlp_dim=5120)
GIANT = VideoSizes(width=1408, depth=40, heads=22, mlp_dim=6144)
GIGANTIC = VideoSizes(width=1664, depth=48, heads=26, mlp_dim=8192)

RELEASES: dict[str, Release] = {
    **IJEPA,
    **VJEPA,
    "vjepa2_vitl": Release(
        form=vjepa2, sizes=LARGE, image=256, file="vitl.pt", repository="facebook/vjepa2-vitl-fpc64-256"
    ),
    "vjepa2_vith": Release(
        form=vjepa2, sizes=HUGE, image=256, file="vith.pt", repository="facebook/vjepa2-vith-fpc64-256"
    ),
    "vjepa2_vitg": Release(
        form=vjepa2, sizes=GIANT, image=256, file="vitg.pt", repository="facebook/vjepa2-vitg-fpc64-256"
    ),
    "vjepa2_vitg_384": Release(
        form=vjepa2, sizes=GIANT, image=384, file="vitg-384.pt", repository="facebook/vjepa2-vitg-fpc64-384"
    ),
    "vjepa2_ac_vitg": Release(form=vjepa2, sizes=GIANT, image=256, file="vjepa2-ac-vitg.pt", section="encoder"),
    "vjepa2_1_vitb": Release(form=vjepa2_1, sizes=BASE, image=384, file="vjepa2_1_vitb_dist_vitG_384.pt"),
    "vjepa2_1_vitl": Release(form=vjepa2_1, sizes=LARGE, image=384, file="vjepa2_1_vitl_dist_vitG_384.pt"),
    "vjepa2_1_vitg": Release(form=vjepa2_1, sizes=GIANT, image=384, file="vjepa2_1_vitg_384.pt"),
    "vjepa2_1_vit_gigantic": Release(form=vjepa2_1, sizes=GIGANTIC, image=384, file="vjepa2_1_vitG_384.pt"),
    **LEJEPA,
    **DINOV2,
}


def network(model: str) -> nn.Module:
    """A released encoder's network with random weights; checkpoints use it as the structure of their encoder.

    Args:
        model: A name of `RELEASES`.

    Raises:
        UnknownName: If there is no such release.
    """
    return choose(RELEASES, model, "encoder")()
