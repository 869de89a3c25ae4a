"""Renderings of a running episode: text, a Gantt chart as an array, a window.

Matplotlib is imported inside the functions; only the window needs pyplot and a display.
"""

from fate_gym.env.render.renderer import RENDER_MODES, Renderer
from fate_gym.env.render.text import as_text

__all__ = ["RENDER_MODES", "Renderer", "as_text"]
