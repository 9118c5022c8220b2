"""What flows: DICOM objects as headers, series, volumes and messages of both protocols."""
