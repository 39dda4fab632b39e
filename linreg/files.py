"""Files that appear whole or not at all."""

import os
from pathlib import Path

from linreg.errors import RunError


def write_whole(path: Path, content: bytes | memoryview) -> None:
    """Writes beside the target and renames, so that a kill or a full disk leaves what was there before.

    Raises:
        RunError: if the content cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)  # else a power cut may undo the renaming
        finally:
            os.close(folder)
    except OSError as error:
        raise RunError(f"{path} could not be written: {error.strerror}; what was there before is intact") from None
    finally:
        temporary.unlink(missing_ok=True)
