"""Edit directions of a trained generator: attribute directions (InterFaceGAN, Shen et al. 2020) and principal
components (GANSpace, Harkonen et al. 2020), in W or in W+.

Codes are either mapped draws, rendered and scored by the judges, or the e4e codes of the training photos with the
photos' own scores: W+ then, and labels as good as photos give them. A direction is either the shrunk linear
discriminant between the highest and lowest scores, made orthogonal to the attributes it is entangled with, or the
regression of the codes on all scores together: how the mean code moves with one attribute while the others stay. One
unit of strength is one standard deviation of the codes along the direction. The usable range is measured: how far
codes can go before the identity is lost.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from rich.progress import track
from torch import Tensor, nn

from engines.directions import Direction, Space
from training.data import FaceSet, encoder_input, visible
from training.measuring.judges import Judges
from training.networks.stylegan2 import Generator
from training.stages.pairs import PairSet

WORDS = {
    "smile": "neutral to smiling",
    "age": "younger to older",
    "female": "more masculine to more feminine",
    "yaw": "head turned to one side or the other",
    "pitch": "head lowered to raised",
    "anger": "calm to angry",
    "sadness": "calm to sad",
    "surprise": "calm to surprised",
}
LICENCE = "Apache-2.0"


@dataclass(frozen=True, kw_only=True)
class FitOptions:
    """Settings of the fit."""

    samples: int = 4000
    photos: bool = False
    """Use the e4e codes of that many training photos in place of mapped draws."""
    regression: bool = False
    """Regress the codes on the scores in place of separating high scores from low ones."""
    normal: bool = False
    """Regress each score on the codes, by ridge: the direction in which the score changes fastest, at the least change
    of the rest. It serves rare attributes as well, which few samples have; probabilities count by their logits."""
    attributes: tuple[str, ...] = ()
    """Attributes that get a direction; empty: all that the judges score."""
    batch: int = 50
    share: float = 0.2
    """Share of the samples at either end that count as having or lacking an attribute."""
    shrinkage: float = 0.3
    """The share by which the within-class covariance is drawn towards a multiple of the identity, 0 to 1."""
    orthogonalise: tuple[tuple[str, str], ...] = (("smile", "age"), ("smile", "female"), ("age", "female"))
    """(a, b): the direction of a is made orthogonal to that of b."""
    components: int = 8
    """The number of GANSpace components that become directions."""
    identity_floor: float = 0.4
    """The range of strengths ends where the mean identity cosine to the unedited sample falls below this."""
    limit: float = 6.0
    """The range never goes beyond this strength."""
    probes: int = 48
    """Samples the range is measured on."""


@dataclass(frozen=True)
class Samples:
    """Scored codes, W (M x D) or W+ (M x N x D), and by attribute M scores."""

    w: np.ndarray
    scores: dict[str, np.ndarray]


def _scored(batches: Iterable[tuple[Tensor, Tensor]], judges: Judges) -> Samples:
    """Batches of codes, and the images that their scores are of."""
    codes: list[Tensor] = []
    scores: dict[str, list[np.ndarray]] = {name: [] for name in judges.names}
    for w, images in batches:
        for name, values in judges.score(images).items():
            scores[name].append(values)
        codes.append(w.cpu())
    return Samples(torch.cat(codes).numpy(), {name: np.concatenate(v) for name, v in scores.items()})


@torch.no_grad()
def sample(generator: Generator, judges: Judges, options: FitOptions, *, seed: int = 0) -> Samples:
    """Renders and scores random samples."""
    source = torch.Generator().manual_seed(seed)
    device = generator.input.input.device

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        for _ in track(range(options.samples // options.batch), description="scoring samples"):
            z = torch.randn(options.batch, generator.family.style_dim, generator=source).to(device)
            w = generator.mapping(z)
            # Without judges there is nothing to score, and no picture to be drawn.
            yield w, generator(generator.broadcast(w)) if judges.names else w

    return _scored(batches(), judges)


@torch.no_grad()
def photo_codes(
    e4e: nn.Module,
    generator: Generator,
    mean: Tensor,
    faces: FaceSet,
    judges: Judges,
    options: FitOptions,
    *,
    seed: int = 0,
) -> Samples:
    """W+ codes of training photos, drawn by seed, with the photos' own scores.

    Args:
        e4e: encoder of offsets from the mean code.
        mean: D.
    """
    chosen = np.random.default_rng(seed).permutation(len(faces))[: options.samples]

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        for start in track(range(0, len(chosen), options.batch), description="scoring photos"):
            images = faces.tensor(chosen[start : start + options.batch], mean.device)
            yield e4e(encoder_input(images, generator.family)) + mean, images

    return _scored(batches(), judges)


def pair_codes(pairs: PairSet, judges: Judges, options: FitOptions) -> Samples:
    """Codes of W with the scores of the pictures rendered from them, the first of the synthetic pairs."""
    count = min(options.samples, len(pairs))

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        for start in track(range(0, count, options.batch), description="scoring pairs"):
            images, codes = pairs.batch(np.arange(start, min(start + options.batch, count)))
            yield codes, images

    return _scored(batches(), judges)


def slopes(w: np.ndarray, scores: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The unit vector (D) of each attribute along which the mean code moves with its score while the other scores stay.

    Args:
        w: M x D codes.
        scores: M values each.

    Raises:
        ValueError: if all scores of an attribute are equal.
    """
    if flat := [name for name, values in scores.items() if np.ptp(values) == 0]:
        raise ValueError(f"all samples have the same score for {flat[0]}; there is no direction to find")
    design = np.stack([(v - v.mean()) / v.std() for v in scores.values()], axis=1)
    slopes, *_ = np.linalg.lstsq(design, w - w.mean(axis=0), rcond=None)
    return {name: row / np.linalg.norm(row) for name, row in zip(scores, slopes, strict=True)}


