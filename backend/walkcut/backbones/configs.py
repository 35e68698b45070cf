"""Which self-attention and features of a diffusion model are read, and the papers' choices."""

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class AttentionConfig:
    """Choice of the self-attention that is read.

    Attributes:
        levels: resolutions, as the number of patches on 512 pixels; those that a model lacks are skipped
        layers: those of the decoder and the middle block, or all
        timestep: of 1000
        ddim_inversion: whether the latent is brought to the timestep by DDIM inversion, or taken as it is
        side: the image is resized to the area of a square of this side in pixels; by default, that of training
        heads: whether heads count equally, as in the papers, or each by how far its attention is from uniform
    """

    levels: tuple[int, ...]
    layers: Literal["decoder", "all"]
    timestep: int
    ddim_inversion: bool = False
    side: int | None = None
    heads: Literal["equal", "entropy"] = field(default="equal", repr=False)  # named in versions where not equal


@dataclass(frozen=True)
class FeatureConfig:
    """Timestep at which features are read, seed of the added noise, and number of patches along a square's side."""

    timestep: int
    seed: int
    patches: int


# Step 40, counted from 0, of DDIM's 50 steps 981, 961 … 1, which ten steps of inversion reach (DWC 3.1, table 7).
DWC = AttentionConfig((16, 32, 64), "decoder", 181)
DIFFSEG = AttentionConfig((8, 16, 32, 64), "all", 300)  # DiffSeg 3.2 and table 3
DIFFCUT = FeatureConfig(50, 42, 32)  # DiffCut 3.3 and 4, and its program: 1024 pixels for each model
