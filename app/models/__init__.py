"""Models: a card says what a model is, a runner makes a label map of volumes.

A model package is untrusted input: its checkpoints load as plain tensors, and every class that
its files name comes from a closed list.
"""

from app.models.card import ModelCard, load_card
from app.models.model import Model, load_model

__all__ = ["Model", "ModelCard", "load_card", "load_model"]
