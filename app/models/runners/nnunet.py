"""Run an nnU-Net v2 model folder exactly as nnU-Net does, without trusting it.

nnU-Net would unpickle the checkpoint and import whatever class the plans name. Here the
checkpoint loads as plain tensors, every name in the plans is looked up in a closed list before
nnU-Net sees it, and the network is built from that list. Preprocessing, the sliding window and
the way back are nnU-Net's own.
"""

import json
import logging
import pickle
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet, ResidualEncoderUNet
from numpy.typing import NDArray
from torch import nn

from app.dicom.volume import Volume
from app.errors import ConfigError, ModelError, StudyError
from app.models.card import Label, ModelCard, NnunetRunner
from app.models.grid import Reorientation, reorientation

log = logging.getLogger(__name__)

_ARCHITECTURES = "dynamic_network_architectures.architectures."
_NETWORKS = {
    _ARCHITECTURES + "unet.PlainConvUNet": PlainConvUNet,
    _ARCHITECTURES + "unet.ResidualEncoderUNet": ResidualEncoderUNet,
    # the name that nnU-Net itself writes for plans of its first releases
    _ARCHITECTURES + "residual_unet.ResidualEncoderUNet": ResidualEncoderUNet,
}

_OPERATIONS: dict[str, type[nn.Module]] = {
    f"{module}.{kind.__name__}": kind
    for kind in (
        *(nn.Conv2d, nn.Conv3d),
        *(nn.InstanceNorm2d, nn.InstanceNorm3d, nn.BatchNorm2d, nn.BatchNorm3d),
        *(nn.Dropout2d, nn.Dropout3d),
        *(nn.LeakyReLU, nn.ReLU, nn.GELU, nn.SiLU),
    )
    for module in (kind.__module__, "torch.nn", "torch.nn.modules")
}
_NAMED_OPERATIONS = {"conv_op", "norm_op", "dropout_op", "nonlin"}
_ARCHITECTURE_KEYS = {
    *_NAMED_OPERATIONS,
    *("norm_op_kwargs", "dropout_op_kwargs", "nonlin_kwargs", "nonlin_first", "conv_bias"),
    *("n_stages", "features_per_stage", "kernel_sizes", "strides"),
    *("n_conv_per_stage", "n_blocks_per_stage", "n_conv_per_stage_decoder"),
}

_NORMALIZATIONS = {
    *("CTNormalization", "ZScoreNormalization", "NoNormalization"),
    *("RescaleTo01Normalization", "RGBTo01Normalization"),
}
_RESAMPLINGS = {
    "resample_data_or_seg_to_shape",
    "resample_torch_fornnunet",
    "no_resampling_data_or_seg_to_shape",
}
_CHOICES = {
    "preprocessor_name": {"DefaultPreprocessor"},
    "resampling_fn_data": _RESAMPLINGS,
    "resampling_fn_seg": _RESAMPLINGS,
    "resampling_fn_probabilities": _RESAMPLINGS,
}

_SCALAR = np.float64(0).__reduce__()[0]  # the function that makes a numpy number of a pickle
_HARMLESS: list[Any] = [
    # nnU-Net's training log holds numpy numbers; under both of the names numpy has had for them
    (_SCALAR, "numpy.core.multiarray.scalar"),
    (_SCALAR, "numpy._core.multiarray.scalar"),
    np.dtype,
    *(type(np.dtype(kind)) for kind in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "?")),
]


