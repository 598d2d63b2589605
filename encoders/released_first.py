"""The released encoders of I-JEPA, of V-JEPA (the first) and of DINOv2: sizes, structures and files.

DINOv2 is not a JEPA: it learns from views by self-distillation, and is included as a baseline.
"""

from __future__ import annotations

from dataclasses import replace

from jepa_mpc.encoders.placed import PlacedForm
from jepa_mpc.encoders.release import Release
from jepa_mpc.encoders.video import VideoSizes
from jepa_mpc.encoders.vit import VisionTransformer, ViTSizes

BASE = VideoSizes(width=768, depth=12, heads=12, mlp_dim=3072, tubelet=1)
LARGE = VideoSizes(width=1024, depth=24, heads=16, mlp_dim=4096, tubelet=1)
HUGE = VideoSizes(width=1280, depth=32, heads=16, mlp_dim=5120, tubelet=1)
GIANT = VideoSizes(width=1408, depth=40, heads=16, mlp_dim=6144, tubelet=1)
VIDEO_LARGE, VIDEO_HUGE = replace(LARGE, tubelet=2), replace(HUGE, tubelet=2)


def _pictures(sizes: VideoSizes, file: str, repository: str | None = None, *, image: int = 224) -> Release:
    return Release(form=PlacedForm(image=image), sizes=sizes, image=image, file=file, repository=repository)


def _clips(sizes: VideoSizes, file: str, repository: str | None = None, *, image: int = 224) -> Release:
    form = PlacedForm(image=image, frames=16, table="even_thirds")
    return Release(form=form, sizes=sizes, image=image, file=file, repository=repository)


IJEPA: dict[str, Release] = {
    "ijepa_vith14_1k": _pictures(replace(HUGE, patch=14), "IN1K-vit.h.14-300e.pth.tar", "facebook/ijepa_vith14_1k"),
    "ijepa_vith16_448_1k": _pictures(HUGE, "IN1K-vit.h.16-448px-300e.pth.tar", "facebook/ijepa_vith16_1k", image=448),
    "ijepa_vith14_22k": _pictures(replace(HUGE, patch=14), "IN22K-vit.h.14-900e.pth.tar", "facebook/ijepa_vith14_22k"),
    "ijepa_vitg16_22k": _pictures(GIANT, "IN22K-vit.g.16-600e.pth.tar", "jmtzt/ijepa_vitg16_22k"),
}
VJEPA: dict[str, Release] = {
    "vjepa_vitl": _clips(VIDEO_LARGE, "vitl16.pth.tar", "nielsr/vit-large-patch16-v-jepa"),
    "vjepa_vith": _clips(VIDEO_HUGE, "vith16.pth.tar"),
    "vjepa_vith_384": _clips(VIDEO_HUGE, "vith16-384.pth.tar", image=384),
}


def dinov2(sizes: ViTSizes, *, recompute: bool = False) -> VisionTransformer:
    """The encoder of DINOv2, which outputs patch tokens; a summary token takes part in attention.

    Raises:
        ValueError: If `recompute` is set, which this encoder does not support.

    Reference: Oquab et al. 2023, arXiv:2304.07193.
    """
    if recompute:
        raise ValueError("DINOv2 is a frozen baseline and does not support recompute: omit recompute")
    return VisionTransformer(sizes, pool="dense")


def _dinov2(width: int, depth: int, heads: int, name: str) -> Release:
    sizes = ViTSizes(image=518, patch=14, width=width, depth=depth, heads=heads, mlp_dim=4 * width)
    return Release(form=dinov2, sizes=sizes, image=224, file=f"dinov2-{name}", repository=f"facebook/dinov2-{name}")


DINOV2: dict[str, Release] = {
    "dinov2_vits": _dinov2(384, 12, 6, "small"),
    "dinov2_vitb": _dinov2(768, 12, 12, "base"),
    "dinov2_vitl": _dinov2(1024, 24, 16, "large"),
}
"""Baselines, not JEPAs. The giant one has gated feed-forward parts, which are not supported."""
