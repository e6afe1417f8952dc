"""The report that `segformer train` writes at its end."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path
from shlex import quote

from segformer_tf.errors import first_line

REPORT = "report.html"  # in the run folder

_NEEDED = ("jinja2", "matplotlib", "scipy")
_IMAGES = 100  # that are scored
_CHECKED = 1000  # that a data check reads, at most


def report_after_training(root: Path) -> None:
    """Write the run's report where its packages are installed, of at most 100 validation images.

    The training is done and saved: whatever goes wrong here is a line, no error.

    Args:
        root: the run folder.
    """
    if not all(map(find_spec, _NEEDED)):
        return
    from training.analysis.report.build import Request, write_report

    again = f"segformer report {quote(str(root))}"
    try:
        write_report(Request(model=root, images=_IMAGES, checked=_CHECKED), root / REPORT)
    except KeyboardInterrupt:
        print(f"\nthe training is done; for its report: {again}", file=sys.stderr)
        raise
    except Exception as error:
        print(f"no report ({first_line(error)}); once more: {again}", file=sys.stderr)
    else:
        print(f"report: {root / REPORT}")
