"""Draws docs/masks.png from what `make demo` leaves: test images, and below each the mask of its int8 file."""

from pathlib import Path

from PIL import Image

DEMO = Path("runs/demo")
NAMES = ("002", "007", "011", "017", "027")
TILE, GAP = 144, 8


def main() -> None:
    rows = [[DEMO / "images/test" / f"{name}.png" for name in NAMES]]
    rows += [[DEMO / "overlays" / f"{name}_mask.png" for name in NAMES]]
    step = TILE + GAP
    sheet = Image.new("RGB", (len(NAMES) * step - GAP, len(rows) * step - GAP), "white")
    for y, row in enumerate(rows):
        for x, path in enumerate(row):
            tile = Image.open(path).convert("RGB").resize((TILE, TILE), Image.Resampling.NEAREST)
            sheet.paste(tile, (x * step, y * step))
    sheet.quantize(128).save(Path(__file__).with_name("masks.png"), optimize=True)


if __name__ == "__main__":
    main()
