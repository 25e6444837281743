"""Write the built-in data set to a folder, or draw a picture of it.

python tools/make_synthetic.py --output data --name FRFS --synthetic_clips 320 80 160
python tools/make_synthetic.py --contact_sheet docs/images/contact_sheet.png
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import cv2

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from console import StepLine, say  # noqa: E402
from datasets.synthetic import SyntheticSpec, ensure_synthetic  # noqa: E402
from datasets.synthetic.sheet import draw_contact_sheet  # noqa: E402
from errors import InputError, run_script  # noqa: E402
from options.groups import add_synthetic_options  # noqa: E402
from options.types import OneLineParser, positive  # noqa: E402


def main(argv: Sequence[str] | None = None) -> None:
    """Write what is asked for."""
    args = parse(argv)
    if args.output is not None:
        say(str(write_data_set(args)))
    if args.contact_sheet is not None:
        write_contact_sheet(args.contact_sheet)
        say(str(args.contact_sheet))


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the options."""
    parser = OneLineParser(
        description="Write the built-in data set in the layout of FR-FS.",
        epilog="example: python tools/make_synthetic.py --output data --name FRFS",
    )
    parser.add_argument("--output", type=Path, help="folder of data sets, made if need be")
    parser.add_argument("--name", default="synthetic", help="folder of this one in --output")
    parser.add_argument("--workers", type=positive, default=2, help="processes that draw")
    parser.add_argument("--contact_sheet", type=Path, help="also draw a picture of clips, a .png")
    add_synthetic_options(parser)
    args = parser.parse_args(argv)
    if args.output is None and args.contact_sheet is None:
        parser.error("nothing to do: give --output, --contact_sheet or both")
    return args


def write_data_set(args: argparse.Namespace) -> Path:
    """Write the data set, saying how far it is; return its folder."""
    spec = SyntheticSpec(args.synthetic_size, tuple(args.synthetic_clips), args.synthetic_seed)
    with StepLine(f"{args.name}, clips", every=100) as line:
        return ensure_synthetic(spec, args.output, args.name, line, args.workers)


def write_contact_sheet(path: Path) -> None:
    """Draw rows of clips, some with their keypoints, into a PNG file."""
    if path.suffix.lower() != ".png":
        raise InputError(f"--contact_sheet {path} is no PNG file: give a name that ends in .png")
    picture = cv2.cvtColor(draw_contact_sheet(), cv2.COLOR_RGB2BGR)
    path.parent.mkdir(parents=True, exist_ok=True)
    encoded = cv2.imencode(".png", picture, [cv2.IMWRITE_PNG_COMPRESSION, 9])[1]
    path.write_bytes(encoded.tobytes())


if __name__ == "__main__":
    run_script(main)
