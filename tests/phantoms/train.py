"""Train the phantom model from nothing with nnU-Net's own preprocessing, loaders and trainer.

Only three things are ours: the phantoms, the hand-written plans (tiny, because the model must
train and run on two CPU cores), and a trainer that does not mirror, since left and right matter.
The result is a normal nnU-Net model folder with a weights-only checkpoint.
"""

import hashlib
import json
import os
import random
import re
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import (
    DatasetFingerprintExtractor,
)
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from numpy.typing import NDArray

from tests.phantoms.body import LABELS, Affine, Phantom, rotation
from tests.phantoms.trainer import PhantomTrainer

ORIENTATION = "SPL"
"""The grid the model is trained on: the index grows to the head, the back and the left."""

TRAINING_SEEDS = range(1000, 1060)
VALIDATION_SEEDS = range(1060, 1064)
DATASET = "Dataset001_Phantom"
CONFIGURATION = "3d_fullres"
SPACING_MM = [4.5, 4.5, 4.5]
PATCH = [48, 64, 80]
FEATURES = [8, 16, 32, 64]
EPOCHS, ITERATIONS = 40, 50
SEED = 20240917


class Case(NamedTuple):
    """One training series and its truth, indexed [k, j, i]."""

    hu: NDArray[np.int16]
    truth: NDArray[np.uint8]
    spacing_kji_mm: list[float]


def train(model: Path, work: Path, epochs: int = EPOCHS, iterations: int = ITERATIONS) -> None:
    """Make the data set in `work`, train on it, and export to the folder of the card, `model`."""
    # nnU-Net takes its folders from here; batches made in this process alone are repeatable.
    os.environ |= {
        "nnUNet_preprocessed": str(work / "preprocessed"),
        "nnUNet_results": str(work / "results"),
        "nnUNet_n_proc_DA": "0",
    }
    base = work / "preprocessed" / DATASET
    for part in ("preprocessed", "results"):
        shutil.rmtree(work / part, ignore_errors=True)
    (base / CONFIGURATION).mkdir(parents=True)
    cases = {f"phantom_{seed}": training_case(seed) for seed in _all_seeds()}
    plans, dataset = _plans(cases), _dataset(len(cases))
    _write(base / "dataset.json", dataset)
    _write(base / "dataset_fingerprint.json", {})
    _write(base / "splits_final.json", [_split()])
    for name, case in cases.items():
        _preprocess(base / CONFIGURATION / name, case, plans, dataset)
    weights = _fit(plans, dataset, epochs, iterations)
    _export(weights, plans, dataset, model / "nnunet")
    name_weights(model)


def name_weights(model: Path) -> None:
    """Put the hashes of the model's files into its card."""
    card = model / "card.yaml"
    text = card.read_text()
    for name in ("dataset.json", "plans.json", "fold_0/checkpoint_final.pth"):
        digest = hashlib.sha256((model / "nnunet" / name).read_bytes()).hexdigest()
        text = re.sub(rf'({re.escape(name)}): "[0-9a-f]{{64}}"', rf'\1: "{digest}"', text)
    card.write_text(text)


def training_case(seed: int) -> Case:
    """Return one coarse series with a field of view of its own, slightly oblique."""
    rng = np.random.default_rng([0x7EA1, seed])
    in_plane_mm = rng.uniform(2.8, 4.6)
    spacing_mm = np.array([rng.uniform(2.0, 5.5), in_plane_mm, in_plane_mm])
    field_mm = np.array([rng.uniform(160, 440), *([rng.uniform(360, 480)] * 2)])
    shape = tuple(int(n) for n in np.rint(field_mm / spacing_mm))
    most = 16 if rng.random() < 0.4 else 5
    turn = rotation(tuple(rng.uniform(-1, 1, 3) * np.radians(most)))
    affine: Affine = np.eye(4)
    # Columns are the directions in which k, j and i grow: head, back, left.
    affine[:3, :3] = turn @ np.eye(3)[:, ::-1] * spacing_mm
    spare_mm = max(0.0, 440 - field_mm[0]) / 2
    centre = rng.uniform(-1, 1, 3) * [15, 25, spare_mm] + [0, 10, 20]
    affine[:3, 3] = centre - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    phantom = Phantom(seed)
    return Case(phantom.hu(affine, shape), phantom.truth(affine, shape), spacing_mm.tolist())


def _all_seeds() -> list[int]:
    return [*TRAINING_SEEDS, *VALIDATION_SEEDS]


def _split() -> dict[str, list[str]]:
    return {
        "train": [f"phantom_{seed}" for seed in TRAINING_SEEDS],
        "val": [f"phantom_{seed}" for seed in VALIDATION_SEEDS],
    }


def _dataset(cases: int) -> dict[str, Any]:
    return {
        "name": DATASET,
        "description": "Synthetic trunks; no patient data",
        "channel_names": {"0": "CT"},
        "labels": LABELS,
        "numTraining": cases,
        "file_ending": ".nii.gz",
    }


