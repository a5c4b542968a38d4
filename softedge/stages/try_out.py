"""``softedge try``: an exported classifier live on a phone."""

from __future__ import annotations

from pathlib import Path

from softedge import registry
from softedge.bench.base import DeviceError
from softedge.errors import UserError
from softedge.progress import say


def serve(
    run: str | Path, file: str | None = None, *, https: bool = False, cable: bool = False, host: str = "", port: int = 0
) -> tuple[int, Path]:
    """Show the model on phones until Ctrl-C; returns the number of corrected pictures and their folder.

    file: ``onnx-int8`` and the like.  https: with a certificate made here.  cable: Android over USB, ``adb reverse``.
    """
    from softedge.bench.browser import address
    from softedge.bench.browser.cable import opened_on_phone
    from softedge.live import serve as live
    from softedge.live.subject import choose

    _refuse_detector(run)
    if cable and (https or host):
        raise UserError(
            "--cable needs neither --https nor --host: over the cable the page is the phone's own localhost"
        )
    subject, folder = choose(Path(run), file), Path(run) / "corrections"
    with live.page(subject, folder, "127.0.0.1" if cable else host, port, https=https) as (server, kept):
        if cable:
            try:
                with opened_on_phone("try", "", server):
                    live.until_interrupted("try: Ctrl-C ends it")
            except DeviceError as error:
                raise UserError(str(error)) from error
        else:
            say(f"try: {subject.artifact.name}; open this address on the phone (same network): {server.url}")
            address.show_qr(server.url)
            hint = "" if https else "photos work on plain http; for the live picture use --https or --cable. "
            live.until_interrupted(f"try: {hint}Ctrl-C ends it")
    return kept.count, folder


def write_app(run: str | Path, folder: str | Path, file: str | None = None) -> int:
    """Write the web app of a run's file into ``folder``; returns its size in bytes."""
    from softedge.live import web_app
    from softedge.live.subject import choose

    _refuse_detector(run)
    subject = choose(Path(run), file)
    say(f"try: the app holds {subject.artifact.name}")
    return web_app.write(subject, Path(folder), Path(run).resolve().name)


def _refuse_detector(run: str | Path) -> None:
    if registry.owner(run):
        raise UserError(f"{run} is a detection run, and try shows classifiers only")
