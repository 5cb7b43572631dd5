"""Images a second of one training step, and what each choice of the shipped recipe is worth.

    python benchmarks/train_step.py [--size 160] [--batch 32] [--steps 4]

Prints a line per variant and its ratio to the shipped recipe, measured in turn in one process.
"""

import argparse
import statistics
import time
from dataclasses import replace

import torch

from textray.models.mmi_unet import MMIUNet, MMIUNetConfig
from textray.training.losses import DiceCELoss

SHIPPED = MMIUNetConfig(
    trunk="efficientnet_lite0.ra_in1k", text_width=384, dropout=0.0, decoder_channels=(32, 64, 96), skip="sum"
)
VARIANTS = {
    "shipped recipe": (SHIPPED, True),
    "attention dropout 0.1": (replace(SHIPPED, dropout=0.1), True),
    "decoder 64, 96, 128": (replace(SHIPPED, decoder_channels=(64, 96, 128)), True),
    "channels first": (SHIPPED, False),
}


def speed(config, channels_last, size, batch, steps):
    layout = torch.channels_last if channels_last else torch.contiguous_format
    network, loss = MMIUNet(config).to(memory_format=layout).train(), DiceCELoss()
    optimizer = torch.optim.AdamW(network.parameters())
    image = torch.randn(batch, 3, size, size).contiguous(memory_format=layout)
    text, mask = torch.randn(batch, 24, 384), torch.rand(batch, 24) > 0.3
    target = (torch.rand(batch, 1, size, size) > 0.5).float()
    seconds = []
    for _ in range(steps + 1):
        start = time.perf_counter()
        loss(network(image, text, mask).logits, target).backward()
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(time.perf_counter() - start)
    return batch / statistics.median(seconds[1:])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=160)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=4)
    options = parser.parse_args()
    torch.set_flush_denormal(True)
    first = None
    for name, (config, channels_last) in VARIANTS.items():
        images_a_second = speed(config, channels_last, options.size, options.batch, options.steps)
        first = first or images_a_second
        print(f"{name:24} {images_a_second:6.1f} images/s  {images_a_second / first:5.2f} x")


if __name__ == "__main__":
    main()
