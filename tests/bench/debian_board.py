"""A board to test ``ssh:`` on: a whole machine that qemu makes up, with Debian's arm64 kernel, Python and sshd.

    python tests/bench/debian_board.py     makes it, once, in softedge's cache: about a minute, 400 MB

Needs qemu-system-aarch64 (Debian: qemu-system-arm), mke2fs and apt.  Its packages are unpacked and not configured:
nothing of another processor runs while it is made.  What runs on it is the real thing but for time: 2 GB of memory,
one Cortex-A72 as on a Raspberry Pi 4, and a kernel that says so.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from softedge.bench import native, pinned
from softedge.bench.emulated import sysroot
from softedge.bench.ssh import wheels
from softedge.export.base import open_format

QEMU = "qemu-system-aarch64"
MEMORY_MB = 2048
CPU = "cortex-a72"  # of a Raspberry Pi 4
PACKAGES = (
    *("python3", "openssh-server", "linux-image-cloud-arm64", "iproute2", "kmod", "mount", "bash", "dash", "tar"),
    *("base-files", "base-passwd", "coreutils", "grep", "sed", "libc-bin", "libstdc++6"),
)
BOOT_S = 300  # on a busy machine; 10 s of it are the kernel's
INIT = """#!/bin/sh
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t tmpfs run /run; mount -t devtmpfs dev /dev
mkdir -p /dev/pts /run/sshd; mount -t devpts pts /dev/pts
depmod; modprobe virtio_pci; modprobe virtio_net
ip link set lo up; ip addr add 10.0.2.15/24 dev eth0; ip link set eth0 up
exec /usr/sbin/sshd -D -e -o UsePAM=no -o StrictModes=no -o PermitRootLogin=yes
"""


def folder() -> Path:
    return pinned.cache_folder() / "debian-board"


def why_not() -> str:
    """Why there is no such board here; empty when there is."""
    missing = [tool for tool in (QEMU, "ssh") if shutil.which(tool) is None]
    if missing:
        return f"needs {', '.join(missing)}: apt-get install qemu-system-arm openssh-client"
    return "" if folder().exists() else "needs, once: python tests/bench/debian_board.py"


def make() -> Path:
    """disk.img, vmlinuz, key, config (of ssh) and the wheels for its Python, in a folder of the cache."""
    if folder().exists():
        return folder()
    folder().parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="debian-board-", dir=folder().parent) as temporary:
        made, root = Path(temporary) / "board", Path(temporary) / "root"
        made.mkdir()
        with tempfile.TemporaryDirectory() as state:
            archive = sysroot.Archive(Path(state))
            archive.unpack(PACKAGES, root)
            glibc = archive.version("libc6").split("-")[0]
        _configure(root, made)
        shutil.copyfile(next((root / "boot").glob("vmlinuz-*")), made / "vmlinuz")
        shutil.rmtree(root / "boot")
        words = ["mke2fs", "-q", "-t", "ext4", "-E", "root_owner=0:0", "-d", str(root), str(made / "disk.img"), "2G"]
        subprocess.run(words, check=True)
        (made / "wheels").mkdir()
        there = (next((root / "usr/bin").glob("python3.[0-9]*")).name.removeprefix("python"), "aarch64", glibc)
        for kind in wheels.carried():
            for wheel in wheels.fetch(["numpy", "pillow", *kind.board_packages.values()], *there):
                shutil.copyfile(wheel, made / "wheels" / wheel.name)
            native.library(open_format(kind.name), *there)
        os.rename(made, folder())
    return folder()


def _configure(root: Path, made: Path) -> None:
    """What the packages' own scripts would have done, as far as sshd and Python need it."""
    for name in ("passwd", "group"):
        shutil.copyfile(root / f"usr/share/base-passwd/{name}.master", root / f"etc/{name}")
    with open(root / "etc/passwd", "a") as file:
        file.write("sshd:x:100:65534::/run/sshd:/usr/sbin/nologin\n")
    shutil.copyfile(root / "usr/share/openssh/sshd_config", root / "etc/ssh/sshd_config")
    for place in (root / "etc/ssh/ssh_host_ed25519_key", made / "key"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", place], check=True)
    (root / "root/.ssh").mkdir(parents=True, exist_ok=True)
    shutil.copyfile(made / "key.pub", root / "root/.ssh/authorized_keys")
    for name in ("proc", "sys", "run", "dev", "tmp"):
        (root / name).mkdir(exist_ok=True)
    (root / "tmp").chmod(0o1777)
    (root / "init").write_text(INIT)
    (root / "init").chmod(0o755)
    host = " ".join((root / "etc/ssh/ssh_host_ed25519_key.pub").read_text().split()[:2])
    (made / "known").write_text(f"board {host}\n")


@contextlib.contextmanager
def running(memory_mb: int = MEMORY_MB, cpu: str = CPU) -> Iterator[str]:
    """The address of the board, booted from its disk as it was made; off again afterwards."""
    home = folder()
    with tempfile.TemporaryDirectory() as temporary, socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        shutil.copyfile(home / "key", Path(temporary) / "key")
        (Path(temporary) / "key").chmod(0o600)
        config = Path(temporary) / "config"
        config.write_text(
            f"Host *\n  IdentityFile {temporary}/key\n  IdentitiesOnly yes\n  UserKnownHostsFile {home}/known\n"
            "  GlobalKnownHostsFile none\n  StrictHostKeyChecking yes\n  HostKeyAlias board\n"
        )
        words = [
            QEMU,
            "-M",
            "virt",
            "-cpu",
            "cortex-a72",
            "-smp",
            "1",
            "-m",
            str(memory_mb),
            "-nographic",
            "-no-reboot",
        ]
        words += ["-kernel", str(home / "vmlinuz"), "-append", "root=/dev/nvme0n1 rw console=ttyAMA0 init=/init quiet"]
        words += ["-drive", f"file={home}/disk.img,format=raw,if=none,id=disk,snapshot=on"]
        words += ["-device", "nvme,drive=disk,serial=1", "-device", "virtio-net-pci,netdev=net,romfile="]
        words += ["-netdev", f"user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:{port}-:22"]
        with open(Path(temporary) / "console", "w+b") as console:
            process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=console, stderr=console)
            try:
                _wait(process, config, port, Path(console.name))
                yield f"ssh://root@127.0.0.1:{port}?config={config}&wheels={home}/wheels"
            finally:
                process.kill()
                process.wait()


def _wait(process: subprocess.Popen[bytes], config: Path, port: int, console: Path) -> None:
    asked = ["ssh", "-F", str(config), "-p", str(port), "-o", "BatchMode=yes", "-o", "ConnectTimeout=20"]
    deadline = time.monotonic() + BOOT_S
    while time.monotonic() < deadline and process.poll() is None:
        if subprocess.run([*asked, "root@127.0.0.1", "true"], capture_output=True, timeout=60).returncode == 0:
            return
        time.sleep(1)
    raise RuntimeError(f"the board did not start: {console.read_text(errors='replace')[-2000:]}")


if __name__ == "__main__":
    if why := why_not():
        if not why.endswith("debian_board.py"):
            sys.exit(why)
        make()
    print(folder())
