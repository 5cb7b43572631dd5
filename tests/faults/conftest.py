"""Table of faults: an input, the answer that it must get, tried through the command line.

Each ``test_LETTER.py`` lists ``CASES`` of one letter: ``(id, input, make, answer)``. ``make(tools)`` writes inputs into
the present folder and gives the arguments of ``textray segment``, or gives the bytes of one film. ``answer`` holds the
exit status (``exit``, 0 by default), message ``codes``, ``words`` of a message, and ``same_as``, which makes the clean
twin whose mask must be the same. ``python docs/write_faults.py`` writes docs/faults.md from them.
"""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image as PILImage


def mask_of(folder):
    (path,) = folder.glob("*.mask.png")
    with PILImage.open(path) as picture:
        return np.asarray(picture)


@pytest.fixture
def attempt(cli, tiny_bundle, tmp_path, monkeypatch, dicom, raster, levels):
    """Try a case and assert its answer."""
    tools = SimpleNamespace(dicom=dicom, raster=raster, levels=levels, eight=(levels >> 4).astype(np.uint8))

    def run(make, name):
        folder = tmp_path / name
        folder.mkdir()
        monkeypatch.chdir(folder)
        made = make(tools)
        if isinstance(made, bytes):
            (folder / "film").write_bytes(made)
            made = ["film"]
        result = cli("segment", "--out", folder / "out", "--model", tiny_bundle, "--threads", "1", *made)
        return result, folder / "out"

    def check(make, *, exit=0, codes=(), words="", same_as=None):
        result, out = run(make, "odd")
        assert result.code == exit, result.err
        assert "E_INTERNAL" not in result.err
        assert all(code in result.err for code in codes), result.err
        assert words in result.err
        if exit == 0:
            assert json.loads((out / "run.json").read_bytes())["status"] == "done"
            assert mask_of(out).size
        else:
            assert not list(out.glob("*.mask.png"))
        if same_as is not None:
            twin, clean = run(same_as, "clean")
            assert twin.code == 0, twin.err
            np.testing.assert_array_equal(mask_of(out), mask_of(clean))

    return check
