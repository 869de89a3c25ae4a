"""The render modes of an environment."""

from __future__ import annotations

import sys
from typing import Any

import gymnasium

from fate_gym.env.render.chart import DPI, Chart, Picture
from fate_gym.env.render.scene import Scene
from fate_gym.env.render.text import as_text

RENDER_MODES = ("ansi", "rgb_array", "human")


class Renderer:
    """Renders the episodes of one environment; keeps the chart of a problem, and the window.

    Args:
        mode: one of `RENDER_MODES`, or None.
        fps: frames per second of the window.
    """

    def __init__(self, mode: str | None, fps: float) -> None:
        self._mode, self._fps = mode, fps
        self._chart: Chart | None = None
        self._window: Any = None

    def render(self, scene: Scene) -> str | Picture | None:
        """Render in the chosen mode; see `fate_gym.env.WorkflowSchedulingEnv.render`."""
        if self._mode is None:
            gymnasium.logger.warn(
                "render() does nothing without a render mode: "
                'make the environment with render_mode="rgb_array", "ansi" or "human".'
            )
            return None
        if self._mode == "ansi":
            return as_text(scene)
        if self._mode == "rgb_array":
            return self.picture(scene)
        self._show(scene)
        return None

    def picture(self, scene: Scene) -> Picture:
        """Return the Gantt chart of the run so far, (H, W, 3), of one size for a whole episode."""
        if self._chart is None or self._chart.compiled is not scene.compiled:
            self._chart = Chart(scene.compiled)
        return self._chart.draw(scene.trace(), scene.time)

    def _show(self, scene: Scene) -> None:
        """Update the window; without a display, print the text."""
        import matplotlib.pyplot as plt
        from matplotlib.backends.registry import BackendFilter, backend_registry

        interactive = {
            name.lower()
            for name in backend_registry.list_builtin(  # type: ignore[no-untyped-call]
                BackendFilter.INTERACTIVE
            )
        }
        if plt.get_backend().lower() not in interactive:
            sys.stdout.write(as_text(scene))
            sys.stdout.flush()
            return
        picture = self.picture(scene)
        if self._window is None or not plt.fignum_exists(self._window.number):
            plt.ion()
            height, width = picture.shape[:2]
            self._window = plt.figure("fate-gym", figsize=(width / DPI, height / DPI), dpi=DPI)
            self._window.add_axes((0, 0, 1, 1)).set_axis_off()
        (axes,) = self._window.axes
        axes.clear()
        axes.set_axis_off()
        axes.imshow(picture)
        self._window.canvas.draw_idle()
        plt.pause(1.0 / self._fps)

    def close(self) -> None:
        """Close the window, if there is one."""
        if self._window is not None:
            import matplotlib.pyplot as plt

            plt.close(self._window)
            self._window = None
