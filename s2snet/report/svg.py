"""Render figures as SVG files, and embed them in the page with its colours.

The output is byte-identical for the same table: no times, no random ids, matplotlib's defaults and fonts.
"""

import io
import re
import warnings
from collections.abc import Callable

import matplotlib
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from s2snet.report.palette import LIGHT

INK, SOFT, RULE, GROUND = "#24211d", "#6b675f", "#dfdbd2", "#ffffff"
SETTINGS = {
    "svg.hashsalt": "s2snet",
    "svg.fonttype": "none",  # keep text as text: searchable, in the reader's fonts
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": SOFT,
    "axes.edgecolor": SOFT,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "grid.color": RULE,
}
FONTS = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"


def render(draw: Callable[[Axes], None], width: float, height: float, right: float = 0.0) -> str:
    """Return the SVG of the axes that `draw` fills.

    Args:
        draw: Draws on the axes it is given.
        width, height: Size in inches.
        right: Fraction of the width reserved for labels at the right edge.
    """
    with matplotlib.rc_context(), warnings.catch_warnings():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(SETTINGS)
        # Titles with glyphs missing from matplotlib's font are measured wrongly, but browsers show them.
        warnings.filterwarnings("ignore", message=".*[Gg]lyph.*missing.*")
        figure = Figure(figsize=(width, height), facecolor=GROUND)
        FigureCanvasSVG(figure)
        left, bottom = 0.55 / width, 0.52 / height
        axes = figure.add_axes((left, bottom, 1 - right - left, 1 - bottom - 0.14 / height))
        axes.set_facecolor("none")
        draw(axes)
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    return re.sub(r'font-family: [^;"]*', f"font-family: {FONTS}", file.getvalue())


def inline(svg: str, name: str, alt: str) -> Markup:
    """Return the drawing for embedding in a page: with unique ids, the page's colours and a description."""
    body = svg[svg.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    # Matplotlib's style sheet would apply to the whole page; page.css has the same rules for figures only.
    body = re.sub(r"<style.*?</style>", "", body, flags=re.DOTALL)
    # Ids must be unique within the page.
    body = re.sub(r'\bid="([^"]*)"', rf'id="{name}-\1"', body)
    body = re.sub(r'(url\(#|href="#)', rf"\1{name}-", body)
    names = {INK: "--ink", SOFT: "--soft", RULE: "--rule", GROUND: "--ground"}
    names |= {tint: f"--defence-{i}" for i, tint in enumerate(LIGHT)}
    for tint, variable in names.items():
        body = body.replace(tint, f"var({variable})")
    head = body[: body.index(">") + 1]
    box = re.search(r'viewBox="([^"]*)"', head)[1]
    start = f'<svg class="figure" viewBox="{box}" role="img" aria-label="{escape(alt)}">'
    return Markup(start + body[len(head) :])
