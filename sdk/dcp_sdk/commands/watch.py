"""``dcp watch``: a stream on the terminal, and if wanted its pictures beside what the server receives of them."""

from __future__ import annotations

import time
from collections import deque
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer
from rich.live import Live

from ..client import PrivateClient
from ..frames import Frame
from ..obfuscate import Payload
from ..payload_picture import side_by_side
from ..predictions import Prediction
from .connecting import connected
from .output import output
from .screens import VideoFile, Window
from .tables import live_table

__all__ = ["watch"]

_REFRESH_S = 0.25
"""People read no faster, and the percentiles cost a millisecond."""
_RATE_FRAMES = 30


@connected
def watch(
    client: PrivateClient,
    source: Annotated[str, typer.Argument(help="Number of a camera, URL, video file or folder of pictures.")],
    *,
    frames: Annotated[int, typer.Option(help="Stop after this many frames; 0 never stops.")] = 0,
    in_flight: Annotated[int, typer.Option(help="Requests on the network at the same time.")] = 2,
    window: Annotated[
        bool, typer.Option("--window", help="Show the picture beside what the server receives; Escape ends it.")
    ] = False,
    save: Annotated[
        Path | None,
        typer.Option(
            help="Write the same as a video, such as out.mp4, each frame for a tenth of a second. "
            "It holds the camera's picture: it stays on this device, and nobody else should get it."
        ),
    ] = None,
) -> None:
    """Predict a camera, a video or a folder, and show the newest answer until Ctrl-C."""
    with ExitStack() as opened:
        screens: list[Window | VideoFile] = [Window("dcp watch")] if window else []
        if save is not None:
            screens.append(VideoFile(save))
        for screen in screens:
            opened.callback(screen.close)

        def draw(frame: Frame, payload: Payload, _: Prediction) -> None:
            drawing = side_by_side(frame.image_rgb, payload, client.manifest.contract)
            for screen in screens:
                screen.show(drawing)

        live = opened.enter_context(Live(console=output(), auto_refresh=False))
        stream = client.stream(
            int(source) if source.isdecimal() else source, in_flight=in_flight, observe=draw if screens else None
        )
        opened.callback(stream.close)
        view = _View(client, live)
        try:
            for count, prediction in enumerate(stream, start=1):
                view.show(prediction, count)
                if count == frames or any(screen.closed for screen in screens):
                    break
        except KeyboardInterrupt:
            live.console.print("Stopped.")
        finally:
            view.refresh()


class _View:
    """The newest prediction on the terminal, a few times a second."""

    def __init__(self, client: PrivateClient, live: Live) -> None:
        self._client, self._live = client, live
        self._newest: tuple[Prediction, int] | None = None
        self._times: deque[float] = deque([time.monotonic()], maxlen=_RATE_FRAMES + 1)
        self._refreshed = 0.0

    def show(self, prediction: Prediction, count: int) -> None:
        self._newest = prediction, count
        self._times.append(time.monotonic())
        if self._times[-1] - self._refreshed >= _REFRESH_S:
            self.refresh()

    def refresh(self) -> None:
        if self._newest is None:
            return
        prediction, count = self._newest
        rate = (len(self._times) - 1) / max(self._times[-1] - self._times[0], 1e-9)
        self._live.update(live_table(prediction, self._client.stats(), count=count, frames_per_s=rate), refresh=True)
        self._refreshed = time.monotonic()
