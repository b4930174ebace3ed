"""Model families: the one place from which every size of every network, graph and contract is derived.

A family says how large the generator is and how wide the networks are. Nothing else in the project writes a
number of W+ rows, a feature shape or a channel width down a second time. No torch here: a serving machine reads
the family back from a bundle's manifest.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Self


def _is_power_of_two(value: int) -> bool:
    return value >= 1 and value & (value - 1) == 0


@dataclass(frozen=True, kw_only=True)
class EditorOptions:
    """Options of the paper's modules; the defaults are the paper's system, the rest are its ablations.

    Raises:
        ValueError: at construction, if an option is outside its documented values.
    """

    ftem: bool = True
    """Feature tensor enhancement (eq. 3.2). False: ablation "w/o FTEM", f' = f."""
    ftem_blocks: int = 6
    """Residual refinement blocks of the FTEM (section 4.1)."""
    ftem_out_projection: bool = True
    """Linear layer after the FTEM's attention heads."""
    edem: bool = True
    """Edit-discrepancy extraction (eq. 3.5-3.7). False: ablation "w/o EDEM", the raw feature difference."""
    edem_layers: int = 2
    """Layers of the EDEM; each is one regular-window and one shifted-window block."""
    edem_mlp_ratio: int = 4
    """Hidden width of the EDEM's MLPs over the feature width."""
    edem_out_projection: bool = True
    """Linear layer after the EDEM's attention heads."""
    window: int = 16
    """Attention window side M, in feature pixels (section 4.1)."""
    heads: int = 8
    """Attention heads of FTEM and EDEM."""
    edfm_blocks: int = 6
    """Modulated residual blocks of the EDFM (section 4.1)."""
    edfm_shared_first: bool = True
    """One first convolution for the gamma, beta and delta heads of a block, instead of one each."""
    edfm_norm: str = "instance"
    """The affine-free norm of eq. 3.9: "instance" (per image and channel) or "layer" (per pixel over channels)."""
    spade: bool = True
    """Spatially adaptive modulation (eq. 3.8-3.9). False: ablation "w/o SPADE", concatenation + residual network."""
    linear: bool = False
    """Ablation "LE": no editor network at all, f'' = f' + F~ - F."""

    def __post_init__(self) -> None:
        for name in ("ftem_blocks", "edem_layers", "edem_mlp_ratio", "window", "heads", "edfm_blocks"):
            if getattr(self, name) < 1:
                raise ValueError(f"editor option {name} must be at least 1, got {getattr(self, name)}")
        if self.edfm_norm not in ("instance", "layer"):
            raise ValueError(f'editor option edfm_norm must be "instance" or "layer", got {self.edfm_norm!r}')


