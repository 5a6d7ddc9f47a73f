"""Makes the chart that the library wrote one to show: its values, its colour, labels instead of grid lines.

In constant memory the library no longer knows the cells when it writes the chart, and leaves out the values that a reader
shows who calculates nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from leadferry.formats.xlsx.package import Patch, to_xml

if TYPE_CHECKING:
    import polars as pl

PART = "xl/charts/chart1.xml"
_CHART = "{http://schemas.openxmlformats.org/drawingml/2006/chart}"
_DRAWING = "{http://schemas.openxmlformats.org/drawingml/2006/main}"
_GRID = "D9D9D9"
_COLOR = "1F4E78"
_MOST_LABELS = 40
"""Beyond so many points their labels would cover each other."""


def finished(table: pl.DataFrame, *, color: str | None) -> Patch:
    """Return what finishes the chart.

    Args:
        table: values and counts, as they stand on the chart's sheet.
        color: of bars and lines, as `#1F4E78`.
    """

    def patch(content: bytes) -> bytes:
        from lxml import etree

        root = etree.fromstring(content)
        values, counts = (column.to_list() for column in table)
        for series in root.iter(f"{_CHART}ser"):
            _cache(series.find(f"{_CHART}tx"), [table.columns[1]], kind="str")
            _cache(series.find(f"{_CHART}cat"), values, kind="str")
            _cache(series.find(f"{_CHART}val"), counts, kind="num")
        _dress(root, color=(color or _COLOR).removeprefix("#"), points=len(values))
        return to_xml(root)

    return patch


def _cache(axis: Any, values: Sequence[object], *, kind: str) -> None:
    """Write the values into the chart beside the reference to their cells."""
    from lxml import etree

    reference = axis[0]
    reference.tag = f"{_CHART}{kind}Ref"
    for old in reference[1:]:
        reference.remove(old)
    cache = etree.SubElement(reference, f"{_CHART}{kind}Cache")
    if kind == "num":
        etree.SubElement(cache, f"{_CHART}formatCode").text = "General"
    etree.SubElement(cache, f"{_CHART}ptCount", val=str(len(values)))
    for number, value in enumerate(values):
        point = etree.SubElement(cache, f"{_CHART}pt", idx=str(number))
        etree.SubElement(point, f"{_CHART}v").text = str(value)


def _dress(root: Any, *, color: str, points: int) -> None:
    for bars in root.iter(f"{_CHART}barChart"):
        _color(bars, color)
        _labels(bars, "showVal", points=points)
        _after(bars, "dLbls", "gapWidth", val="40")
    for lines in root.iter(f"{_CHART}lineChart"):
        _color(lines, color, width="28575")
    for pie in root.iter(f"{_CHART}pieChart"):
        _labels(pie, "showPercent", points=points)
    if root.find(f".//{_CHART}barDir[@val='bar']") is not None:
        _first_on_top(root)
    _axes(root)


def _color(chart: Any, color: str, *, width: str | None = None) -> None:
    """Fill bars, or draw the line."""
    from lxml import etree

    for series in chart.iter(f"{_CHART}ser"):
        properties = etree.Element(f"{_CHART}spPr")
        place = properties if width is None else etree.SubElement(properties, f"{_DRAWING}ln", w=width)
        fill = etree.SubElement(place, f"{_DRAWING}solidFill")
        etree.SubElement(fill, f"{_DRAWING}srgbClr", val=color)
        series.find(f"{_CHART}tx").addnext(properties)


def _labels(chart: Any, shown: str, *, points: int) -> None:
    """Write the numbers beside bars and slices."""
    from lxml import etree

    labels = etree.Element(f"{_CHART}dLbls")
    for name in ("showLegendKey", "showVal", "showCatName", "showSerName", "showPercent", "showBubbleSize"):
        is_shown = name == shown and points <= _MOST_LABELS
        etree.SubElement(labels, f"{_CHART}{name}", val=str(int(is_shown)))
    chart.findall(f"{_CHART}ser")[-1].addnext(labels)


def _after(chart: Any, earlier: str, name: str, **attributes: str) -> None:
    from lxml import etree

    chart.find(f"{_CHART}{earlier}").addnext(etree.Element(f"{_CHART}{name}", attributes))


def _first_on_top(root: Any) -> None:
    """Turn the bars round, which otherwise begin at the bottom, and keep the numbers below them."""
    root.find(f".//{_CHART}catAx/{_CHART}scaling/{_CHART}orientation").set("val", "maxMin")
    root.find(f".//{_CHART}valAx/{_CHART}crosses").set("val", "max")


def _axes(root: Any) -> None:
    """Begin at zero, with grid lines that stay in the background."""
    from lxml import etree

    for axis in root.iter(f"{_CHART}valAx"):
        etree.SubElement(axis.find(f"{_CHART}scaling"), f"{_CHART}min", val="0")
        lines = axis.find(f"{_CHART}majorGridlines")
        line = etree.SubElement(etree.SubElement(lines, f"{_CHART}spPr"), f"{_DRAWING}ln", w="6350")
        fill = etree.SubElement(line, f"{_DRAWING}solidFill")
        etree.SubElement(fill, f"{_DRAWING}srgbClr", val=_GRID)
