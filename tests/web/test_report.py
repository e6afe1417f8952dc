"""The page of `segformer report` in Chromium, as on a phone and as on a desk."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.web.drive import drive
from training.analysis.report.build import Request, write_report

pytestmark = pytest.mark.web

_SEEN = """({
  wide: [document.documentElement.scrollWidth, window.innerWidth],
  broken: [...document.images].filter((image) => !image.complete || !image.naturalWidth).length,
  pictures: document.images.length,
  title: document.querySelector("h1").textContent,
  small: [...document.querySelectorAll("p, td, dd, li")]
    .filter((each) => parseFloat(getComputedStyle(each).fontSize) < 12).length,
})"""


@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_opens_without_a_complaint_or_a_request(
    trained: Path, tiny_files: dict[str, Path], toy_folder: Path, tmp_path: Path, width: int
) -> None:
    out = tmp_path / "report.html"
    assert not write_report(Request(model=trained, data=str(toy_folder), against=tiny_files["int8"]), out)
    view = {"viewport": {"width": width, "height": 800}, "isMobile": width < 500}
    steps = [{"do": "evaluate", "script": _SEEN}, {"do": "shot", "to": tmp_path / "shot.png"}]
    seen = drive(out.as_uri(), steps, tmp_path, plain=True, page=view)
    found = seen["states"][1]["value"]
    assert found["title"] == trained.name
    assert found["wide"] == [width, width]  # nothing to scroll sideways but tables
    assert found["broken"] == found["small"] == 0
    assert found["pictures"] > 20
    assert [address for address in seen["requests"] if not address.startswith("data:")] == [out.as_uri()]


def test_a_run_of_nothing_but_options_opens_too(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text("{}")
    out = tmp_path / "report.html"
    assert write_report(Request(model=tmp_path / "run"), out)
    step = {"do": "evaluate", "script": "document.querySelector('.missing').innerText"}
    seen = drive(out.as_uri(), [step], tmp_path, plain=True)
    assert "history.csv is not there" in seen["states"][1]["value"]