@dataclass(frozen=True, kw_only=True)
class ModelFamily:
    """Sizes and widths of one generator and of the encoders and editor that belong to it.

    Raises:
        ValueError: at construction, if sizes do not fit together.
    """

    name: str
    size: int
    """Side of the square image the generator renders, in pixels."""
    visible_rows: tuple[int, int] | None = None
    """First and one-past-last image row that are kept (cars: 512x512 rendered, 384 rows kept). None: all."""
    style_dim: int = 512
    """Width of Z, W and of each W+ row."""
    mapping_layers: int = 8
    channel_base: int = 32768
    channel_max: int = 512
    """Channels at resolution r: min(channel_max, channel_base / r); the defaults are StyleGAN2 config-f."""
    feature_resolution: int = 64
    """Side H = W of the feature tensor that is replaced in the generator."""
    encoder_size: tuple[int, int] = (256, 256)
    """Height and width of the encoders' input, in pixels."""
    encoder_width: int = 64
    """Channels of the encoders' stem; the four residual stages have 1, 2, 4 and 8 times as many."""
    head_width: int = 512
    """Channels of the e4e encoder's feature pyramid and style heads."""
    rgb_skip: bool = False
    """Keep the RGB skip of the generator's own lower half (as FS and SFE do) instead of starting the image at the
    ToRGB of the injected feature (the paper's formula). Changes the inputs of the `generator` graph."""
    editor: EditorOptions = field(default_factory=EditorOptions)

    def __post_init__(self) -> None:
        if not _is_power_of_two(self.size) or self.size < 16:
            raise ValueError(f"family {self.name}: size must be a power of two of at least 16, got {self.size}")
        if not _is_power_of_two(self.feature_resolution) or not 8 <= self.feature_resolution < self.size:
            raise ValueError(
                f"family {self.name}: feature_resolution must be a power of two in [8, size), "
                f"got {self.feature_resolution}"
            )
        for name in ("style_dim", "mapping_layers", "channel_max", "encoder_width", "head_width"):
            if getattr(self, name) < 1:
                raise ValueError(f"family {self.name}: {name} must be at least 1, got {getattr(self, name)}")
        if self.channel_base < self.size:
            raise ValueError(f"family {self.name}: channel_base must be at least the size, got {self.channel_base}")
        if self.visible_rows is not None:
            first, last = self.visible_rows
            if not 0 <= first < last <= self.size:
                raise ValueError(f"family {self.name}: visible_rows {self.visible_rows} outside 0..{self.size}")
        if any(side < 16 or side % 16 for side in self.encoder_size):
            raise ValueError(f"family {self.name}: encoder_size must be multiples of 16, got {self.encoder_size}")
        if self.feature_channels % self.editor.heads:
            raise ValueError(
                f"family {self.name}: {self.feature_channels} feature channels do not divide into "
                f"{self.editor.heads} heads"
            )
        if self.feature_resolution % self.window:
            raise ValueError(
                f"family {self.name}: a {self.feature_resolution}-pixel feature does not divide into windows "
                f"of {self.window}"
            )

    def channels(self, resolution: int) -> int:
        """Generator channels at a resolution of 4..size pixels."""
        return min(self.channel_max, self.channel_base // resolution)

    @property
    def resolutions(self) -> tuple[int, ...]:
        """4, 8, ... size."""
        return tuple(2**i for i in range(2, int(math.log2(self.size)) + 1))

    @property
    def w_rows(self) -> int:
        """N, the rows of a W+ code: 2 log2(size) - 2."""
        return 2 * int(math.log2(self.size)) - 2

    @property
    def feature_conv(self) -> int:
        """Styled convolutions before the feature: it replaces the output of this many (9 for 64x64 features)."""
        return 2 * int(math.log2(self.feature_resolution)) - 3

    @property
    def feature_rows(self) -> int:
        """k, the leading W+ rows that feed the FTEM: the rows of those convolutions and of their last ToRGB."""
        return self.feature_conv + 1

    @property
    def feature_channels(self) -> int:
        """C, the channels of the feature tensor."""
        return self.channels(self.feature_resolution)

    @property
    def feature_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the feature tensor."""
        return (self.feature_channels, self.feature_resolution, self.feature_resolution)

    @property
    def window(self) -> int:
        """The EDEM's window side, never larger than the feature."""
        return min(self.editor.window, self.feature_resolution)

    @property
    def image_shape(self) -> tuple[int, int]:
        """(height, width) of the image that leaves the generator."""
        if self.visible_rows is None:
            return (self.size, self.size)
        return (self.visible_rows[1] - self.visible_rows[0], self.size)

    @property
    def style_channels(self) -> tuple[int, ...]:
        """Style widths in StyleSpace's layer order: the 4x4 conv and ToRGB, then conv, conv, ToRGB per resolution.

        At 1024 these are the 26 layers and 9,088 channels of StyleSpace's published numbering.
        """
        widths = [self.channels(4), self.channels(4)]
        for below, here in zip(self.resolutions[:-1], self.resolutions[1:], strict=True):
            widths += [self.channels(below), self.channels(here), self.channels(here)]
        return tuple(widths)

    @property
    def style_rows(self) -> tuple[int, ...]:
        """The W+ row that each layer of `style_channels` takes its style from; a ToRGB shares that of the next conv."""
        rows = [0, 1]
        for block in range(len(self.resolutions) - 1):
            rows += [2 * block + 1, 2 * block + 2, 2 * block + 3]
        return tuple(rows)

    @property
    def rgb_layers(self) -> tuple[int, ...]:
        """The layers of `style_channels` that are a ToRGB: 1, 4, 7, ..."""
        return tuple(range(1, len(self.style_channels), 3))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types, for a manifest or a training configuration."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """Inverse of `to_dict`.

        Raises:
            ValueError: for unknown or missing keys and for values that do not fit together.
        """
        known = {f.name for f in fields(cls)}
        if unknown := sorted(set(data) - known):
            raise ValueError(f"unknown family fields: {', '.join(unknown)}")
        values = dict(data)
        try:
            values["editor"] = EditorOptions(**values.get("editor", {}))
            for name in ("encoder_size", "visible_rows"):
                if values.get(name) is not None:
                    values[name] = tuple(values[name])
            return cls(**values)
        except TypeError as error:
            raise ValueError(f"not a model family: {error}") from error


FACES_1024 = ModelFamily(name="faces-1024", size=1024)

CARS_512 = ModelFamily(name="cars-512x384", size=512, visible_rows=(64, 448), encoder_size=(192, 256))

DEMO_64 = ModelFamily(
    name="demo-64",
    size=64,
    style_dim=128,
    channel_base=2048,
    channel_max=96,
    feature_resolution=16,
    encoder_size=(64, 64),
    encoder_width=16,
    head_width=64,
    editor=EditorOptions(window=8),
)

DEMO_128 = ModelFamily(
    name="demo-128",
    size=128,
    style_dim=128,
    channel_base=4096,
    channel_max=96,
    feature_resolution=32,
    encoder_size=(128, 128),
    encoder_width=16,
    head_width=64,
    editor=EditorOptions(window=8),
)

FAMILIES: dict[str, ModelFamily] = {f.name: f for f in (FACES_1024, CARS_512, DEMO_64, DEMO_128)}


def family(name: str) -> ModelFamily:
    """The family of that name.

    Raises:
        ValueError: if there is none; the message lists those there are.
    """
    try:
        return FAMILIES[name]
    except KeyError:
        raise ValueError(f"unknown model family {name!r}; there are {', '.join(FAMILIES)}") from None
