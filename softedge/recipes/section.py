"""What all parts of a recipe are made of: frozen sections that refuse unknown keys, and the types of their values."""

from __future__ import annotations

from typing import Annotated, Any, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

LEAST_PIXELS, MOST_PIXELS = 32, 4096  # a network of stride 32 has one position left of the least


def _smaller_first(pair: tuple[float, float]) -> tuple[float, float]:
    if pair[0] > pair[1]:
        raise PydanticCustomError("smaller_first", "input should have the smaller number first")
    return pair


def _none_or_enough(pixels: int) -> int:
    if pixels != 0 and not LEAST_PIXELS <= pixels <= MOST_PIXELS:
        raise PydanticCustomError("pixels", f"input should be 0, or from {LEAST_PIXELS} to {MOST_PIXELS}")
    return pixels


Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Fractions = Annotated[tuple[Annotated[float, Field(gt=0.0, le=1.0)], ...], Field(min_length=1)]
Positive = Annotated[int, Field(gt=0)]
PositiveNumbers = Annotated[tuple[Annotated[float, Field(gt=0.0)], ...], Field(min_length=1)]
Pixels = Annotated[int, AfterValidator(_none_or_enough)]  # 0: those of something else
_NotNegative = Annotated[float, Field(ge=0.0)]
Range = Annotated[tuple[_NotNegative, _NotNegative], AfterValidator(_smaller_first)]
Widths = Annotated[tuple[Positive, ...], Field(min_length=1)]


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _true_is_no_number(cls, value: Any, info: ValidationInfo) -> Any:
        """pydantic takes true for 1: ``epochs = true`` is a mistake, not one epoch."""
        kinds = _kinds(cls.model_fields[str(info.field_name)].annotation)
        values = value if isinstance(value, list | tuple) else [value]
        if bool not in kinds and (int in kinds or float in kinds) and any(isinstance(v, bool) for v in values):
            raise PydanticCustomError("number_expected", "input should be a number")
        return value


def _kinds(annotation: Any) -> list[Any]:
    """The types inside of a type, through unions, tuples and annotations."""
    inside = get_args(annotation)
    return [kind for part in inside for kind in _kinds(part)] if inside else [annotation]
