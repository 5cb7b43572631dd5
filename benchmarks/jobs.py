"""What `textray reproduce --jobs` is worth: training steps of one process with all cores against one for each core.

    python benchmarks/jobs.py [--size 96] [--batch 32] [--steps 12] [--jobs 2]

Prints images a second of both and their ratio, measured in turn in one run.
"""

import argparse
import multiprocessing
import time

import torch

from textray.models.mmi_unet import MMIUNet, MMIUNetConfig
from textray.training.losses import DiceCELoss

SMALL = MMIUNetConfig(
    trunk="efficientnet_lite0.ra_in1k", text_width=384, dropout=0.0, decoder_channels=(32, 64, 96), skip="sum"
)


def train(threads, size, batch, steps, ready, told):
    """Take steps once every process is ready; tell how many seconds they took."""
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    network, loss = MMIUNet(SMALL).to(memory_format=torch.channels_last).train(), DiceCELoss()
    optimizer = torch.optim.AdamW(network.parameters())
    image = torch.randn(batch, 3, size, size).contiguous(memory_format=torch.channels_last)
    text, mask = torch.randn(batch, 24, 384), torch.rand(batch, 24) > 0.3
    target = (torch.rand(batch, 1, size, size) > 0.5).float()
    for step in range(steps + 2):
        if step == 2:
            ready.wait()
            start = time.perf_counter()
        loss(network(image, text, mask).logits, target).backward()
        optimizer.step()
        optimizer.zero_grad()
    told.put(time.perf_counter() - start)


def speed(jobs, threads, wanted):
    """Images a second of so many processes together."""
    context = multiprocessing.get_context("spawn")
    ready, told = context.Barrier(jobs), context.Queue()
    given = (threads, wanted.size, wanted.batch, wanted.steps, ready, told)
    processes = [context.Process(target=train, args=given) for _ in range(jobs)]
    for process in processes:
        process.start()
    seconds = max(told.get() for _ in processes)
    for process in processes:
        process.join()
    return jobs * wanted.batch * wanted.steps / seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--jobs", type=int, default=2)
    wanted = parser.parse_args()
    one = speed(1, wanted.jobs, wanted)
    several = speed(wanted.jobs, 1, wanted)
    print(f"one process, {wanted.jobs} threads    {one:6.1f} images/s")
    print(f"{wanted.jobs} processes, a thread each {several:6.1f} images/s  {several / one:5.2f} x")


if __name__ == "__main__":
    main()
