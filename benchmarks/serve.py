"""Time from a film to its overlay, and from words to a new mask, through the API of `textray serve`.

Run: python benchmarks/serve.py [--times N] [--film FILE]

Prints medians in seconds, and their ratio to `Predictor.segment` of the same film in this process. Film to overlay is
what the page waits for: upload, then picture and segmentation at once, then the mask; decoding by the browser is not in
it. A busy machine makes the figures worse.
"""

from __future__ import annotations

import argparse
import json
import secrets
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import textray
from textray.inference.inputs import demo_film

CODE = "import sys; from textray.cli import main; main(sys.argv[1:])"
ZONES = [f"{side} {level} zone" for side in ("right", "left") for level in ("upper", "middle", "lower")]


class Client:
    """Calls of one server."""

    def __init__(self, page: str) -> None:
        self.url, _, self.key = page.partition("/#key=")

    def __call__(self, path: str, body: bytes | None = None, kind: str = "application/json") -> bytes:
        """Answer of a call; a body makes it a POST."""
        headers = {"Authorization": f"Bearer {self.key}", "Content-Type": kind}
        with urllib.request.urlopen(urllib.request.Request(self.url + path, body, headers), timeout=120) as answer:
            return answer.read()

    def film_to_overlay(self, data: bytes) -> tuple[float, str]:
        """Seconds, and the id of the film."""
        start = time.perf_counter()
        film = json.loads(self("/api/films", data, "application/octet-stream"))["id"]
        with ThreadPoolExecutor(1) as other:
            picture = other.submit(self, f"/api/films/{film}/picture.png")
            self.mask(film, {})
            picture.result()
        return time.perf_counter() - start, film

    def mask(self, film: str, order: dict[str, str]) -> float:
        """Seconds from words to their mask."""
        start = time.perf_counter()
        result = json.loads(self(f"/api/films/{film}/segment", json.dumps(order).encode()))["id"]
        self(f"/api/results/{result}/mask.png")
        return time.perf_counter() - start


def alone(film: Path, times: int) -> tuple[float, float]:
    """Medians of `Predictor.segment` with one thread: of a film that is read anew, and of one that is read already."""
    predictor = textray.load(threads=1)
    image = predictor.segment(film).image

    def timed(picture: object) -> float:
        start = time.perf_counter()
        predictor.segment(picture, ZONES[0])
        return time.perf_counter() - start

    both = [(timed(film), timed(image)) for _ in range(times)]
    return statistics.median(a for a, _ in both), statistics.median(b for _, b in both)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=9)
    parser.add_argument("--film", type=Path, default=demo_film())
    arguments = parser.parse_args()
    data = arguments.film.read_bytes()
    words = [sys.executable, "-c", CODE, "serve", "--port", "0"]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as server:
        client = Client(server.stderr.readline().split()[1])
        try:
            while True:
                try:
                    client("/ready")
                    break
                except urllib.error.HTTPError:
                    time.sleep(0.2)
            client.film_to_overlay(data)  # so that a worker is warm
            # Other values of the last pixels make another film for the server.
            films = [client.film_to_overlay(data[:-4] + secrets.token_bytes(4)) for _ in range(arguments.times)]
            asked = [client.mask(films[-1][1], {"text": f"opacity in the {zone}"}) for zone in ZONES]
        finally:
            server.terminate()
    anew, again = alone(arguments.film, arguments.times)
    first, second = statistics.median(seconds for seconds, _ in films), statistics.median(asked)
    print(f"film to overlay  {first:.2f} s, {first / anew:.2f} of Predictor.segment of a file ({anew:.2f} s)")
    print(f"words to mask    {second:.2f} s, {second / again:.2f} of Predictor.segment of an Image ({again:.2f} s)")


if __name__ == "__main__":
    main()
