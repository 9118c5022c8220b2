"""`python -m tests.phantoms`: write a synthetic study, train the phantom model, evaluate it."""

import argparse
import sys
from pathlib import Path

from tests.phantoms.dicom import ORIENTATIONS, write_study

SHIPPED = Path(__file__).parents[2] / "app" / "models" / "zoo" / "phantom"


def main(argv: list[str]) -> int:
    """Run one command; 0 is success, 1 a model under the bar."""
    parser = argparse.ArgumentParser(prog="python -m tests.phantoms", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    make = commands.add_parser("make", help="write a synthetic CT study")
    make.add_argument("folder", type=Path)
    make.add_argument("--seed", type=int, default=1)
    make.add_argument("--size", type=int, default=512, help="rows and columns")
    make.add_argument("--slices", type=int, default=100)
    make.add_argument("--orientation", choices=ORIENTATIONS, default="axial")
    make.add_argument("--patient-name", default="PHANTOM^SYNTHETIC")
    make.add_argument("--patient-id")
    make.add_argument("--truth", type=Path, help="write the true labels to this .npz")
    train = commands.add_parser("train", help="train the phantom model from nothing")
    train.add_argument("--model", type=Path, default=SHIPPED, help="folder of the card")
    train.add_argument("--work", type=Path, default=Path("build/phantom"), help="scratch folder")
    evaluate = commands.add_parser("evaluate", help="Dice on phantoms that training never saw")
    evaluate.add_argument("--model", type=Path, default=SHIPPED, help="folder of the card")
    evaluate.add_argument("--device", default="cpu")
    arguments = parser.parse_args(argv)
    return {"make": _make, "train": _train, "evaluate": _evaluate}[arguments.command](arguments)


def _make(arguments: argparse.Namespace) -> int:
    files = write_study(
        arguments.folder,
        seed=arguments.seed,
        shape=(arguments.size, arguments.size),
        slices=arguments.slices,
        orientation=arguments.orientation,
        patient_name=arguments.patient_name,
        patient_id=arguments.patient_id,
        truth=arguments.truth,
    )
    print(f"{len(files.paths)} images of study {files.study_uid}")
    return 0


def _train(arguments: argparse.Namespace) -> int:
    from tests.phantoms.train import train  # noqa: PLC0415  # nnU-Net takes seconds to import

    train(arguments.model, arguments.work.resolve())
    return 0


def _evaluate(arguments: argparse.Namespace) -> int:
    from tests.phantoms.evaluate import evaluate  # noqa: PLC0415  # so does torch

    return evaluate(arguments.model, arguments.device)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
