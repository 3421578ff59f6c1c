"""Draws the icon of the module for 3D Slicer: thick slices on the left that become thin ones on the right.

python -m scripts.slicer_icon
"""

from __future__ import annotations

import argparse
from pathlib import Path

from PIL import Image, ImageDraw

from interslice.files.last_words import plain_endings
from interslice.files.whole import written_whole

ICON = Path("slicer/InterSliceReconstruction/Resources/Icons/InterSliceReconstruction.png")
SIZE, FINER = 128, 4
"""Pixels of a side, and how many times finer it is drawn."""
GREY, BLUE = (128, 134, 142, 255), (47, 109, 181, 255)
THICK, THIN = 4, 12
"""Slices on the two sides."""


def slices(draw: ImageDraw.ImageDraw, number: int, left: float, right: float, colour: tuple[int, ...]) -> None:
    """Slices of a round head, as bars whose width follows a circle; `left` and `right` are shares of it."""
    side = SIZE * FINER
    height = 0.86 * side / number
    for k in range(number):
        middle = 0.07 * side + (k + 0.5) * height
        half = ((0.45 * side) ** 2 - (middle - side / 2) ** 2) ** 0.5
        box = [max(side / 2 - half, left * side), middle - 0.42 * height,
               min(side / 2 + half, right * side), middle + 0.42 * height]  # fmt: skip
        if box[0] < box[2]:
            draw.rectangle(box, fill=colour)


def icon() -> Image.Image:
    """The picture, with a clear ground."""
    image = Image.new("RGBA", (SIZE * FINER,) * 2)
    draw = ImageDraw.Draw(image)
    slices(draw, THICK, 0.0, 0.48, GREY)
    slices(draw, THIN, 0.52, 1.0, BLUE)
    return image.resize((SIZE, SIZE), Image.Resampling.LANCZOS)


def main() -> None:
    """Write the icon."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=ICON, help=f"file; {ICON}")
    output = parser.parse_args().output
    with written_whole(output) as partial:
        icon().save(partial)
    print(f"wrote {output}")


if __name__ == "__main__":
    with plain_endings():
        main()
