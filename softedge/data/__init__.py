"""From a data set name or a folder to screened, split images, and from those to augmented views."""

from softedge.data.describing import describe, describe_text
from softedge.data.index import load

__all__ = ["describe", "describe_text", "load"]
