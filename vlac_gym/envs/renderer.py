"""Who draws this process's pictures, itself or another: `Renderer`, `Picture`, `make_renderer`, `draw_through`."""

__all__ = ["Picture", "Renderer", "draw_through", "make_renderer"]

from typing import Any, Protocol

from vlac_gym.envs.offscreen import OffscreenRenderer
from vlac_gym.envs.render_client import RemoteRenderer, RenderClient, RenderLine
from vlac_gym.types import Frame

_client: RenderClient | None = None


class Picture(Protocol):
    """A picture that is being drawn; to be read or dropped, once, before its renderer is closed."""

    def read(self) -> Frame:
        """Waits for the picture: uint8 (size, size, 3), RGB, upright.

        Raises:
            SimulatorError: It cannot be drawn, or its renderer was closed.
        """
        ...

    def drop(self) -> None:
        """Gives the picture up."""
        ...


class Renderer(Protocol):
    """Draws models of one XML."""

    def draw(self, model: Any, data: Any, camera: str, size: int) -> Picture:
        """Has a camera's view of a state drawn; model and state may change at once.

        Args:
            model: An ``MjModel`` of this renderer's XML.
            data: The ``MjData`` to show; its positions must be computed.
            camera: A camera's name in the model.
            size: Side of the picture in pixels.

        Raises:
            SimulatorError: Nothing can be drawn.
        """
        ...

    def close(self) -> None:
        """Frees meshes and textures; the next `draw` uploads them again. Safe to call twice."""
        ...


def draw_through(line: RenderLine) -> None:
    """Has a render process draw what renderers draw that are made in this process from now on."""
    global _client
    _client = RenderClient(line)


def make_renderer(mujoco: Any, xml_key: str) -> Renderer:
    """A renderer of models whose XML has this digest, in this process unless `draw_through` was called.

    Args:
        mujoco: The imported module.
        xml_key: Models with the same one share meshes and textures.
    """
    return OffscreenRenderer(mujoco) if _client is None else RemoteRenderer(mujoco, xml_key, _client)
