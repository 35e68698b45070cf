"""Networks of the user's in ONNX files: a contour, features, or both."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Final, Literal

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from walkcut.backbones import FeatureKind, ImageFeatures
from walkcut.backbones.classical import CONTOUR_ERROR, ClassicalBackbone, contour_strength
from walkcut.backbones.devices import cpu_threads
from walkcut.backbones.embedding import embed_features
from walkcut.backbones.hed import RULE
from walkcut.backbones.resize import resample, resize
from walkcut.errors import SegmentationError, SettingsError, format_reason, require_extra
from walkcut.hierarchy.merge_rule import MergeRule
from walkcut.telemetry.spans import span

Output = Literal["contour", "features"]

_REVISION = 1  # raise it when the same settings give other features
_MAX_SIDE, _MIN_SIDE = 512, 16  # pixels that a network sees
_OUTPUTS: Final[tuple[Output, ...]] = ("contour", "features")
_TRIAL = (76, 100)  # pixels of a grey ramp; multiples of 4 alone
_ROUNDING = 1e-3  # by which a contour may leave [0, 1]


@dataclass(frozen=True)
class OnnxNetwork:
    """A network that takes an image, 1×3×height×width in RGB from 0 to 1.

    Attributes:
        path: its file
        session: that of ONNX Runtime
        digest: eight hexadecimal digits of the file's SHA-256
        outputs: `contour`, `features` or both
        fixed: height and width that the file fixes, `None` where it takes any
        multiple: of which other heights and widths are made
        weight: that of the features' distance in the merge rule, or `None` for the rule's own
    """

    path: Path
    session: Any = field(repr=False)
    digest: str
    outputs: tuple[Output, ...]
    fixed: tuple[int | None, int | None] = (None, None)
    multiple: int = 1
    weight: float | None = None

    def seen_size(self, height: int, width: int) -> tuple[int, int]:
        """Return the size of an image for the network: at most 512 pixels long, unless the file fixes other sides."""
        scale = min(1.0, _MAX_SIDE / max(height, width))
        sides = [max(_MIN_SIDE, round(side * scale)) for side in (height, width)]
        most = _MAX_SIDE // self.multiple
        height, width = (max(1, min(most, round(side / self.multiple))) * self.multiple for side in sides)
        return self.fixed[0] or height, self.fixed[1] or width

    def run(self, image: UInt8[Tensor, "y x 3"]) -> dict[str, Float[Tensor, "c h w"]]:
        """Return the outputs by name. Raises `SegmentationError` for those of a wrong shape or with wrong values."""
        size = self.seen_size(image.shape[0], image.shape[1])
        pixels = resize(image, size).clamp(0, 1).numpy(force=True)
        name = self.session.get_inputs()[0].name
        try:
            with span("model"):
                arrays = self.session.run(self.outputs, {name: pixels})
        except Exception as error:
            raise SegmentationError(
                f"{self.path} cannot run on {size[0]}×{size[1]} pixels ({format_reason(error)}): "
                "export it with dynamic height and width and, if it needs them, the metadata `multiple`"
            ) from error
        outputs = {output: torch.from_numpy(array) for output, array in zip(self.outputs, arrays, strict=True)}
        for output, values in outputs.items():
            self._check(output, values)
        return {output: values[0].float().to(image.device) for output, values in outputs.items()}

    def _check(self, output: str, values: Tensor) -> None:
        """Raise `SegmentationError` where an output is not what its name promises."""
        channels = "1" if output == "contour" else "channels"
        shape = "×".join(map(str, values.shape))
        if values.ndim != 4 or len(values) != 1 or (output == "contour" and values.shape[1] != 1) or not values.numel():
            raise SegmentationError(f"{self.path} gave {output} of {shape}: it must be 1×{channels}×height×width")
        if not bool(values.isfinite().all()):
            raise SegmentationError(
                f"{self.path} gave {output} that is not finite: check its weights and its precision"
            )
        low, high = float(values.min()), float(values.max())
        if output == "contour" and not -_ROUNDING <= low <= high <= 1 + _ROUNDING:
            raise SegmentationError(
                f"{self.path} gave a contour from {low:.3g} to {high:.3g}: it must be within 0 and 1, so end the "
                "network in a sigmoid"
            )


@dataclass(frozen=True)
class OnnxBackbone:
    """Outputs of a network, and the rest of the classical model: the contour or the histograms, and the walk.

    Features serve the merging beside the histograms; where no contour is asked for, they are the feature map.
    """

    provides: ClassVar[frozenset[FeatureKind]] = ClassicalBackbone.provides

    network: OnnxNetwork
    classical: ClassicalBackbone = field(default_factory=ClassicalBackbone)

    @property
    def version(self) -> str:
        """Revision, file with its metadata, and settings."""
        return f"onnx-{_REVISION} {self.network.digest} {self.classical.version}"

    def extract(self, image: UInt8[Tensor, "y x 3"], kinds: frozenset[FeatureKind]) -> ImageFeatures:
        """Return contour and histograms at the working resolution with the features, and one attention map."""
        with span("features"):
            outputs = self.network.run(image)
            feature_map = outputs.get("features")
            histograms = self.classical.histograms(image)
            size = (histograms.shape[1], histograms.shape[2])
            contour = self._contour(outputs, histograms) if kinds & {"contour", "attention_maps"} else None
            features = self.classical.features(histograms, contour, kinds)
            error = 0 if "contour" in outputs else CONTOUR_ERROR
            features = replace(features, merge_rule=self._rule(), contour_error=error)
            if feature_map is None or "feature_map" not in kinds:
                return features
            if "contour" not in kinds:
                return replace(features, feature_map=feature_map)
            return replace(features, embedding=embed_features(feature_map, size))

    def _contour(
        self, outputs: Mapping[str, Float[Tensor, "_ _ _"]], histograms: Float[Tensor, "c h w"]
    ) -> Float[Tensor, "h w"]:
        if "contour" not in outputs:
            return contour_strength(histograms)
        return resample(outputs["contour"], (histograms.shape[1], histograms.shape[2]))[0].clamp(0, 1)

    def _rule(self) -> MergeRule:
        rule = RULE if "contour" in self.network.outputs else MergeRule()
        return rule if self.network.weight is None else replace(rule, embedding=self.network.weight)


def load_onnx(path: Path) -> OnnxBackbone:
    """Load a network and try it once. Raises `SettingsError` for a file that is no such network.

    It computes on the CPU, with as many threads as torch.
    """
    with require_extra("onnx"):
        import onnxruntime  # noqa: PLC0415 - an extra
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SettingsError(f"{path} cannot be read ({error.strerror}): give the path of an ONNX file") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = cpu_threads(), 1
    options.use_deterministic_compute = True
    options.log_severity_level = 3  # errors
    try:
        session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise SettingsError(
            f"{path} is no ONNX network that can be loaded ({format_reason(error)}): export it again, "
            "with its weights in the same file"
        ) from error
    network = _checked(path, session, hashlib.sha256(data).hexdigest()[:8])
    try:
        network.run(torch.linspace(0, 255, _TRIAL[1]).to(torch.uint8)[:, None].expand(*_TRIAL, 3))
    except SegmentationError as error:
        raise SettingsError(str(error)) from error
    return OnnxBackbone(network)


def _checked(path: Path, session: Any, digest: str) -> OnnxNetwork:
    """Return the network. Raises `SettingsError` where it takes or gives something else."""
    inputs, given = session.get_inputs(), [output.name for output in session.get_outputs()]
    if not (len(inputs) == 1 and inputs[0].type == "tensor(float)" and _is_image(inputs[0].shape)):
        taken = ", ".join(f"{value.name} {value.shape} of {value.type}" for value in inputs)
        raise SettingsError(f"{path} takes {taken}: it must take one image, 1×3×height×width, as floats")
    outputs = tuple(name for name in _OUTPUTS if name in given)
    if not outputs:
        raise SettingsError(f"{path} gives {', '.join(given)}: name an output contour or features")
    height, width = (side if isinstance(side, int) else None for side in inputs[0].shape[2:])
    metadata = session.get_modelmeta().custom_metadata_map
    multiple, weight = (_number(path, metadata, name) for name in ("multiple", "weight"))
    if multiple is not None and (multiple < 1 or multiple % 1):
        raise SettingsError(f"{path} has the metadata multiple={multiple:g}: write an integer of at least 1")
    return OnnxNetwork(path, session, digest, outputs, (height, width), int(multiple or 1), weight)


def _is_image(shape: Sequence[int | str | None]) -> bool:
    """Return whether a shape is 1×3×height×width; sides that are not fixed are names or `None`."""
    return len(shape) == 4 and (shape[0] == 1 or not isinstance(shape[0], int)) and shape[1] == 3


def _number(path: Path, metadata: Mapping[str, str], name: str) -> float | None:
    """Return a number of the file's metadata, or `None`. Raises `SettingsError` unless it is finite and at least 0."""
    if name not in metadata:
        return None
    try:
        number = float(metadata[name])
    except ValueError:
        number = math.nan
    if not 0 <= number < math.inf:
        raise SettingsError(f"{path} has the metadata {name}={metadata[name]!r}: write a number of at least 0")
    return number
