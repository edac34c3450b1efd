"""A critic server for tests, run as a program: `fake_server.py --port 0 [--delay-s 0.2] …`.

Its critic measures brightness, so every answer can be worked by hand. The task text orders faults:
`fault: memory`, `fault: crash`, `fault: nan`, `fault: too few`.
"""

import argparse
import logging
import sys
import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from vlac_gym.types import CriticInfo, CriticKnowledge, FloatArray, Frame


class BrightnessCritic:
    """`success_prob` is the mean of the frame over 255; `progress` the difference of two of them.

    `value` is the distance of each frame's brightness from the first one's.
    """

    def __init__(self, delay_s: float = 0.0, name: str = "brightness", only_task: str | None = None) -> None:
        self.delay_s = delay_s
        self.only_task = only_task
        self.name = name
        self.batches: list[tuple[str, int]] = []
        self.is_asleep = False
        self.is_closed = False

    def success_prob(self, frames: Sequence[Frame], tasks: Sequence[str]) -> FloatArray:
        self._enter("success_prob", len(frames), tasks)
        return self._spoil(np.array([brightness(f) for f in frames], np.float32), tasks)

    def progress(
        self,
        before: Sequence[Frame],
        after: Sequence[Frame],
        tasks: Sequence[str],
        references: Sequence[Frame] | None = None,
    ) -> FloatArray:
        self._enter("progress", len(before), tasks)
        bonus = 0.0 if references is None else len(references) / 100
        pairs = zip(before, after, strict=True)
        return np.array([brightness(b) - brightness(a) + bonus for a, b in pairs], np.float32)

    def value(
        self, frames: Sequence[Frame], task: str, references: Sequence[Frame] | None = None
    ) -> FloatArray:
        self._enter("value", len(frames), [task])
        return np.array([abs(brightness(f) - brightness(frames[0])) for f in frames], np.float32)

    def describe(self) -> CriticInfo:
        info = CriticInfo(self.name, model="mean", prompt_version="1", details={"scale": 255})
        if self.only_task is None:
            return info
        return replace(info, knows=CriticKnowledge(tasks=(self.only_task,)), inputs=("goal_image",))

    def sleep(self) -> None:
        self.is_asleep = True

    def wake(self) -> None:
        self.is_asleep = False

    def close(self) -> None:
        self.is_closed = True

    def _enter(self, method: str, count: int, tasks: Sequence[str]) -> None:
        assert not self.is_asleep
        self.batches.append((method, count))
        time.sleep(self.delay_s)
        if "fault: memory" in tasks:
            raise MemoryError("tried to allocate 20.00 GiB")
        if "fault: crash" in tasks:
            raise RuntimeError("secret path /root/model\nTraceback of something")

    def _spoil(self, probs: FloatArray, tasks: Sequence[str]) -> FloatArray:
        if "fault: too few" in tasks:
            return probs[1:]
        if "fault: nan" in tasks:
            probs[0] = np.nan
        return probs


def brightness(frame: Frame) -> float:
    return float(frame.mean()) / 255


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--delay-s", type=float, default=0.0)
    parser.add_argument("--load-s", type=float, default=0.0)
    parser.add_argument("--name", default="brightness")
    parser.add_argument("--only-task")
    parser.add_argument("--token")
    parser.add_argument("--protocol", type=int, default=1)
    parser.add_argument("--max-batch", type=int, default=64)
    parser.add_argument("--frame-store-bytes", type=int, default=2**26)
    parser.add_argument("--max-frames", type=int, default=2048)
    parser.add_argument("--max-body-bytes", type=int, default=2**27)
    parser.add_argument("--max-decoded-bytes", type=int, default=2**29)
    parser.add_argument("--body-timeout-s", type=float, default=5.0)
    parser.add_argument("--header-timeout-s", type=float, default=5.0)
    parser.add_argument("--shutdown-s", type=float, default=5.0)
    args = parser.parse_args()

    from vlac_gym.service import api_schema, app, core, messages, protocol, wire_errors
    from vlac_gym.service.server import JsonLogFormatter, ServerConfig, serve

    for module in (api_schema, app, core, messages, protocol, wire_errors):
        if hasattr(module, "PROTOCOL_VERSION"):
            module.PROTOCOL_VERSION = args.protocol
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLogFormatter())
    logging.basicConfig(level="INFO", handlers=[handler])

    def make() -> BrightnessCritic:
        time.sleep(args.load_s)
        return BrightnessCritic(args.delay_s, args.name, args.only_task)

    config = ServerConfig(
        port=args.port,
        shutdown_s=args.shutdown_s,
        header_timeout_s=args.header_timeout_s,
        service=core.ServiceConfig(
            max_batch=args.max_batch,
            frame_store_bytes=args.frame_store_bytes,
            body_timeout_s=args.body_timeout_s,
            token=args.token,
            limits=protocol.Limits(
                max_frames=args.max_frames,
                max_body_bytes=args.max_body_bytes,
                max_decoded_bytes=args.max_decoded_bytes,
            ),
        ),
    )
    return serve(make, config, on_listening=lambda url: print(url, flush=True))


if __name__ == "__main__":
    sys.exit(main())
