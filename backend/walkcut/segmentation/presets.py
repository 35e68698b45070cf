"""Presets: methods and their settings, by name."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from walkcut.backbones.configs import DIFFSEG, DWC, AttentionConfig
from walkcut.errors import SettingsError
from walkcut.segmentation.algorithms.pamr import Pamr
from walkcut.segmentation.algorithms.recursive_ncut import Affinity, FixedThreshold, ManC, ScaledMinCut, StoppingRule
from walkcut.segmentation.methods import Method
from walkcut.segmentation.methods.flat import AutoSC, Dbscan, DiffSeg, KMeans, MaskCut, TokenCut
from walkcut.segmentation.methods.hierarchical import AttentionMerge, DiffCut, Merge, NCut, NCutMerge


@dataclass(frozen=True)
class Preset:
    """A method with its settings."""

    name: str
    method: Method
    attention: AttentionConfig | None = None  # the self-attention that is read of a diffusion model, by default `DWC`
    pamr: Pamr | None = None  # how borders are refined afterwards, by default not at all


def _by_name(*presets: Preset) -> Mapping[str, Preset]:
    return {preset.name: preset for preset in presets}


# For annotators: trees go beyond the method's own answer, and so have finer levels too.
PRESETS = _by_name(
    Preset("merge", Merge()),
    Preset("ncut", NCut()),
    Preset("ncut+merge", NCutMerge()),
    Preset("diffcut", DiffCut()),
    Preset("diffseg", DiffSeg(), DIFFSEG),
    Preset("merge+attention", AttentionMerge(), replace(DWC, heads="entropy")),
)

_DWC_INVERTED = replace(DWC, ddim_inversion=True)  # DWC 3.1
_ALL = (8, 16, 32, 64)
_LEVELS = {"-".join(map(str, levels)): levels for levels in (_ALL, (16, 32, 64), (32, 64), (64,))}
_STEPS = {step: 981 - 20 * step for step in (25, 30, 35, 40, 45)}  # of DDIM's 50: their timesteps


def _dwc(
    row: str, rule: StoppingRule, *, levels: tuple[int, ...] = _ALL, affinity: Affinity = "dot", walk_steps: int = 1
) -> Preset:
    """Return a row of DWC's tables, cut where the rule stops."""
    method = NCut(affinity, walk_steps, rule, max_leaves=None)
    return Preset(f"dwc-{row}", method, replace(_DWC_INVERTED, levels=levels))


def _diffcut(row: str, threshold: float, exponent: float = 10, pamr: Pamr | None = None) -> Preset:
    """Return a row of the tables about DiffCut, cut where the threshold stops."""
    return Preset(row, DiffCut(FixedThreshold(threshold), exponent, max_leaves=None), pamr=pamr)


_BEST = _dwc("table3-manc-16-32-64", ManC(), levels=(16, 32, 64))

# Rows of the papers' tables whose settings the papers give. DWC's use DDIM inversion, as in its section 3.1.
PAPER_PRESETS = _by_name(
    *(
        _dwc(f"table1-{affinity}-{tau}", FixedThreshold(tau), affinity=affinity)
        for affinity in ("dot", "cosine")
        for tau in (0.4, 0.5, 0.6)
    ),
    *(_dwc(f"table2-k{steps}", ScaledMinCut(), walk_steps=steps) for steps in range(1, 6)),
    _dwc("table3-walk", FixedThreshold(0.3), affinity="walk"),
    *(_dwc(f"table3-manc-{name}", ManC(), levels=levels) for name, levels in _LEVELS.items()),
    *(_dwc(f"table3-mincut-{name}", ScaledMinCut(), levels=levels) for name, levels in _LEVELS.items()),
    replace(_BEST, name="dwc-table5-dwc"),
    replace(_BEST, name="dwc-table5-dwc-pamr", pamr=Pamr()),
    _diffcut("dwc-table5-diffcut-sd14", 0.2),
    _diffcut("dwc-table5-diffcut-sd14-pamr", 0.2, pamr=Pamr()),
    _diffcut("dwc-table5-diffcut-ssd1b", 0.5),
    *(
        replace(_BEST, name=f"dwc-table7-step-{step}", attention=replace(_DWC_INVERTED, timestep=timestep))
        for step, timestep in _STEPS.items()
    ),
    replace(_BEST, name="dwc-table7-no-inversion", attention=DWC),
    Preset("diffseg-table1", DiffSeg(1.1), DIFFSEG),
    Preset("diffseg-table1-320", DiffSeg(1.1), replace(DIFFSEG, side=320)),
    Preset("diffseg-table1-refined", DiffSeg(1.1, refine=True), DIFFSEG),
    Preset("diffseg-table1-half-precision", DiffSeg(1.1, half_precision=True), DIFFSEG),
    Preset("diffseg-table1-kmeans-c", KMeans(6), DIFFSEG),
    Preset("diffseg-table1-kmeans-s", KMeans(clusters=None), DIFFSEG),
    Preset("diffseg-table1-dbscan", Dbscan(), DIFFSEG),
    Preset("diffseg-table2", DiffSeg(0.9), DIFFSEG),
    Preset("diffseg-table2-320", DiffSeg(0.9), replace(DIFFSEG, side=320)),
    _diffcut("diffcut-table1", 0.5, pamr=Pamr()),
    Preset("diffcut-table1-diffseg", DiffSeg(1.0), DIFFSEG, Pamr()),
    Preset("diffcut-table1-maskcut", MaskCut(5)),
    Preset("diffcut-autosc", AutoSC()),
    Preset("tokencut", TokenCut()),
)


def describe(preset: Preset) -> str:
    """Return the settings of a preset in one line."""
    attention = preset.attention
    parts = [str(preset.method)]
    if attention is not None:
        levels = " ".join(map(str, attention.levels))
        inversion = ", DDIM inversion" if attention.ddim_inversion else ""
        heads = ", heads weighted by entropy" if attention.heads == "entropy" else ""
        parts.append(f"{attention.layers} layers at levels {levels}, timestep {attention.timestep}{inversion}{heads}")
    if preset.pamr is not None:
        parts.append("PAMR")
    return "; ".join(parts)


def find_preset(name: str) -> Preset:
    """Return the preset of this name. Raises `SettingsError` for an unknown name."""
    preset = PRESETS.get(name) or PAPER_PRESETS.get(name)
    if preset is None:
        raise SettingsError(
            f"unknown method {name!r}: choose one of {', '.join(PRESETS)}, or another that `walkcut presets` lists"
        )
    return preset
