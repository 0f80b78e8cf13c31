"""SVG as PNG."""

from __future__ import annotations

from prunectl.errors import EngineUnavailable

ZOOM = 2.0
"""For screens with two pixels to a point."""


def png(svg: str) -> bytes:
    """The picture as PNG, drawn by resvg with the system's fonts. Raises EngineUnavailable where that isn't installed."""
    try:
        import resvg_py
    except ImportError as error:
        raise EngineUnavailable(
            "PNG files need resvg-py, which this service lacks", hint="ask for SVG, or pip install resvg-py"
        ) from error
    return bytes(resvg_py.svg_to_bytes(svg_string=svg, zoom=ZOOM))
