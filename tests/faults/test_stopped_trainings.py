"""Trainings in processes of their own that are killed, stopped or short of room; all of these tests are slow."""

import os
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("lightning", reason="textray[train] is not installed")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="signals and limits are those of Linux"),
]
EPOCHS = 5
PATIENCE = 600  # seconds until a training counts as hanging; all of them start Python and torch anew
DATA = """\
seed_everything: 3
trainer: {enable_progress_bar: false, max_epochs: 5}
data:
  {data: phantom, size: [32, 64], normalise: percentile, augment: light, batch_size: 4, limit: 8, workers: 1}
"""
UNET = f"""\
{DATA}
model:
  network: {{class_path: textray.models.baselines.unet.UNet, init_args: {{config: {{width: 4}}}}}}
  text_encoder: null
"""
READER = f"""\
{DATA.replace("light,", "light, report_dropout: 0.5,")}
model:
  network:
    class_path: textray.models.mmi_unet.MMIUNet
    init_args: {{config: {{trunk: efficientnet_lite0, text_width: 32, decoder_channels: [8, 8, 8]}}}}
  text_encoder: tiny
"""


@pytest.fixture
def start(tmp_path):
    """Train as a shell would: ``start(out, recipe, ..., before="", limit=None) -> Popen`` in a group of its own."""

    def begin(out, recipe, *more, before="", limit=None):
        def prepare():
            if limit is not None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

        (tmp_path / "tiny.yaml").write_text(recipe)
        words = ["textray", "train", "--config", "tiny.yaml", "--out", str(out), *more]
        code = f"import sys; from textray.cli import main; sys.argv = {words!r}\n{before}\nmain()"
        return subprocess.Popen(
            [sys.executable, "-c", code], cwd=tmp_path, env=os.environ | {"OMP_NUM_THREADS": "1"}, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, preexec_fn=prepare, start_new_session=True,
        )  # fmt: skip

    return begin


@pytest.fixture(scope="module")
def finished():
    """Folders of trainings that nothing stopped, by recipe."""
    return {}


@pytest.fixture
def whole(start, finished, tmp_path_factory):
    """A training of a recipe that nothing stops: ``whole(recipe) -> folder``, shared, so do not change it."""

    def train(recipe):
        if recipe not in finished:
            out = tmp_path_factory.mktemp("whole")
            status, words = ended(start(out, recipe))
            assert status == 0, words
            finished[recipe] = out
        return finished[recipe]

    return train


def ended(run):
    """Exit status and output of a training; one that hangs is killed with its processes, and fails the test."""
    try:
        words, _ = run.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        os.killpg(run.pid, signal.SIGKILL)
        pytest.fail(f"the training hangs: {run.communicate()[0]}")
    return run.returncode, words


def epochs(out):
    """Complete epochs that the logs of all parts of a training name."""
    rows = [row.split(",") for path in Path(out).glob("log/version_*/metrics.csv") for row in path.read_text().split()]
    return max((int(row[0]) + 1 for row in rows if row[0].isdecimal()), default=0)


def wait_for(true, run):
    deadline = time.monotonic() + PATIENCE
    while not true() and run.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)


def same(one, other):
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[name], other[name]) for name in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


def state(out, name):
    whole = torch.load(out / "checkpoints" / f"{name}.ckpt", weights_only=True)
    return {part: whole[part] for part in ("state_dict", "optimizer_states", "lr_schedulers", "epoch", "global_step")}


def assert_same(whole, other):
    for name in ("last", "best"):
        assert same(state(whole, name), state(other, name)), name
    assert not list(other.rglob(".textray-*"))


@pytest.mark.parametrize(("seed", "recipe"), [(0, UNET), (1, READER), (2, UNET)])
def test_e03_a_training_killed_at_three_moments_comes_to_the_very_same_weights(start, whole, tmp_path, seed, recipe):
    killed, rng = tmp_path / "killed", random.Random(seed)
    moments = sorted(rng.uniform(0, EPOCHS - 0.5) for _ in range(3))
    for moment in moments:
        run = start(killed, recipe)
        begun = time.monotonic()
        wait_for((killed / "log").exists, run)
        wait_for(lambda moment=moment: epochs(killed) >= int(moment), run)
        time.sleep(moment % 1 * min(1.0, (time.monotonic() - begun) / 10))
        os.killpg(run.pid, signal.SIGKILL)
        run.communicate(timeout=60)
    assert 0 < epochs(killed) <= EPOCHS
    status, words = ended(start(killed, recipe))
    assert status == 0, words
    assert "Resuming from" in words
    assert_same(whole(recipe), killed)


KILL = """
import multiprocessing, os, signal, time
from textray.training import checkpoints, segmentation
Task, killed = segmentation.SegmentationTask, []
def kill(epoch):
    if epoch == 1 and not killed:
        killed.extend(multiprocessing.active_children())
        for child in killed:
            os.kill(child.pid, signal.SIGKILL)
        time.sleep(0.5)
"""
MOMENTS = {
    "last step": """
real = Task.training_step
def step(self, batch, index):
    loss = real(self, batch, index)
    if index == self.trainer.num_training_batches - 1:
        kill(self.current_epoch)
    return loss
Task.training_step = step
""",
    "validation": """
real = Task.on_validation_epoch_start
def begin(self):
    real(self)
    kill(self.current_epoch)
Task.on_validation_epoch_start = begin
""",
    "end": "Task.on_train_epoch_end = lambda self: kill(self.current_epoch)",
    "checkpoint": """
real = checkpoints.torch.save
def save(values, file):
    kill(values["textray"]["epoch"] - 1)
    real(values, file)
checkpoints.torch.save = save
""",
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_e06_workers_killed_at_an_epochs_end_end_the_training_and_it_goes_on(start, whole, tmp_path, moment):
    run = tmp_path / "run"
    status, words = ended(start(run, UNET, before=KILL + MOMENTS[moment]))
    assert status == 1, words
    assert "error E_WORKER: a process that prepares batches ended" in words
    assert "goes on from the last complete epoch" in words
    assert not list(run.rglob(".textray-*"))
    assert epochs(run) in (1, 2)
    status, words = ended(start(run, UNET))
    assert status == 0, words
    assert_same(whole(UNET), run)


@pytest.mark.parametrize(("limit", "code"), [(150_000, "E_DISK"), (50_000, "E_WORKER"), (2_000, "E_DISK")])
def test_e01_a_limit_of_file_sizes_ends_a_training_without_a_half_checkpoint(start, whole, tmp_path, limit, code):
    run = tmp_path / "run"
    whole(UNET)  # fills the cache
    status, words = ended(start(run, UNET, limit=limit))
    assert status == 1, words
    assert f"error {code}: " in words
    assert "E_INTERNAL" not in words
    assert not list(run.rglob("*.ckpt"))
    assert not list(run.rglob(".textray-*"))
    if code == "E_WORKER":
        status, words = ended(start(run, UNET))
        assert status == 0, words
        assert_same(whole(UNET), run)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_e05_a_training_that_is_stopped_says_where_it_goes_on(start, tmp_path, number, code):
    workers = int(number == signal.SIGTERM)  # Python drops a KeyboardInterrupt that meets a fork, most of such an epoch
    run = start(tmp_path / "run", UNET, "--trainer.max_epochs=500", f"--data.workers={workers}")
    wait_for((tmp_path / "run" / "checkpoints" / "last.ckpt").exists, run)
    run.send_signal(number)
    status, words = ended(run)
    assert status == code, words
    assert "complete epochs; the same command goes on" in words
    assert "defect" not in words
