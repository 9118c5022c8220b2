"""Synthetic patients: their anatomy, their DICOM, and the model that is trained on them."""
