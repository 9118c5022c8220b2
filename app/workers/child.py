"""The child's side of a worker: `python -m app.workers.child`, started by `Worker` alone."""

from app.workers.serve import serve

FUNCTIONS = {
    "read_series": "app.pipeline.assemble:read_series",
    "build": "app.pipeline.infer:build",
    "segment": "app.pipeline.infer:segment",
    "encode": "app.pipeline.encode:encode",
}
"""Everything a worker can be asked for: name → module:function, imported when first asked for.

Each takes one dict and returns one dict, both of JSON's kinds.
"""

if __name__ == "__main__":
    serve(FUNCTIONS)
