"""Attribute networks that score faces: age, gender, expression and head pose.

They label generated samples when directions are fitted and judge edits when a model is measured. Each is an ONNX file
the user names; the contracts are stated per function.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from engines.runtimes.ort import session
from training.losses.identity import face_crop

ATTRIBUTE_CROP = (0.20, 0.17, 0.66)
"""Tight face inside an FFHQ-aligned image (top, left, side as fractions), where the age and expression networks agree
best with their own scores on detector crops (r = 0.97 and 0.94 on 130 faces)."""

_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True, kw_only=True)
class JudgeFiles:
    """Files of the networks; None leaves out the attributes that need it."""

    age_gender: Path | None = None
    """Input `image` B x 3 x 112 x 112 in [0, 1]; outputs `age` in years and `p_male`."""
    expression: Path | None = None
    """The same input; outputs seven probabilities: neutral, happy, sad, angry, fearful, disgusted, surprised."""
    pose: Path | None = None
    """Input 1 x 3 x 224 x 224, ImageNet-normalised; outputs 66 bins of 3 degrees from -99 for yaw, pitch and roll."""


EXPRESSIONS = {"smile": 1, "sadness": 2, "anger": 3, "surprise": 6}
"""Scored expressions and their index; "smile" is happiness."""
POSES = {"yaw": 0, "pitch": 1}
"""Scored angles and their output."""


class Judges:
    """Scores of FFHQ-aligned images; `names` lists the attributes that can be scored ("male" is one less "female")."""

    def __init__(self, files: JudgeFiles, *, threads: int = 0) -> None:
        self._age = session(files.age_gender, threads=threads) if files.age_gender else None
        self._expression = session(files.expression, threads=threads) if files.expression else None
        self._pose = session(files.pose, threads=threads) if files.pose else None

    @property
    def names(self) -> tuple[str, ...]:
        scored: list[str] = []
        if self._age:
            scored += ["age", "female"]
        if self._expression:
            scored += EXPRESSIONS
        if self._pose:
            scored += POSES
        return tuple(scored)

    @torch.no_grad()
    def score(self, images: Tensor, names: tuple[str, ...] | None = None) -> dict[str, np.ndarray]:
        """Scores images B x 3 x S x S in [-1, 1].

        Returns:
            By attribute, B values: `age` in years, `female` and expressions as probabilities, `yaw` and `pitch` in
            degrees.
        """
        wanted = self.names if names is None else names
        if not wanted:
            return {}
        images = images.float().cpu().clamp(-1, 1)
        scores: dict[str, np.ndarray] = {}
        tight = face_crop(images, crop=ATTRIBUTE_CROP).add(1).div(2).clamp(0, 1).numpy()
        if self._age and {"age", "female", "male"} & set(wanted):
            age, male = (np.asarray(values) for values in self._age.run(["age", "p_male"], {"image": tight}))
            scores |= {"age": age, "female": 1.0 - male, "male": male}
        if self._expression and EXPRESSIONS.keys() & set(wanted):
            probabilities = np.asarray(self._expression.run(None, {"image": tight})[0])
            scores |= {name: probabilities[:, index] for name, index in EXPRESSIONS.items()}
        if self._pose and POSES.keys() & set(wanted):
            scores |= self._angles(images)
        return {name: scores[name] for name in wanted}

    def _angles(self, images: Tensor) -> dict[str, np.ndarray]:
        assert self._pose is not None
        x = F.interpolate(images.add(1).div(2), size=(224, 224), mode="bilinear", align_corners=False)
        mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (_IMAGENET_MEAN, _IMAGENET_STD))
        x = ((x - mean) / std).numpy()
        source = self._pose.get_inputs()[0].name
        outputs = [self._pose.run(None, {source: x[i : i + 1]}) for i in range(len(x))]
        angles = {}
        for name, index in POSES.items():
            bins = np.concatenate([output[index] for output in outputs])
            share = np.exp(bins - bins.max(axis=1, keepdims=True))
            share /= share.sum(axis=1, keepdims=True)
            angles[name] = share @ np.arange(66, dtype=np.float32) * 3.0 - 99.0
        return angles
