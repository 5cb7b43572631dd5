"""What `textray` exports, and what importing it costs."""

import subprocess
import sys

import pytest

import textray


def test_the_exported_names_are_these():
    names = (
        "Bundle DicomOut Grid Image Laterality Notice Prediction Predictor Report TextRayError Zones __version__ load "
        "load_network predictor"
    )
    assert textray.__all__ == names.split()
    for name in textray.__all__:
        assert getattr(textray, name) is not None
    assert dir(textray) == sorted(textray.__all__)
    with pytest.raises(AttributeError, match="no attribute 'segment'"):
        _ = textray.segment


def run(code):
    """Words that a program prints in a process of its own."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    return done.stdout.split()


HEAVY = (
    "torch",
    "lightning",
    "timm",
    "transformers",
    "monai",
    "onnxruntime",
    "pandas",
    "sklearn",
    "highdicom",
    "nibabel",
)


@pytest.mark.parametrize(
    "module", ["cli", "io.write", "text.zones", "models", "data", "inference.bundle", "inference.segment_run"]
)
def test_importing_loads_nothing_heavy(module):
    """And so do the modules that these import: errors, records, the registry, the reader, the preprocessing."""
    loaded = run(f"import sys, textray.{module}; print(*sorted(set({HEAVY!r}) & set(sys.modules)))")
    assert set(loaded) <= ({"onnxruntime"} if module == "inference.segment_run" else set())


def test_the_command_line_needs_no_numpy_to_start():
    assert run("import sys, textray.cli; print(*{'numpy', 'pydicom', 'PIL'} & set(sys.modules))") == []


def test_segmenting_from_python_loads_no_torch(tiny_bundle, tmp_path):
    code = (
        "import sys, numpy, textray\n"
        f"prediction = textray.load({str(tiny_bundle)!r}).segment(numpy.eye(64, dtype='float32'), 'left base')\n"
        f"prediction.save({str(tmp_path)!r})\n"
        "assert isinstance(prediction, textray.Prediction)\n"
        f"print(*sorted(set({HEAVY!r}) & set(sys.modules)))"
    )
    assert run(code) == ["onnxruntime"]
    assert (tmp_path / "array.mask.png").is_file()
