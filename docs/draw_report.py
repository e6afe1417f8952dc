"""Draws docs/report.png, parts of a report as on a phone: python docs/draw_report.py runs/nuclei/report.html

It needs what `make test-web` needs. The report in the manual is what this leaves, of nuclei under microscopes (CC0):

    segformer train --data data/nuclei --variant tiny --crop 128 128 --eval-size 256 256 --steps 300 \\
        --epoch-steps 100 --warmup-steps 30 --learning-rate 3e-3 --head-multiplier 1 --batch-size 4 --out runs/nuclei
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).parents[1]
WIDTH, HEIGHT, GAP = 390, 760, 12
PARTS = ("card", "scores", "images", "calibration")


def main(page: Path) -> None:
    tops = "[{}].map((id) => document.getElementById(id).offsetTop)".format(", ".join(f'"{part}"' for part in PARTS))
    with tempfile.TemporaryDirectory() as folder:
        shot, job = Path(folder) / "shot.png", Path(folder) / "job.json"
        steps = [{"do": "evaluate", "script": tops}, {"do": "shot", "to": str(shot)}]
        view = {"viewport": {"width": WIDTH, "height": HEIGHT}, "isMobile": True}
        job.write_text(json.dumps({"url": page.resolve().as_uri(), "plain": True, "page": view, "steps": steps}))
        run = subprocess.run(["node", ROOT / "web" / "drive.mjs", job], capture_output=True, text=True, check=True)
        places = json.loads(run.stdout)["states"][1]["value"]
        whole = Image.open(shot).convert("RGB")
    sheet = Image.new("RGB", (len(PARTS) * (WIDTH + GAP) - GAP, HEIGHT), (208, 212, 217))
    for i, top in enumerate(places):
        sheet.paste(whole.crop((0, max(top - 8, 0), WIDTH, max(top - 8, 0) + HEIGHT)), (i * (WIDTH + GAP), 0))
    small = sheet.resize((sheet.width * 3 // 4, sheet.height * 3 // 4), Image.Resampling.LANCZOS)
    small.quantize(256, dither=Image.Dither.NONE).save(ROOT / "docs" / "report.png", optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