def normals(
    w: np.ndarray, scores: dict[str, np.ndarray], fixed: Sequence[np.ndarray] = (), ridge: float = 0.2
) -> dict[str, np.ndarray]:
    """The unit vector (D) of each attribute along which its score changes fastest.

    Args:
        w: M x D codes.
        scores: M values each; those within [0, 1] are probabilities, of which the logit is regressed.
        fixed: directions that all results are made orthogonal to, each D.
        ridge: penalty over the mean variance of the codes' elements.

    Raises:
        ValueError: if all scores of an attribute are equal.
    """
    if flat := [name for name, values in scores.items() if np.ptp(values) == 0]:
        raise ValueError(f"all samples have the same score for {flat[0]}; there is no direction to find")
    centred = w - w.mean(axis=0)
    covariance = centred.T @ centred / len(w)
    penalised = covariance + ridge * np.trace(covariance) / len(covariance) * np.eye(len(covariance))
    basis = np.linalg.qr(np.stack(fixed, axis=1))[0] if len(fixed) else np.zeros((w.shape[1], 0))
    result = {}
    for name, values in scores.items():
        if values.min() >= 0 and values.max() <= 1:
            values = np.log((values + 1e-4) / (1 + 1e-4 - values))
        vector = np.linalg.solve(penalised, centred.T @ (values - values.mean()) / len(w))
        vector -= basis @ (basis.T @ vector)
        result[name] = vector / np.linalg.norm(vector)
    return result


def _drawn(generator: Generator, codes: Tensor, batch: int) -> Iterator[Tensor]:
    """The pictures of codes of W or W+, batch by batch, without the rows that show nothing."""
    for part in codes.split(batch):
        yield visible(generator(generator.broadcast(part) if part.dim() == 2 else part), generator.family)


def discriminant(w: np.ndarray, scores: np.ndarray, *, share: float, shrinkage: float) -> np.ndarray:
    """Unit normal (D) that separates the highest from the lowest scores.

    Args:
        w: M x D codes.
        scores: M values.
        share: share of the samples in either class.
        shrinkage: 0 is Fisher's discriminant, 1 the difference of the means.

    Raises:
        ValueError: if all scores are equal.
    """
    if np.ptp(scores) == 0:
        raise ValueError("all samples have the same score; there is no direction to find")
    order = np.argsort(scores)
    count = max(int(len(scores) * share), 2)
    low, high = w[order[:count]], w[order[-count:]]
    within = (np.cov(low.T) + np.cov(high.T)) / 2
    target = np.eye(w.shape[1]) * np.trace(within) / w.shape[1]
    normal = np.linalg.solve((1 - shrinkage) * within + shrinkage * target, high.mean(0) - low.mean(0))
    return normal / np.linalg.norm(normal)


def orthogonalise(normals: dict[str, np.ndarray], pairs: Sequence[tuple[str, str]]) -> dict[str, np.ndarray]:
    """Makes each direction orthogonal to those it is paired with (all at once), unit length again."""
    result = dict(normals)
    for name in normals:
        others = [normals[b] for a, b in pairs if a == name and b in normals]
        if not others:
            continue
        basis, _ = np.linalg.qr(np.stack(others, axis=1))
        rest = normals[name] - basis @ (basis.T @ normals[name])
        result[name] = rest / np.linalg.norm(rest)
    return result


