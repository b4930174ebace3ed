"""Model families: the one place from which every size of every network, graph and contract is derived.

A family says how large the generator is and how wide the networks are. Nothing else in the project writes a
number of W+ rows, a feature shape or a channel width down a second time. No torch here: a serving machine reads
the family back from a bundle's manifest.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Self

GENERATORS = ("stylegan2", "mobilestylegan")
ENCODERS = ("iresnet50", "light")


def _is_power_of_two(value: int) -> bool:
    return value >= 1 and value & (value - 1) == 0


@dataclass(frozen=True, kw_only=True)
class EditorArchitecture:
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
    inner_width: int = 0
    """Width of FTEM, EDEM and EDFM between 1x1 convolutions from and to the feature's channels; 0: the feature's own
    width, as in the paper."""
    separable: bool = False
    """Depthwise 3x3 and 1x1 in place of the EDFM's dense 3x3 convolutions."""
    linear_start: bool = False
    """The editor is a correction of linear editing: d (eq. 3.6) gains F~ - F, and f'' gains m * f_delta with a gate m
    per pixel and channel that starts where f'' = f' + F~ - F. A narrow editor, which cannot carry all that an edit
    brings, learns an order of magnitude faster so (measured at inner width 128). Needs an inner width."""
    transport: bool = False
    """What f' adds to F moves along with what an edit moves, before the EDFM (see `training.networks.transport`). Needs
    an inner width: the light editor's stage alone starts and trains it."""
    surroundings: bool = False
    """Leave what surrounds an FFHQ-aligned face as it is unless an edit turns the head. Needs an inner width: the light
    editor's stage alone learns to tell."""

    def __post_init__(self) -> None:
        for name in ("ftem_blocks", "edem_layers", "edem_mlp_ratio", "window", "heads", "edfm_blocks"):
            if getattr(self, name) < 1:
                raise ValueError(f"editor option {name} must be at least 1, got {getattr(self, name)}")
        if self.inner_width < 0:
            raise ValueError(f"editor option inner_width must not be negative, got {self.inner_width}")
        if self.inner_width % self.heads:
            raise ValueError(f"editor option inner_width {self.inner_width} does not divide into {self.heads} heads")
        if self.linear_start and not (self.inner_width and self.edem and self.spade):
            raise ValueError("editor option linear_start needs an inner_width, edem and spade")
        for name in ("transport", "surroundings"):
            if getattr(self, name) and not self.inner_width:
                raise ValueError(f"editor option {name} needs an inner_width")
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
    generator: str = "stylegan2"
    """Kind of the generator, one of `GENERATORS`: "stylegan2", or "mobilestylegan" (Belousov 2021), its light student
    with the same W."""
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
    encoder: str = "iresnet50"
    """Kind of both encoders: "iresnet50", the paper's, or "light" (see `training.networks.light`)."""
    encoder_width: int = 64
    """Channels of the encoders' stem; the four residual stages have 1, 2, 4 and 8 times as many. Of light encoders: the
    width of E0's trunk; e4e's are fixed."""
    encoder_blocks: int = 3
    """Residual blocks of a light E0."""
    head_width: int = 512
    """Channels of the e4e encoder's feature pyramid and style heads."""
    rgb_skip: bool = False
    """Keep the RGB skip of the generator's own lower half (as FS and SFE do) instead of starting the image at the
    ToRGB of the injected feature (the paper's formula). Changes the inputs of the `generator` graph."""
    editor: EditorArchitecture = field(default_factory=EditorArchitecture)

    def __post_init__(self) -> None:
        for name, kinds in (("generator", GENERATORS), ("encoder", ENCODERS)):
            if getattr(self, name) not in kinds:
                raise ValueError(
                    f"family {self.name}: {name} must be one of {', '.join(kinds)}, got {getattr(self, name)!r}"
                )
        if self.generator == "mobilestylegan" and (self.rgb_skip or self.feature_resolution >= self.size // 2):
            raise ValueError(
                f"family {self.name}: MobileStyleGAN has no RGB skip and its last convolutions are at half the size; "
                "set rgb_skip to False and feature_resolution to less than half the size"
            )
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
        if self.generator == "mobilestylegan" and any(self.channels(r) % 4 for r in self.synthesis_resolutions):
            raise ValueError(
                f"family {self.name}: MobileStyleGAN's channels are four sub-bands each; channel_base and channel_max "
                f"must be multiples of 4 at every resolution, got {self.channel_base} and {self.channel_max}"
            )
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
    def synthesis_resolutions(self) -> tuple[int, ...]:
        """Resolutions at which the generator has convolutions; MobileStyleGAN's last one is half the image's."""
        return self.resolutions if self.generator == "stylegan2" else self.resolutions[:-1]

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
        """k, the leading W+ rows that feed the FTEM: those convolutions' rows and, in StyleGAN2, their last ToRGB's."""
        return self.feature_conv + (self.generator == "stylegan2")

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

        At 1024 these are the 26 layers and 9,088 channels of StyleSpace's published numbering. MobileStyleGAN: the 4x4
        conv, then up, conv, conv per resolution, and the image layer: 23 layers.
        """
        if self.generator == "mobilestylegan":
            widths = [self.channels(4)]
            for below, here in zip(self.synthesis_resolutions[:-1], self.synthesis_resolutions[1:], strict=True):
                widths += [self.channels(below), self.channels(below) // 4, self.channels(here)]
            return (*widths, self.channels(self.synthesis_resolutions[-1]))
        widths = [self.channels(4), self.channels(4)]
        for below, here in zip(self.resolutions[:-1], self.resolutions[1:], strict=True):
            widths += [self.channels(below), self.channels(here), self.channels(here)]
        return tuple(widths)

    @property
    def style_rows(self) -> tuple[int, ...]:
        """The W+ row that each layer of `style_channels` takes its style from; a ToRGB shares that of the next conv.

        MobileStyleGAN's rows are counted by resolution as well, an up layer sharing that of the next conv, so that a
        direction for some rows of StyleGAN2 keeps its meaning; its last two rows are not used.
        """
        if self.generator == "mobilestylegan":
            blocks = range(len(self.synthesis_resolutions) - 1)
            return (0, *(row for i in blocks for row in (2 * i + 1, 2 * i + 1, 2 * i + 2)), 2 * len(blocks) + 1)
        rows = [0, 1]
        for block in range(len(self.resolutions) - 1):
            rows += [2 * block + 1, 2 * block + 2, 2 * block + 3]
        return tuple(rows)

    @property
    def rows_read(self) -> int:
        """Leading W+ rows that some layer takes its style from: all N, in MobileStyleGAN N - 2."""
        return max(self.style_rows) + 1

    @property
    def rgb_layers(self) -> tuple[int, ...]:
        """The layers of `style_channels` that make an image: 1, 4, 7, ...; MobileStyleGAN's last one."""
        if self.generator == "mobilestylegan":
            return (len(self.style_channels) - 1,)
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
            values["editor"] = EditorArchitecture(**values.get("editor", {}))
            for name in ("encoder_size", "visible_rows"):
                if values.get(name) is not None:
                    values[name] = tuple(values[name])
            return cls(**values)
        except TypeError as error:
            raise ValueError(f"not a model family: {error}") from error


FACES_1024 = ModelFamily(name="faces-1024", size=1024)

CARS_512 = ModelFamily(name="cars-512x384", size=512, visible_rows=(64, 448), encoder_size=(192, 256))

FACES_1024_MOBILE = ModelFamily(
    name="faces-1024-mobile",
    size=1024,
    generator="mobilestylegan",
    encoder="light",
    encoder_width=160,
    encoder_blocks=3,
    editor=EditorArchitecture(
        ftem_blocks=2,
        edem_mlp_ratio=2,
        edfm_blocks=4,
        edfm_norm="layer",
        inner_width=160,
        separable=True,
        linear_start=True,
        transport=True,
        surroundings=True,
    ),
)

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
    editor=EditorArchitecture(window=8),
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
    editor=EditorArchitecture(window=8),
)

DEFAULT_FAMILY = FACES_1024_MOBILE
"""The family of the model that is shipped, and of the recipe (recipes are named after families) where none is named."""

FAMILIES: dict[str, ModelFamily] = {f.name: f for f in (FACES_1024, CARS_512, FACES_1024_MOBILE, DEMO_64, DEMO_128)}


def family(name: str) -> ModelFamily:
    """The family of that name.

    Raises:
        ValueError: if there is none; the message lists those there are.
    """
    try:
        return FAMILIES[name]
    except KeyError:
        raise ValueError(f"unknown model family {name!r}; there are {', '.join(FAMILIES)}") from None