def _plans(cases: dict[str, Case]) -> dict[str, Any]:
    sample = DatasetFingerprintExtractor.collect_foreground_intensities
    samples = [sample(case.truth[None], case.hu[None])[0][0] for case in cases.values()]
    hu = np.concatenate(samples).astype(np.float64)
    resampling = {"is_seg": False, "force_separate_z": False, "memefficient_seg_resampling": False}
    stages = len(FEATURES)
    return {
        "dataset_name": DATASET,
        "plans_name": "nnUNetPlans",
        "original_median_spacing_after_transp": SPACING_MM,
        "original_median_shape_after_transp": [60, 96, 96],
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "experiment_planner_used": "hand",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {
            "0": {
                "mean": float(hu.mean()),
                "median": float(np.median(hu)),
                "std": float(hu.std()),
                "min": float(hu.min()),
                "max": float(hu.max()),
                "percentile_00_5": float(np.percentile(hu, 0.5)),
                "percentile_99_5": float(np.percentile(hu, 99.5)),
            }
        },
        "configurations": {
            CONFIGURATION: {
                "data_identifier": CONFIGURATION,
                "preprocessor_name": "DefaultPreprocessor",
                "batch_size": 2,
                "patch_size": PATCH,
                "median_image_size_in_voxels": [60, 90, 90],
                "spacing": SPACING_MM,
                "normalization_schemes": ["CTNormalization"],
                "use_mask_for_norm": [False],
                # nnU-Net's default takes minutes on two cores, its other way seconds.
                "resampling_fn_data": "resample_torch_fornnunet",
                "resampling_fn_seg": "resample_torch_fornnunet",
                "resampling_fn_probabilities": "resample_torch_fornnunet",
                "resampling_fn_data_kwargs": resampling,
                "resampling_fn_seg_kwargs": resampling | {"is_seg": True},
                "resampling_fn_probabilities_kwargs": resampling,
                "architecture": {
                    "network_class_name": (
                        "dynamic_network_architectures.architectures.unet.PlainConvUNet"
                    ),
                    "arch_kwargs": {
                        "n_stages": stages,
                        "features_per_stage": FEATURES,
                        "conv_op": "torch.nn.modules.conv.Conv3d",
                        "kernel_sizes": [[3, 3, 3]] * stages,
                        "strides": [[1, 1, 1], *([[2, 2, 2]] * (stages - 1))],
                        "n_conv_per_stage": [2] * stages,
                        "n_conv_per_stage_decoder": [1] * (stages - 1),
                        "conv_bias": True,
                        "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
                        "norm_op_kwargs": {"eps": 1e-05, "affine": True},
                        "dropout_op": None,
                        "dropout_op_kwargs": None,
                        "nonlin": "torch.nn.LeakyReLU",
                        "nonlin_kwargs": {"inplace": True},
                    },
                    "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
                },
                "batch_dice": True,
            }
        },
    }


def _preprocess(path: Path, case: Case, plans: dict[str, Any], dataset: dict[str, Any]) -> None:
    manager = PlansManager(plans)
    data, seg, properties = DefaultPreprocessor(verbose=False).run_case_npy(
        case.hu[None].astype(np.float32),
        case.truth[None].astype(np.int16),
        {"spacing": case.spacing_kji_mm},
        manager,
        manager.get_configuration(CONFIGURATION),
        dataset,
    )
    nnUNetDatasetBlosc2.save_case(
        data, seg.astype(np.int16), properties, str(path), chunks=data.shape, blocks=data.shape
    )


def _fit(
    plans: dict[str, Any], dataset: dict[str, Any], epochs: int, iterations: int
) -> dict[str, torch.Tensor]:
    random.seed(SEED)
    np.random.seed(SEED)  # noqa: NPY002  # nnU-Net's loaders draw from the global state
    torch.manual_seed(SEED)
    trainer = PhantomTrainer(
        {**plans, "continue_training": False}, CONFIGURATION, 0, dataset, torch.device("cpu")
    )
    trainer.num_epochs = epochs
    trainer.num_iterations_per_epoch = iterations
    trainer.num_val_iterations_per_epoch = 4
    trainer.disable_checkpointing = True  # nnU-Net's hold the optimizer and its log as well
    trainer.run_training()
    return dict(trainer.network.state_dict())


def _export(
    weights: dict[str, torch.Tensor],
    plans: dict[str, Any],
    dataset: dict[str, Any],
    target: Path,
) -> None:
    """Write nnU-Net's folder with what inference needs and nothing that must be unpickled."""
    (target / "fold_0").mkdir(parents=True, exist_ok=True)
    _write(target / "plans.json", plans)
    _write(target / "dataset.json", dataset)
    torch.save(
        {
            "network_weights": weights,
            "trainer_name": "nnUNetTrainer",
            "init_args": {"configuration": CONFIGURATION, "fold": 0},
            "inference_allowed_mirroring_axes": None,
        },
        target / "fold_0" / "checkpoint_final.pth",
    )


def _write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1) + "\n")
