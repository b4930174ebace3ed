"""The MTCNN cascade (Zhang et al. 2016, "Joint Face Detection and Alignment Using Multitask Cascaded CNNs").

Three small networks run one after the other: P-Net scans an image pyramid for candidate boxes, R-Net rejects most of
them, O-Net refines the rest and gives five landmarks. The weights are the ONNX files inside the package
`mtcnn-runtime` (see engines.packages); its Python module is not imported, because that needs OpenCV's GUI build (libGL)
and fails on images without any candidate. The work around the networks is numpy and Pillow.

Coordinates are continuous: x runs from 0 to the width, and the centre of the first pixel is 0.5.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from engines.packages import FACE_DETECTOR, Progress
from engines.photo.align import Alignment, extract, square_quad, upright_axis
from engines.runtimes.ort import session

if TYPE_CHECKING:
    import onnxruntime

FloatArray = NDArray[np.float32]

CELL = 12
"""Receptive field of P-Net and the side of its smallest face, in pixels."""
STRIDE = 2
PYRAMID_FACTOR = math.sqrt(0.5)
THRESHOLDS = (0.6, 0.7, 0.8)
"""Face probabilities that P-, R- and O-Net must exceed."""
MAX_CANDIDATES = 2000
"""Boxes that P-Net may hand on; bounds time and memory on adversarial textures."""

PATCH_SIDE = 160
"""Side of the upright patch in which landmarks are refined, in pixels."""
PATCH_SPAN = 1.6
"""The patch's side over the box's."""
REFINE_WINDOWS = np.array([(x - 48, y - 48, x + 48, y + 48) for x in (74, 80, 86) for y in (74, 80, 86)], np.float32)
"""Windows of the patch (x1, y1, x2, y2) over which landmarks are averaged. Their side of 0.95 boxes is the one at
which the FFHQ recipe on these landmarks shows no bias in scale or position (see `engines.photo.align`)."""
MIRRORED_POINTS = [1, 0, 2, 4, 3]


def suppress(
    boxes: FloatArray, scores: FloatArray, threshold: float, *, over_smaller: bool = False
) -> NDArray[np.intp]:
    """Non-maximum suppression.

    Args:
        boxes: N x 4 (x1, y1, x2, y2).
        scores: N.
        threshold: boxes that overlap a better one by more than this are dropped.
        over_smaller: measure the overlap over the smaller box instead of over the union.

    Returns:
        Indices of the boxes kept, best score first.
    """
    x1, y1, x2, y2 = boxes.T
    area = np.maximum(x2 - x1, 0) * np.maximum(y2 - y1, 0)
    order = np.argsort(-scores, kind="stable")
    indices: list[np.intp] = []
    while order.size:
        best, rest = order[0], order[1:]
        indices.append(best)
        width = np.maximum(np.minimum(x2[best], x2[rest]) - np.maximum(x1[best], x1[rest]), 0)
        height = np.maximum(np.minimum(y2[best], y2[rest]) - np.maximum(y1[best], y1[rest]), 0)
        shared = width * height
        base = np.minimum(area[best], area[rest]) if over_smaller else area[best] + area[rest] - shared
        order = rest[shared <= threshold * np.maximum(base, 1e-9)]
    return np.array(indices, dtype=np.intp)


def _regress(boxes: FloatArray, offsets: FloatArray) -> FloatArray:
    """Move each box edge by an offset in units of the box's width or height."""
    width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    return (boxes + offsets * np.stack([width, height, width, height], axis=1)).astype(np.float32)


def _square(boxes: FloatArray) -> FloatArray:
    """Squares on whole pixels with each box's centre and its longer side."""
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    side = np.maximum(np.round((boxes[:, 2:] - boxes[:, :2]).max(axis=1, keepdims=True)), 1)
    corner = np.round(centre - side / 2)
    return np.concatenate([corner, corner + side], axis=1).astype(np.float32)


def _tensor(image: Image.Image) -> FloatArray:
    """RGB image -> 3 x H x W in [-1, 1)."""
    return ((np.asarray(image, dtype=np.float32).transpose(2, 0, 1) - 127.5) / 128).astype(np.float32, copy=False)


def _outputs(net: onnxruntime.InferenceSession, batch: FloatArray) -> list[FloatArray]:
    """Box offsets, then probabilities of (no face, face); O-Net gives its landmarks before them."""
    return [np.asarray(output, dtype=np.float32) for output in net.run(None, {"input": batch})]


