"""The building blocks of a page that opens anywhere: one HTML file with everything in it."""

from __future__ import annotations

import base64
import html
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mast3r_ros.lab.runs.gallery import Picture

#: Longest side of pictures in the page, pixels.
PICTURE_SIDE = 1200
#: Texts in tables up to this many characters stay on one line.
LONGEST_UNBROKEN = 48
#: A tile of the head line: figure, what it is, and "good", "bad" or "".
Tile = tuple[str, str, str]
PAGE = (Path(__file__).with_name("report.html")).read_text(encoding="utf-8")


def write_page(path: Path, title: str, parts: Sequence[str]) -> None:
    """Write one HTML file from its sections."""
    page = PAGE.replace("{title}", html.escape(title)).replace("{body}", "\n".join(parts))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")


def header(title: str, subtitle: str) -> str:
    """The head line of a page."""
    return f"<header><h1>{html.escape(title)}</h1><p>{html.escape(subtitle)}</p></header>"


def tiles_of(tiles: Sequence[Tile]) -> str:
    """The figures that are read first."""
    cells = (
        f'<div class="tile {kind}"><b>{html.escape(value)}</b><span>{html.escape(text)}</span></div>'
        for value, text, kind in tiles
    )
    return f'<div class="tiles">{"".join(cells)}</div>'


def section(title: str, content: str, text: str = "") -> str:
    """A part of the page with its heading and a sentence."""
    words = f"<p>{html.escape(text)}</p>" if text else ""
    return f"<section><h2>{html.escape(title)}</h2>{words}{content}</section>"


@dataclass(frozen=True)
class Bar:
    """A cell that shows a share of one as a bar."""

    share: float
    good: bool = False


@dataclass(frozen=True)
class Mark:
    """A cell whose text is marked as "better", "worse", or not at all."""

    text: str
    kind: str = ""


def table(heads: Sequence[str], rows: Sequence[Sequence[str | Bar | Mark]]) -> str:
    """A table of texts, bars and marks under its heads."""
    head = "".join(f"<th>{html.escape(text)}</th>" for text in heads)
    return f'<table class="figures"><tr>{head}</tr>{"".join(_line(row) for row in rows)}</table>'


def _line(row: Sequence[str | Bar | Mark]) -> str:
    return f"<tr>{''.join(_cell(cell) for cell in row)}</tr>"


def _cell(cell: str | Bar | Mark) -> str:
    if isinstance(cell, Bar):
        kind = "good" if cell.good else ""
        return f'<td class="bar"><i class="{kind}" style="width:{_percent(cell.share)}%"></i></td>'
    if isinstance(cell, Mark):
        return f'<td class="{cell.kind}">{html.escape(cell.text)}</td>'
    kind = ' class="text"' if len(cell) > LONGEST_UNBROKEN else ""
    return f"<td{kind}>{html.escape(cell)}</td>"


def _percent(share: float) -> str:
    return f"{100 * share:.0f}" if math.isfinite(share) else "0"


def gallery(pictures: Sequence[Picture]) -> str:
    """Pictures with their titles and captions."""
    figures = (
        f'<figure class="{"" if picture.accepted else "no"}">{image(picture.image, picture.title)}'
        f"<figcaption><b>{html.escape(picture.title)}</b> {html.escape(picture.caption)}</figcaption></figure>"
        for picture in pictures
    )
    return f'<div class="gallery">{"".join(figures)}</div>'


def image(rgb: NDArray[np.uint8], alt: str) -> str:
    """An image in the page itself; JPEG, because these are photographs with lines on them."""
    scale = min(1.0, PICTURE_SIDE / max(rgb.shape))
    if scale < 1:
        size = (round(rgb.shape[1] * scale), round(rgb.shape[0] * scale))
        rgb = np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
    ok, data = cv2.imencode(".jpg", rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 85])
    assert ok
    text = base64.b64encode(data.tobytes()).decode()
    return f'<img alt="{html.escape(alt)}" src="data:image/jpeg;base64,{text}">'


def details(summary: dict[str, Any]) -> str:
    """Every figure, setting and version, grouped."""
    groups: dict[str, dict[str, Any]] = {"results": {}}
    for name, value in summary.items():
        if name == "breakdown":
            continue
        if isinstance(value, dict):
            groups[name] = value
        else:
            groups["results"][name] = value
    tables = (_table(name, values) for name, values in groups.items() if values)
    return f'<div class="details">{"".join(tables)}</div>'


def _table(name: str, values: dict[str, Any]) -> str:
    rows = "".join(
        f"<tr><th>{html.escape(label(key))}</th><td>{html.escape(_text(value))}</td></tr>"
        for key, value in values.items()
    )
    return f"<table><caption>{html.escape(label(name))}</caption>{rows}</table>"


def figure(value: float, form: str) -> str:
    """A number as text, a dash where it is unknown."""
    return form.format(value) if math.isfinite(value) else "-"


def with_interval(value: float, bounds: tuple[float, float], form: str) -> tuple[str, str]:
    """A number and its interval as two texts; the second one is empty where there is no interval."""
    low, high = (figure(bound, form) for bound in bounds)
    return figure(value, form), "" if low == high == "-" else f"{low} to {high}"


def label(name: str) -> str:
    """A key of the summary for people."""
    return name.replace("_", " ")


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}" if math.isfinite(value) else "-"
    if isinstance(value, dict):
        return ", ".join(f"{label(key)} {_text(item)}" for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return " to ".join(_text(item) for item in value)
    return str(value)
