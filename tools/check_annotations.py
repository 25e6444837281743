"""Name what is wrong with an annotation pickle of PYSKL or MMAction2, clip by clip.

python tools/check_annotations.py ntu60_hrnet.pkl
python tools/check_annotations.py own.pkl --layout layout.json --json findings.json

Exits with 2 where there are errors. The pickle is read, never run.
"""

import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from console import say  # noqa: E402
from datasets.annotations.annotation_set import open_unchecked  # noqa: E402
from datasets.annotations.checks import Finding, check_annotations  # noqa: E402
from datasets.annotations.summary import summary_lines, summary_of  # noqa: E402
from errors import printable, run_script  # noqa: E402
from files import write_json  # noqa: E402
from options.annotations import parse_check_args  # noqa: E402
from options.skeletons import layout_of  # noqa: E402


def main(argv: Sequence[str] | None = None) -> list[Finding]:
    """Check the file and return what was found; exits with 2 where there are errors."""
    args = parse_check_args(argv)
    with cache_of(args.cache) as cache:
        found, layout_fault = open_unchecked(
            args.file, layout_of(args.skeleton_layout), cache, args.keypoint_files
        )
        findings = check_annotations(found, args.num_classes)
        if layout_fault:
            findings.append(Finding("error", "", "keypoint", layout_fault, "layout"))
        summary = summary_of(found)
    for line in finding_lines(findings, args.shown):
        say(line)
    for line in summary_lines(args.file, summary):
        say(line)
    counts = Counter(finding.severity for finding in findings)
    say(f"{counts['error']} errors, {counts['warning']} warnings")
    if args.json is not None:
        write_json(
            args.json, {"findings": [asdict(finding) for finding in findings], "summary": summary}
        )
    if counts["error"]:
        sys.exit(2)
    return findings


@contextmanager
def cache_of(folder: Path | None) -> Iterator[Path]:
    """Give the folder that arrays are kept in, or one that goes at the end."""
    if folder is not None:
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="annotations-") as made:
        yield Path(made)


def finding_lines(findings: Sequence[Finding], shown: int) -> Iterator[str]:
    """Yield a line for each finding, of each kind at most `shown`, and how many more there are."""
    seen: Counter[str] = Counter()
    for finding in findings:
        seen[finding.kind] += 1
        if seen[finding.kind] <= shown:
            who = f"clip {finding.sample[:80]!r}" if finding.sample else "the file"
            yield printable(f"{finding.severity}: {who}, {finding.field}: {finding.text}")
    for kind, count in seen.items():
        if count > shown:
            yield f"... and {count - shown} more of the kind: {kind}"


if __name__ == "__main__":
    run_script(main)
