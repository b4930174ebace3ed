"""From a photo to an aligned face and back: open, detect, align, read light and colours, paste, save. No torch here."""

from __future__ import annotations

from engines.photo.align import Alignment, align, aligned_square, extract, ffhq_alignment
from engines.photo.crop import Cropper, Cut
from engines.photo.detect import Face, FaceDetector, choose_face
from engines.photo.images import MAX_MEGAPIXELS, MIN_SIDE, Photo, open_image, photo_name, save_image
from engines.photo.paste import PasteMode, feather, paste_back, paste_mode
from engines.photo.tone import Tone, read_tone

__all__ = [
    "MAX_MEGAPIXELS",
    "MIN_SIDE",
    "Alignment",
    "Cropper",
    "Cut",
    "Face",
    "FaceDetector",
    "PasteMode",
    "Photo",
    "Tone",
    "align",
    "aligned_square",
    "choose_face",
    "extract",
    "feather",
    "ffhq_alignment",
    "open_image",
    "paste_back",
    "paste_mode",
    "photo_name",
    "read_tone",
    "save_image",
]
