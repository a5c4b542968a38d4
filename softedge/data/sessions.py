"""Folders that a camera, a phone or a sorting person made, and perhaps no class: their names would become labels."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from softedge.data.inventory import printable
from softedge.errors import quoted

_DATE = r"(?:19|20)\d\d[-_. ]?(?:0[1-9]|1[0-2])(?:[-_. ]?(?:0[1-9]|[12]\d|3[01]))?"
_MONTH = r"(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*"
# None of these is a class. DCF, JEITA CP-3461: folders in DCIM are three digits from 100 and five letters.
_SURE = re.compile(
    rf"{_DATE}(?:[-_. tT]\d{{2}}[-_.:]?\d{{2}}(?:[-_.:]?\d{{2}})?)?"
    r"|(?=[1-9]\d\d[A-Z0-9_]*[A-Z_])[1-9]\d\d[A-Z0-9_]{5}|[1-9]\d\dAPPLE|[1-9]\d\dANDRO"
    r"|(?:IMG|DSC|DSCN|DSCF|PXL|VID|MVI|GOPR|DJI|PANO|BURST)[-_ ]?\d[-_ \d]*"
    rf"|{_MONTH}[-_. ]?(?:19|20)\d\d|(?:19|20)\d\d[-_. ]?{_MONTH}|photos from (?:19|20)\d\d"
    r"|(?:new|untitled) folder(?: ?\(?\d+\)?)?|DCIM",
    re.IGNORECASE,
)
# These are not classes where all folders are of one kind.
_WORDS = (
    r"session|batch|shoot|shooting|roll|day|week|visit|trip|take|burst|capture|recording|upload|import|export|download"
    r"|photo|photos|image|images|picture|pictures|pics|img|folder|dir|part|chunk|split|fold|frame|frames|clip|video"
    r"|sequence|seq|scan|camera|cam|phone|iphone|device|user"
)
_OF_PHONES = r"camera|screenshots|downloads?|facebook|instagram|telegram|whatsapp(?: images)?"
_DOMAIN = r"(?:train|test|val|valid)[-_. ]?[ab]"  # of unpaired translation: trainA, trainB, testA, testB
_NUMBERED = re.compile(rf"(?:{_WORDS})[-_. #]*(?:\d+|[-_. ][a-z])|(?:19|20)\d\d|{_OF_PHONES}|{_DOMAIN}", re.IGNORECASE)

# Where people put what they have not sorted, or do not want.
_LEFT_OVER = re.compile(
    r"misc(?:ellaneous)?|others?|unknown|un(?:sorted|classified|categori[sz]ed)|unlabell?ed[-_ ]?images?"
    r"|to[-_ ]?(?:do|sort)|new|te?mp|reject(?:ed|s)|discarded",
    re.IGNORECASE,
)


def caution(classes: Sequence[str], data: str) -> str:
    """What to say when names of class folders look like those of sessions, dates or devices; "" when they do not.

    A class may be called "2024", so this is not an error.  data: what was given as the folder.
    """
    sure = [name for name in classes if _SURE.fullmatch(name)]
    doubtful = sure or [name for name in classes if _NUMBERED.fullmatch(name)]
    if not doubtful or (not sure and len(doubtful) < len(classes)):
        return ""
    shown = ", ".join(printable(name) for name in doubtful[:4]) + (", ..." if len(doubtful) > 4 else "")
    return (
        f"caution: {len(doubtful)} of {len(classes)} classes are named like days, sessions or cameras ({shown}); if "
        f"they are not classes, move them into {data}/unlabeled and label some of the images: softedge review "
        f"{quoted(data)}"
    )


def left_over(folders: Iterable[str], data: str) -> str:
    """What to say when class folders have names of what is not sorted yet; "" where none has.

    A class may be called "other", so this is not an error either.
    """
    named = sorted(name for name in folders if _LEFT_OVER.fullmatch(name))
    if not named:
        return ""
    shown = ", ".join(f"'{printable(name)}'" for name in named[:4]) + (", ..." if len(named) > 4 else "")
    one = len(named) == 1
    taken = f"folder {shown} is taken as a class" if one else f"folders {shown} are taken as classes"
    it, is_ = ("it", "it is") if one else ("them", "they are")
    return f"caution: the {taken}; leave {it} where {is_} if that is meant, else move {it} into {data}/unlabeled"
