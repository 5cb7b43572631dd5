"""What tests of readers share."""

from pathlib import Path

import pytest

from textray.errors import InputError
from textray.io.read import read


@pytest.fixture
def put(tmp_path):
    """Write a file: ``put(data, name="film") -> path``."""

    def write(data, name="film") -> Path:
        path = tmp_path / name
        path.write_bytes(data)
        return path

    return write


@pytest.fixture
def refused(put):
    """Assert the refusal of bytes or a path: ``refused(data, code, **options)`` gives the message."""

    def ask(data, code, **options):
        with pytest.raises(InputError) as caught:
            read(put(data) if isinstance(data, bytes) else data, **options)
        assert (caught.value.code, caught.value.exit_code) == (code, 3), str(caught.value)
        return str(caught.value)

    return ask
