"""nnU-Net's trainer, told not to mirror and to finish in minutes on a CPU.

It is instantiated, never looked up by name: that search imports every trainer there is.
"""

from typing import Any

import numpy as np
import torch
from nnunetv2.training.data_augmentation.compute_initial_patch_size import get_patch_size
from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from typing_extensions import override


class PhantomTrainer(nnUNetTrainer):  # type: ignore[misc]  # nnU-Net has no types
    """Train without mirroring, with modest rotation and a fast optimizer."""

    @override
    def configure_rotation_dummyDA_mirroring_and_inital_patch_size(self) -> tuple[Any, ...]:
        """Rotate by at most 15°, mirror along no axis."""
        most = float(np.radians(15))
        turn = (-most, most)
        patch = self.configuration_manager.patch_size
        self.inference_allowed_mirroring_axes = None
        return turn, False, get_patch_size(patch, turn, turn, turn, (0.85, 1.25)), None

    @override
    def configure_optimizers(self) -> tuple[Any, Any]:
        """Use AdamW: plain SGD wants more iterations than a CPU has minutes."""
        self.initial_lr = 4e-3
        optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=self.initial_lr, weight_decay=1e-4, amsgrad=True
        )
        return optimizer, PolyLRScheduler(optimizer, self.initial_lr, self.num_epochs)

    @override
    def plot_network_architecture(self) -> None:
        """Draw nothing."""

    @override
    def _save_debug_information(self) -> None:
        """Write nothing about this machine."""
