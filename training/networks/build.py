"""The networks of a family, by the kinds of generator and encoders that it names."""

from __future__ import annotations

from engines.family import ModelFamily
from training.networks.e4e import E4EEncoder
from training.networks.feature_style import FeatureStyleEncoder
from training.networks.light import LightE4EEncoder, LightFeatureStyleEncoder
from training.networks.mobilestylegan import MobileGenerator
from training.networks.stylegan2 import Generator


def generator(family: ModelFamily) -> Generator | MobileGenerator:
    """The family's generator, with random weights."""
    return MobileGenerator(family) if family.generator == "mobilestylegan" else Generator(family)


def base_encoder(family: ModelFamily) -> FeatureStyleEncoder | LightFeatureStyleEncoder:
    """The family's E0 (eq. 3.1), with random weights."""
    return LightFeatureStyleEncoder(family) if family.encoder == "light" else FeatureStyleEncoder(family)


def e4e_encoder(family: ModelFamily) -> E4EEncoder | LightE4EEncoder:
    """The family's editing-friendly encoder, with random weights."""
    return LightE4EEncoder(family) if family.encoder == "light" else E4EEncoder(family)