class NnunetModel:
    """An nnU-Net with the weights of its folds in memory; see `load`."""

    def __init__(self, predictor: Any, card: ModelCard) -> None:
        self._predictor = predictor
        self._card = card

    @property
    def device(self) -> str:
        """Where the network runs."""
        return str(self._predictor.device)

    def memory(self) -> dict[str, int] | None:
        """Return the GPU's bytes, those of other processes included."""
        device = self._predictor.device
        if device.type != "cuda":
            return None
        free, total = torch.cuda.mem_get_info(device)
        return {"used": total - free, "total": total}

    def run(self, volumes: list[Volume]) -> NDArray[np.integer]:
        """Return the label map on the volumes' grid; channels are in the order given."""
        turn, exported = self._exported(volumes, probabilities=False)
        return np.ascontiguousarray(turn.undo(exported))

    def run_fractional(
        self, volumes: list[Volume]
    ) -> tuple[NDArray[np.integer], NDArray[np.uint8]]:
        """Return the label map, and of each label of the card the probability, 255 for 1."""
        turn, (exported, heads) = self._exported(volumes, probabilities=True)
        labels = np.ascontiguousarray(turn.undo(exported))
        shares = np.zeros((len(self._card.labels), *labels.shape), dtype=np.uint8)
        for index, label in enumerate(self._card.labels):
            if own := _heads_of(label, self._predictor.label_manager):
                share = sum(heads[head] for head in own)
                shares[index] = turn.undo(np.rint(np.clip(share, 0, 1) * 255))
        return labels, shares

    def _exported(self, volumes: list[Volume], *, probabilities: bool) -> tuple[Reorientation, Any]:
        """Return what nnU-Net makes of the volumes, and how they were turned for it."""
        turn = reorientation(volumes[0].affine_lps, self._card.runner.orientation)
        channels = np.stack([turn.apply(volume.voxels_kji) for volume in volumes])
        if not channels.any():
            # nnU-Net crops to what is not zero and would be left without a volume.
            raise StudyError(f"series {volumes[0].series_uid}: every voxel is zero; send it again")
        spacing_mm = turn.spacing(volumes[0].spacing_kji_mm)
        return turn, self._predict(channels, spacing_mm, probabilities=probabilities)

    def _predict(
        self, channels: NDArray[np.float32], spacing_mm: list[float], *, probabilities: bool
    ) -> Any:
        from nnunetv2.inference.export_prediction import (  # noqa: PLC0415  # see `load`
            convert_predicted_logits_to_segmentation_with_correct_shape as export,
        )

        own = self._predictor
        plans, configuration = own.plans_manager, own.configuration_manager
        started = time.monotonic()
        with _quiet():
            # Spacing goes in the order of the array's axes, not x, y, z.
            data, _, properties = configuration.preprocessor_class(verbose=False).run_case_npy(
                channels, None, {"spacing": spacing_mm}, plans, configuration, own.dataset_json
            )
            prepared = time.monotonic()
            logits = self._logits(torch.from_numpy(data))
            predicted = time.monotonic()
            exported = export(
                logits,
                plans,
                configuration,
                own.label_manager,
                properties,
                return_probabilities=probabilities,
                num_threads_torch=torch.get_num_threads(),
            )
        log.debug(
            "preprocessing took %.1f s, the network %.1f s, the way back %.1f s",
            prepared - started,
            predicted - prepared,
            time.monotonic() - predicted,
        )
        return exported

    def _logits(self, data: torch.Tensor) -> torch.Tensor:
        """Return the network's output, of which every value is a number.

        The largest of several that are none would be the first: no label anywhere, and no fault.
        """
        try:
            logits: torch.Tensor = self._predictor.predict_logits_from_preprocessed_data(data).cpu()
            fault = None
        except RuntimeError as error:
            if "Encountered inf" not in str(error):  # nnU-Net's own check, which knows no NaN
                raise
            fault = error
        if fault or not all(bool(torch.isfinite(head).all()) for head in logits):
            raise ModelError(
                f"{self._card.name}: the network's output is not a number everywhere; its weights"
                " are damaged or the series holds values that it was not made for, look at both"
            ) from fault
        return logits


def load(card: ModelCard, device: str) -> NnunetModel:
    """Build the network of the card's plans and load the weights of its folds."""
    # nnU-Net takes seconds to import; here it is paid once, with the weights.
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor  # noqa: PLC0415
    from nnunetv2.utilities.plans_handling.plans_handler import (  # noqa: PLC0415
        PlansManager,
    )

    place = _place(device)
    runner = card.runner
    folder = card.folder / runner.folder
    plans, dataset = _read(folder / "plans.json"), _read(folder / "dataset.json")
    checkpoints = [_read_checkpoint(folder / name) for name in runner.checkpoints]
    with _as_model_error(card), _quiet():
        _check_plans(plans, runner.configuration)
        manager = PlansManager(plans)
        configuration = manager.get_configuration(runner.configuration)
        _check_configuration(configuration.configuration)
        labels = manager.get_label_manager(dataset)
        _check_promises(card, dataset, labels)
        network = _build(configuration, len(card.inputs), labels.num_segmentation_heads)
        for checkpoint in checkpoints:
            network.load_state_dict(checkpoint["network_weights"])
        predictor = nnUNetPredictor(
            tile_step_size=runner.step,
            use_mirroring=runner.mirroring,
            perform_everything_on_device=place.type != "cpu",
            device=place,
            allow_tqdm=False,
        )
        predictor.manual_initialization(
            network,
            manager,
            configuration,
            [checkpoint["network_weights"] for checkpoint in checkpoints],
            dataset,
            "nnUNetTrainer",
            _mirroring(runner, checkpoints[0]),
        )
    return NnunetModel(predictor, card)


def _place(device: str) -> torch.device:
    """Return the device of that name; auto is the first graphics card, or the CPU without one."""
    if device == "auto":
        device = "cuda:0" if torch.cuda.is_available() else "cpu"
    place = torch.device(device)
    if place.type == "cuda" and (place.index or 0) >= torch.cuda.device_count():
        raise ConfigError(
            f"workers.device: {device} is not there (torch sees {torch.cuda.device_count()}"
            " graphics cards); set cpu or auto, or mend the driver"
        )
    return place


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path}: is not readable as JSON; install the model again") from error
    if not isinstance(content, dict):
        raise ModelError(f"{path}: is not a JSON object; install the model again")
    return content