class Mtcnn:
    """The three sessions on ONNX Runtime's CPU provider.

    Args:
        threads: threads per network, see `engines.cpus.threads`; these networks are too small to gain much from more
            than one.

        progress: called with one line before the package with the weights is fetched.

    Raises:
        RuntimeUnavailableError, PackageError, OutputError: as `Package.find` and `Package.read`.
    """

    def __init__(self, *, threads: int = 1, progress: Progress = lambda line: None) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.inter_op_num_threads = 1
        source = FACE_DETECTOR.find(progress=progress)
        self._pnet, self._rnet, self._onet = (
            session(FACE_DETECTOR.read(source, f"weights/{name}.onnx"), threads=threads, options=options)
            for name in ("pnet", "rnet", "onet")
        )

    def __call__(self, image: Image.Image, *, min_face: float = 20.0) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Find faces.

        Args:
            image: RGB.
            min_face: side of the smallest face looked for, in pixels (at least 12).

        Returns:
            boxes N x 4 (x1, y1, x2, y2), landmarks N x 5 x 2 (left eye, right eye, nose, left and right mouth corner,
            as seen in the image) and scores N, in the image's continuous pixel coordinates. N may be 0.
        """
        boxes = self._propose(image, min_face)
        boxes, scores, _ = self._refine(self._rnet, image, boxes, side=24, threshold=THRESHOLDS[1])
        keep = suppress(boxes, scores, 0.7)
        boxes, scores, points = self._refine(
            self._onet, image, _square(boxes[keep]), side=48, threshold=THRESHOLDS[2], landmarks=True
        )
        keep = suppress(boxes, scores, 0.7, over_smaller=True)
        return boxes[keep], points[keep], scores[keep]

    def landmarks(
        self, pixels: NDArray[np.uint8], boxes: FloatArray, rough: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        """O-Net's landmarks from upright patches, averaged over nine shifts of the box and their mirror images.

        O-Net was trained on upright faces: each face is turned upright by the landmarks known so far, twice. On ten
        portraits turned by up to 45 degrees either way this lowered the largest error of the alignment's rotation
        from 6.7 to 0.7 degrees and of its scale from 26 to 3 %.

        Args:
            pixels: uint8 H x W x 3, RGB.
            boxes: N x 4, as found by the cascade.
            rough: N x 5 x 2, the cascade's own landmarks.

        Returns:
            landmarks N x 5 x 2, in the image's continuous pixel coordinates, and evidence N: how sure O-Net is of a
            face that stands upright in the patch, as the mean of -log10(1 - score) over its eighteen windows, 0 to 6.
        """
        points, evidence = rough.copy(), np.zeros(len(boxes), np.float32)
        for index, (point, box) in enumerate(zip(points, boxes, strict=True)):
            centre, half = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]).max() * PATCH_SPAN / 2
            for _ in range(2):
                across, length = upright_axis(point), math.hypot(*upright_axis(point))
                across = across / length if length > 1e-3 * half else np.array([1.0, 0.0])
                patch = Alignment(square_quad(centre, across * half))
                image = Image.fromarray(extract(pixels, patch, PATCH_SIDE))
                mirror = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
                _, scores, straight = self._run(self._onet, image, REFINE_WINDOWS, side=48, landmarks=True)
                _, others, mirrored = self._run(self._onet, mirror, REFINE_WINDOWS, side=48, landmarks=True)
                mirrored = mirrored[:, MIRRORED_POINTS] * (-1, 1) + (PATCH_SIDE, 0)
                mean = (straight.mean(axis=0) + mirrored.mean(axis=0)) / 2
                matrix = patch.crop_to_photo(PATCH_SIDE)
                point[:] = mean @ matrix[:2, :2].T + matrix[:2, 2]
                evidence[index] = -np.log10(np.maximum(1 - np.concatenate([scores, others]), 1e-6)).mean()
        return points, evidence

    def _propose(self, image: Image.Image, min_face: float) -> FloatArray:
        """P-Net over the pyramid: square candidate boxes, N x 4."""
        boxes = [np.zeros((0, 4), np.float32)]
        scores = [np.zeros(0, np.float32)]
        scale = CELL / max(min_face, CELL)
        while min(image.size) * scale >= CELL:
            size = (math.ceil(image.width * scale), math.ceil(image.height * scale))
            level = _tensor(image.resize(size, Image.Resampling.BILINEAR))
            offsets, probabilities = _outputs(self._pnet, level[None])
            row, column = np.nonzero(probabilities[0, 1] > THRESHOLDS[0])
            corner = np.stack([column, row], axis=1) * STRIDE
            # Per axis: the level was rounded up to whole pixels.
            per_pixel = np.array([image.width / size[0], image.height / size[1]])
            candidates = np.concatenate([corner * per_pixel, (corner + CELL) * per_pixel], axis=1).astype(np.float32)
            candidates = np.concatenate([candidates, offsets[0][:, row, column].T], axis=1)
            score = probabilities[0, 1, row, column]
            best = np.argsort(-score, kind="stable")[:MAX_CANDIDATES]
            best = best[suppress(candidates[best, :4], score[best], 0.5)]
            boxes.append(_regress(candidates[best, :4], candidates[best, 4:]))
            scores.append(score[best])
            scale *= PYRAMID_FACTOR
        every, score = np.concatenate(boxes), np.concatenate(scores)
        keep = suppress(every, score, 0.7)[:MAX_CANDIDATES]
        return _square(every[keep])

    def _refine(
        self,
        net: onnxruntime.InferenceSession,
        image: Image.Image,
        boxes: FloatArray,
        *,
        side: int,
        threshold: float,
        landmarks: bool = False,
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Boxes that a network takes for faces, moved by its offsets; with their scores and landmarks."""
        offsets, scores, points = self._run(net, image, boxes, side=side, landmarks=landmarks)
        keep = scores > threshold
        return _regress(boxes[keep], offsets[keep]), scores[keep], points[keep]

    def _run(
        self, net: onnxruntime.InferenceSession, image: Image.Image, boxes: FloatArray, *, side: int, landmarks: bool
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """R- or O-Net on square boxes: offsets N x 4, scores N, landmarks N x 5 x 2 (zeros from R-Net)."""
        count = len(boxes)
        points = np.zeros((count, 5, 2), np.float32)
        if count == 0:
            return np.zeros((0, 4), np.float32), np.zeros(0, np.float32), points
        crops = np.empty((count, 3, side, side), np.float32)
        for crop, box in zip(crops, boxes, strict=True):
            left, top, right, bottom = (int(edge) for edge in box)
            crop[:] = _tensor(image.crop((left, top, right, bottom)).resize((side, side), Image.Resampling.BILINEAR))
        *extra, offsets, probabilities = _outputs(net, crops)
        if landmarks:
            # All x, then all y, in units of the box.
            unit = extra[0].reshape(count, 2, 5).transpose(0, 2, 1)
            points = (boxes[:, None, :2] + unit * (boxes[:, None, 2:] - boxes[:, None, :2])).astype(np.float32)
        return offsets, probabilities[:, 1], points
