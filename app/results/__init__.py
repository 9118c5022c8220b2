"""What leaves: a model's label map as DICOM objects, and the checks that they must pass."""
