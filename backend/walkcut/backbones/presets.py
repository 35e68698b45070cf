"""How a diffusion model is looked at: which self-attention and features are read, when, and the papers' choices."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class AttentionConfig:
    """Which self-attention is read, and when.

    A level of 64 has 64 patches on 512 pixels; levels that a model lacks are left out. `layers` are those of the
    `decoder` with the middle block, or `all`. With `ddim_inversion`, the latent is brought to the timestep by DDIM inversion,
    20 of the 1000 timesteps at a time; without, the pass sees the image's latent as it is. The image is seen at the
    area of a square of `side` pixels, without one at that of the squares that the model was trained on.
    """

    levels: tuple[int, ...]
    layers: Literal["decoder", "all"]
    timestep: int
    ddim_inversion: bool = False
    side: int | None = None


@dataclass(frozen=True)
class FeatureConfig:
    """At which timestep features are read, the seed of the noise that is added, and the patches of a square's side."""

    timestep: int
    seed: int
    patches: int


# Step 40, counted from 0, of DDIM's 50 steps 981, 961 … 1; ten steps of inversion end just there (DWC 3.1, table 7).
DWC = AttentionConfig((16, 32, 64), "decoder", 181)
DIFFSEG = AttentionConfig((8, 16, 32, 64), "all", 300)  # DiffSeg 3.2 and table 3
DIFFCUT = FeatureConfig(50, 42, 32)  # DiffCut 3.3 and 4, and its authors' program: 1024 pixels, with each of its models