def _read_checkpoint(path: Path) -> dict[str, Any]:
    try:
        with torch.serialization.safe_globals(_HARMLESS):
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, EOFError, ValueError, KeyError, RuntimeError, pickle.UnpicklingError) as error:
        raise ModelError(
            f"{path}: does not load as plain weights ({type(error).__name__}); it is damaged or"
            " holds code, get the model from where it was published"
        ) from error
    weights = checkpoint.get("network_weights") if isinstance(checkpoint, dict) else None
    if not isinstance(weights, Mapping) or not all(
        isinstance(value, torch.Tensor) for value in weights.values()
    ):
        raise ModelError(f"{path}: holds no network_weights; is it an nnU-Net v2 checkpoint?")
    return dict(checkpoint)


def _check_plans(plans: dict[str, Any], configuration: str) -> None:
    if configuration not in plans["configurations"]:
        raise ModelError(
            f"plans.json has no configuration {configuration}; it has"
            f" {', '.join(plans['configurations'])}: name one of them in the card"
        )
    # nnU-Net's default for plans that name none
    _choose("label_manager", plans.setdefault("label_manager", "LabelManager"), {"LabelManager"})


def _check_configuration(configuration: dict[str, Any]) -> None:
    if configuration.get("previous_stage"):
        raise ModelError("plans.json describes a cascade; choose another configuration")
    for key, allowed in _CHOICES.items():
        _choose(key, configuration[key], allowed)
    for scheme in configuration["normalization_schemes"]:
        _choose("normalization_schemes", scheme, _NORMALIZATIONS)


def _check_promises(card: ModelCard, dataset: dict[str, Any], labels: Any) -> None:
    channels = dataset.get("channel_names") or dataset["modality"]
    if len(channels) != len(card.inputs):
        raise ModelError(
            f"the network has {len(channels)} channels, the card {len(card.inputs)} inputs;"
            " describe each channel in the card"
        )
    if card.outputs.segmentation == "fractional" and labels.has_regions:
        _check_regions(card, dataset["regions_class_order"], labels.foreground_regions)
    made = dataset["regions_class_order"] if labels.has_regions else labels.foreground_labels
    if undescribed := {int(value) for value in made} - card.values:
        raise ModelError(
            f"the network makes the values {sorted(undescribed)}, which the card does not"
            " describe; add them to its labels"
        )


def _check_regions(card: ModelCard, order: Sequence[int], regions: Sequence[Any]) -> None:
    """Refuse a segment that is not one of the regions whose probability the network knows."""
    known = {
        value: frozenset([region] if isinstance(region, int) else region)
        for value, region in zip(order, regions, strict=True)
    }
    for label in card.labels:
        if label.values & known.keys() and label.values != known.get(label.value):
            raise ModelError(
                f"the network knows no probability of {label.name} (values"
                f" {sorted(label.values)}), only of its regions"
                f" {', '.join(str(sorted(region)) for region in known.values())}: have the label"
                " include the values of its region, or send no probabilities"
            )


def _heads_of(label: Label, manager: Any) -> list[int]:
    """Return the network's outputs whose sum is the probability of a label."""
    if manager.has_regions:  # each is that of a whole region, see `_check_regions`
        return [n for n, value in enumerate(manager.regions_class_order) if value == label.value]
    return [n for n, value in enumerate(manager.all_labels) if value in label.values]


def _build(configuration: Any, channels: int, heads: int) -> nn.Module:
    name = configuration.network_arch_class_name
    _choose("network_class_name", name, _NETWORKS)
    arguments = dict(configuration.network_arch_init_kwargs)
    for key in (*arguments, *configuration.network_arch_init_kwargs_req_import):
        _choose("arch_kwargs", key, _ARCHITECTURE_KEYS)
    for key in _NAMED_OPERATIONS & set(arguments):
        if arguments[key] is not None:
            _choose(key, arguments[key], _OPERATIONS)
            arguments[key] = _OPERATIONS[arguments[key]]
    network: nn.Module = _NETWORKS[name](
        input_channels=channels, num_classes=heads, deep_supervision=False, **arguments
    )
    return network


def _choose(key: str, value: Any, allowed: set[str] | Mapping[str, Any]) -> None:
    if not isinstance(value, str) or value not in allowed:
        raise ModelError(f"plans.json: {key} {value!r} is not one of the known {sorted(allowed)}")


def _mirroring(runner: NnunetRunner, checkpoint: Mapping[str, Any]) -> tuple[int, ...] | None:
    axes: Sequence[int] | None = checkpoint.get("inference_allowed_mirroring_axes")
    return tuple(int(axis) for axis in axes) if runner.mirroring and axes else None


@contextmanager
def _as_model_error(card: ModelCard) -> Iterator[None]:
    """Turn what Python raises over a nonsensical model folder into a sentence."""
    try:
        yield
    except (
        *(KeyError, IndexError, TypeError, ValueError, AttributeError),
        *(AssertionError, RuntimeError, RecursionError),
    ) as error:
        raise ModelError(
            f"{card.name}: plans.json, dataset.json and weights do not fit together"
            f" ({type(error).__name__}: {str(error)[:200]}); install the model again"
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what nnU-Net prints and warns out of the process's own output."""
    printed = StringIO()
    try:
        with redirect_stdout(printed), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for line in filter(None, printed.getvalue().splitlines()):
            log.debug("nnU-Net: %s", line)
