"""What a video costs: each stage alone, all side by side, and the memory of the whole command.

    pip install '.[edge,video]'
    python benchmarks/video.py models/camvid_b0_int8.tflite --image photo.jpg

Alone and side by side take turns, some frames each, so that other work on the machine slows both alike.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import defaultdict
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

import av
import numpy as np
from cyclopts import run
from PIL import Image

from segformer_tf.edge import Segmenter
from segformer_tf.edge.predict.video.options import VideoOptions
from segformer_tf.edge.predict.video.run import output_paths, predict_videos
from segformer_tf.edge.predict.video.source import open_source
from segformer_tf.edge.predict.video.writer import MaskVideo, OverlayVideo
from segformer_tf.image import load_image
from segformer_tf.overlay import overlay
from segformer_tf.terminal import plain_console

_TURN = 50  # frames until the other way has its turn
_WARM_UP = 20  # seconds until the encoder's look-ahead is full


def main(
    model: Path, /, *, image: Path, frames: int = 300, size: tuple[int, int] = (480, 640), threads: int = 1
) -> None:
    """Print frames per second of decoder, network and encoder, alone and side by side, and memory second by second.

    Parameters
    ----------
    model
        A .tflite file.
    image
        Of which the clip shows a part that moves.
    frames
        Of the clip.
    size
        Height and width of the clip.
    threads
        Of the network.
    """
    console = plain_console()
    with TemporaryDirectory() as folder:
        clip = Path(folder) / "clip.mp4"
        _write_clip(clip, load_image(image), frames, size)
        segmenter = Segmenter(model, threads=threads)
        spent: dict[str, float] = defaultdict(float)
        for start in range(0, frames, _TURN):
            count = min(_TURN, frames - start)
            _time_alone(segmenter, clip, start, count, Path(folder), spent)
            began, busy = time.perf_counter(), time.thread_time()
            predict_videos(segmenter, {"clip": clip}, Path(folder), VideoOptions(frames=count))
            spent["side by side"] += time.perf_counter() - began
            spent["thread"] += time.thread_time() - busy
            (record,) = json.loads((Path(folder) / "predictions.json").read_text()).values()
            spent["busy"] += sum(record["speed_ms"].values()) * count / 1e3
        alone, thread = (spent.pop(key) / frames * 1e3 for key in ("thread alone", "thread"))
        busy_share = spent.pop("busy") / spent["side by side"]
        rates = {stage: frames / seconds for stage, seconds in spent.items()}
        for stage, rate in rates.items():
            console.print(f"{stage}: {rate:.2f} frames per second")
        slowest = min(rates[stage] for stage in ("decoder", "network", "encoder"))
        console.print(f"side by side: {rates['side by side'] / slowest:.1%} of the slowest stage alone")
        console.print(f"side by side the network works {busy_share:.1%} of the time; else it waits for the others")
        console.print(f"processor time of the network's thread: {alone:.1f} ms alone, {thread:.1f} ms side by side")
        memory = _memory(model, clip, Path(folder) / "seen", threads)
        console.print(f"memory, MB at each second: {' '.join(f'{value:.0f}' for value in memory)}")
        if later := memory[_WARM_UP:]:
            console.print(f"after {_WARM_UP} seconds: {min(later):.1f} to {max(later):.1f} MB")


def _write_clip(path: Path, picture: np.ndarray, frames: int, size: tuple[int, int]) -> None:
    height, width = size
    large = Image.fromarray(picture).resize((width + 100, height + 75))
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=30, options={"preset": "veryfast"})
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        for i in range(frames):
            left = 100 - abs(i % 200 - 100)
            part = large.crop((left, left * 3 // 4, left + width, left * 3 // 4 + height))
            file.mux(stream.encode(av.VideoFrame.from_image(part)))
        file.mux(stream.encode(None))


def _time_alone(
    segmenter: Segmenter, clip: Path, start: int, count: int, folder: Path, spent: dict[str, float]
) -> None:
    """Add the seconds of each stage for some frames to `spent`."""
    source = open_source(clip)
    began = time.perf_counter()
    taken = list(islice(source.frames(), count))
    spent["decoder"] += time.perf_counter() - began
    began, busy = time.perf_counter(), time.thread_time()
    results = [segmenter(frame.pixels) for frame in taken]
    spent["network"] += time.perf_counter() - began
    spent["thread alone"] += time.thread_time() - busy
    began = time.perf_counter()
    paths = output_paths(folder, f"alone_{start}", VideoOptions())
    pictures = OverlayVideo(paths["overlay"], source, source.clock.rate, name=paths["overlay"])
    masks = MaskVideo(paths["mask"], source, source.clock.rate, name=paths["mask"])
    for frame, result in zip(taken, results, strict=True):
        pictures.add(overlay(result.image, result.mask, result.labels), frame.ticks)
        masks.add(result.mask, frame.ticks)
    pictures.close()
    masks.close()
    spent["encoder"] += time.perf_counter() - began


def _memory(model: Path, clip: Path, out: Path, threads: int) -> list[float]:
    """Resident megabytes of ``segformer predict``, second by second; from /proc, so on Linux."""
    code = "from segformer_tf.cli import script; script()"
    verb = ["predict", str(model), str(clip), "--out", str(out), "--threads", str(threads)]
    values = []
    with subprocess.Popen([sys.executable, "-c", code, *verb], stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            status = Path(f"/proc/{process.pid}/status").read_text()
            if "VmRSS" in status:
                values.append(int(status.split("VmRSS:")[1].split()[0]) / 1024)
            time.sleep(1)
    return values


if __name__ == "__main__":
    run(main)
