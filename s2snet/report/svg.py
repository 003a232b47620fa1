"""From a draw function to an SVG file, and from that to one that follows the page's colours.

Both are the same bytes for the same table: no times, no random ids, matplotlib's own defaults and fonts.
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
    "svg.fonttype": "none",  # text stays text: the reader's fonts, searchable
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
    """The SVG of what `draw` puts on its axes, in inches; `right` is the share of the width for labels."""
    with matplotlib.rc_context(), warnings.catch_warnings():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(SETTINGS)
        # A title in a script that matplotlib's font lacks is measured wrongly, but the browser shows it.
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
    """The same drawing for use inside the page: own ids, the page's colours, and a description."""
    body = svg[svg.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    # Matplotlib's own style sheet would hold for the whole page; page.css says the same of figures only.
    body = re.sub(r"<style.*?</style>", "", body, flags=re.DOTALL)
    # Ids of two drawings on one page must not meet.
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