@torch.no_grad()
def usable_range(
    generator: Generator, identity: nn.Module, w: np.ndarray, vector: np.ndarray, options: FitOptions
) -> tuple[float, float]:
    """Lowest and highest strength at which samples keep their identity.

    Args:
        w: M x D (or M x N x D) codes to probe.
        vector: D (or N x D), one unit of strength.
    """
    device = generator.input.input.device
    codes = torch.from_numpy(w).float().to(device)
    step = torch.from_numpy(vector).float().to(device)

    def embedded(moved: Tensor) -> Tensor:
        return torch.cat([identity(images) for images in _drawn(generator, moved, options.batch)])

    start = embedded(codes)
    ends = []
    for sign in (-1.0, 1.0):
        reached = 0.5
        for strength in np.arange(0.5, options.limit + 1e-9, 0.5):
            if (embedded(codes + sign * strength * step) * start).sum(dim=1).mean() < options.identity_floor:
                break
            reached = float(strength)
        ends.append(sign * reached)
    return ends[0], ends[1]


def fit(
    generator: Generator,
    judges: Judges,
    identity: nn.Module,
    options: FitOptions,
    *,
    seed: int = 0,
    samples: Samples | None = None,
    fixed: Sequence[np.ndarray] = (),
) -> tuple[list[Direction], dict[str, dict[str, float]]]:
    """Fits all directions of a generator.

    Args:
        samples: scored codes, such as those of `photo_codes`; None: mapped draws.
        fixed: directions D that those found with `FitOptions.normal` are made orthogonal to.

    Returns:
        The directions, and by direction what one positive unit does to the mean score of each attribute.
    """
    origin = f"{options.samples} {'samples of the generator' if samples is None else 'training photos'}, seed {seed}"
    samples = samples or sample(generator, judges, options, seed=seed)
    shape = samples.w.shape[1:]
    flat = samples.w.reshape(len(samples.w), -1).astype(np.float64)
    if options.normal:
        vectors = normals(flat, samples.scores, fixed)
    elif options.regression:
        vectors = slopes(flat, samples.scores)
    else:
        vectors = orthogonalise(
            {
                name: discriminant(flat, scores, share=options.share, shrinkage=options.shrinkage)
                for name, scores in samples.scores.items()
            },
            options.orthogonalise,
        )
    centred = flat - flat.mean(axis=0)
    space: Space = "w" if len(shape) == 1 else "w+"
    fitted: list[tuple[str, str, str, np.ndarray]] = []
    for name in options.attributes or vectors:
        normal = vectors[name]
        vector = normal * (centred @ normal).std()
        fitted.append((name, "interfacegan", WORDS.get(name, name), vector))
    _, spread, axes = np.linalg.svd(centred, full_matrices=False)
    for index in range(min(options.components, len(axes))):
        vector = axes[index] * spread[index] / np.sqrt(len(centred))
        fitted.append((f"pc{index:02d}", "ganspace", f"principal component {index} of {space.upper()}", vector))
    directions, effects = [], {}
    for name, kind, words, flat_vector in track(fitted, description="measuring ranges"):
        vector = flat_vector.reshape(shape)
        low, high = usable_range(generator, identity, samples.w[: options.probes], vector, options)
        effects[name] = _effect(generator, judges, samples.w[: options.probes], vector, options.batch)
        directions.append(
            Direction(
                name=name,
                kind=kind,  # type: ignore[arg-type]
                space=space,
                vector=vector.astype(np.float32),
                min_strength=low,
                max_strength=high,
                description=words,
                source=f"fitted to {origin}",
                licence=LICENCE,
            )
        )
    return directions, effects


@torch.no_grad()
def _effect(generator: Generator, judges: Judges, w: np.ndarray, vector: np.ndarray, batch: int) -> dict[str, float]:
    device = generator.input.input.device
    codes, step = (torch.from_numpy(a).float().to(device) for a in (w, vector))
    changes: dict[str, list[np.ndarray]] = {name: [] for name in judges.names}
    if changes:
        ends = (_drawn(generator, codes + sign * step, batch) for sign in (-1, 1))
        for before, after in zip(*(map(judges.score, images) for images in ends), strict=True):
            for name, values in changes.items():
                values.append(after[name] - before[name])
    return {name: float(np.concatenate(values).mean() / 2) for name, values in changes.items()}
