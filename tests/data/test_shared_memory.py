"""A container's 64 MB of shared memory are enough to train with, more slowly, and with the same views."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from pictures import save

from softedge.data.shared_memory import Shares, fitting

VIEWS = 2 * 224 * 224 * 3


def test_with_room_nothing_changes() -> None:
    assert fitting(8, VIEWS, None) == fitting(8, VIEWS, 24 << 30) == Shares(8, 32, 4, False)
    assert fitting(0, VIEWS, 1000).workers == 0


@pytest.mark.parametrize("free", [0, 100_000, 700_000, 4 << 20, 64 << 20, 512 << 20])
@pytest.mark.parametrize("workers", [1, 2, 8, 16])
@pytest.mark.parametrize("side", [32, 224, 640])
def test_what_is_on_its_way_fits_into_half_of_it(free: int, workers: int, side: int) -> None:
    views = 2 * side * side * 3
    shares = fitting(workers, views, free)
    assert shares.workers * shares.prefetch * shares.chunk * views <= free / 2
    assert 0 <= shares.workers <= workers and shares.taken_out
    if free / 2 >= views:
        assert shares.workers >= 1 and shares.chunk >= 1 and shares.prefetch >= 1


LOADER = """
import hashlib, sys, numpy as np
from pathlib import Path
from softedge.config import Augment
from softedge.data.draws import two_views
from softedge.data.images import FileImages
from softedge.data.views import ViewLoader

folder = Path(sys.argv[1])
names = sorted(path.name for path in folder.iterdir())
images = FileImages(folder, names, np.arange(len(names)))
views = ViewLoader(images, two_views(224, Augment()), 128, 0, workers=int(sys.argv[2]))
digest = hashlib.sha256()
for made, index in views.epoch(0):
    for tensor in (*made, index):
        digest.update(tensor.numpy().tobytes())
print(digest.hexdigest())
"""


@pytest.mark.hardware
def test_an_epoch_at_224_pixels_runs_in_64_megabytes(tmp_path: Path) -> None:
    mounted = ["unshare", "-m", "sh", "-c", 'mount -t tmpfs -o size=64m tmpfs /dev/shm && exec "$@"', "sh"]
    if not shutil.which("unshare") or subprocess.run([*mounted, "true"], capture_output=True).returncode:
        pytest.skip("needs the right to mount a small /dev/shm")
    for number in range(16):
        save(tmp_path / "set" / f"{number:02d}.jpg", number, height=240, width=250)
    for number in range(16, 256):  # links: as many images, little time
        (tmp_path / "set" / f"{number:03d}.jpg").symlink_to(tmp_path / "set" / f"{number % 16:02d}.jpg")

    def run(workers: int, *before: str) -> subprocess.CompletedProcess[str]:
        command = [*before, sys.executable, "-c", LOADER, str(tmp_path / "set"), str(workers)]
        return subprocess.run(command, capture_output=True, text=True, timeout=300)

    small = run(2, *mounted)
    assert small.returncode == 0, small.stderr
    assert "/dev/shm has little room: 2 loader processes send" in small.stderr
    assert small.stdout == run(0).stdout and np.char.str_len(small.stdout.strip()) == 64
