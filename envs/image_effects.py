"""Image effects of a lab's camera: gain, noise, blur, compression."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageFilter

from jepa_mpc.envs.labs import ImageEffects


def degrade(image: np.ndarray, effects: ImageEffects, rng: np.random.Generator) -> np.ndarray:
    """Apply gain, blur, noise and JPEG compression to a uint8 image `(h, w, 3)`, in this order."""
    pixels = image.astype(np.float32) * effects.gain
    if effects.blur_px > 0:
        picture = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
        radius = effects.blur_px * image.shape[0] / 128
        pixels = np.asarray(picture.filter(ImageFilter.GaussianBlur(radius)), dtype=np.float32)
    if effects.noise > 0:
        pixels = pixels + effects.noise * rng.standard_normal(pixels.shape, dtype=np.float32)
    result = np.clip(np.round(pixels), 0, 255).astype(np.uint8)
    if effects.jpeg_quality >= 100:
        return result
    buffer = io.BytesIO()
    Image.fromarray(result).save(buffer, format="JPEG", quality=effects.jpeg_quality)
    return np.asarray(Image.open(buffer), dtype=np.uint8)
