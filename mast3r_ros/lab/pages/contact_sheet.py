"""One picture of every condition side by side, so that a person sees what was asked."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

RGB = NDArray[np.uint8]

#: Size of a tile's picture and height of its caption, pixels.
WIDTH, HEIGHT, CAPTION = 320, 240, 30
PAPER, INK = (24, 27, 33), (235, 238, 242)


def contact_sheet(pictures: Sequence[tuple[str, RGB]], columns: int = 4) -> RGB:
    """Captions and pictures of any size -> one picture (H, W, 3), row by row; pictures keep their proportions."""
    rows = -(-len(pictures) // columns)
    sheet = np.full((rows * (HEIGHT + CAPTION), columns * WIDTH, 3), PAPER, np.uint8)
    for number, (caption, picture) in enumerate(pictures):
        top, left = number // columns * (HEIGHT + CAPTION), number % columns * WIDTH
        scale = min(WIDTH / picture.shape[1], HEIGHT / picture.shape[0])
        size = round(picture.shape[1] * scale), round(picture.shape[0] * scale)
        # Shrunk by averaging; enlarged without inventing anything, so that few pixels look like few.
        shown = cv2.resize(picture, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_NEAREST)
        y, x = top + CAPTION + (HEIGHT - size[1]) // 2, left + (WIDTH - size[0]) // 2
        sheet[y : y + size[1], x : x + size[0]] = shown
        cv2.putText(sheet, caption, (left + 8, top + 20), cv2.FONT_HERSHEY_SIMPLEX, 0.47, INK, 1, cv2.LINE_AA)
    return sheet
