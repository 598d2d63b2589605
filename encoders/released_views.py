"""The released encoders of LeJEPA: sizes and files."""

from __future__ import annotations

from jepa_mpc.encoders.release import Release
from jepa_mpc.encoders.vit import VisionTransformer, ViTSizes


def lejepa(sizes: ViTSizes, *, recompute: bool = False) -> VisionTransformer:
    """The encoder of LeJEPA, which outputs patch tokens; a summary token takes part in attention.

    Raises:
        ValueError: If `recompute` is set, which this encoder does not support.

    Reference: Balestriero and LeCun 2025, arXiv:2511.08544.
    """
    if recompute:
        raise ValueError("the encoder of LeJEPA does not support recompute: omit recompute")
    return VisionTransformer(sizes, pool="dense")


def _release(width: int, heads: int, name: str) -> Release:
    sizes = ViTSizes(image=224, patch=16, width=width, depth=12, heads=heads, mlp_dim=4 * width)
    place = f"OK-AI/lejepa-{name}-pretrain-in1k"
    return Release(form=lejepa, sizes=sizes, image=224, file=place, repository=place)


LEJEPA: dict[str, Release] = {
    "lejepa_vits": _release(384, 6, "vits16"),
    "lejepa_vitb": _release(768, 12, "vitb16"),
}
