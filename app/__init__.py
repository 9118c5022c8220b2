"""Marginalia: an AI node that sits beside a PACS.

    sender ─► receive ─► assemble ─► route ─► infer ─► encode ─► deliver ─► archive
                 │           │          │        │         │          │
                 └───────────┴── every arrow is a row in the job log ─┘

What flows stands in `dicom/`, the way it flows in `pipeline/` (one module a stage, in the order
of `pipeline.STAGES`), what leaves in `results/`, where it is remembered in `store/`.
"""
