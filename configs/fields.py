"""What sections of settings are made of: the field, its checks, and the class that refuses what it does not know."""

from __future__ import annotations

import re
import types
import typing
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic.fields import FieldInfo


class ConfigError(ValueError):
    """One or more settings are wrong; the message has a line for each."""


def setting(default: Any, meaning: str, **bounds: Any) -> Any:
    """A field. bounds: ge, gt, le, lt for numbers, min_length for text."""
    return Field(default, description=meaning, **bounds)


def _number(value: Any) -> Any:
    """PyYAML reads 3e-4, without a point, as text."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            pass
    return value


def _policy(value: Any) -> Any:
    """A name of reverse.POLICIES or a number from 0 to 1."""
    from counterfactuals.text.reverse import threshold

    value = _number(value)
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(f"policy: no {value!r}; there is a name, such as skip, or a doubt from 0 to 1")
    threshold(value)
    return value


def as_augment(value: Any) -> Any:
    """Of old, whether both texts are trained on."""
    return {True: "both", False: "none"}[value] if isinstance(value, bool) else value


def as_no(value: Any) -> Any:
    return "no" if value is False else value  # YAML reads a bare no as false


def as_mapping(value: Any) -> Any:
    return {} if value is None else value


def check_layers(value: Any) -> Any:
    if isinstance(value, str) and re.fullmatch(r"even|hf|all|(even|influence):[1-9]\d*", value):
        return value
    if isinstance(value, list) and all(type(item) is int for item in value):
        return value
    raise ValueError(f"must be even, hf, all, even:N, influence:N (N layers) or a list of layers, not {value!r}")


def check_betas(value: list[float]) -> list[float]:
    if len(value) == 2 and all(0 <= beta < 1 for beta in value):
        return value
    raise ValueError(f"must be two numbers in [0, 1), not {value}")


def check_distinct(value: list[int]) -> list[int]:
    if len(set(value)) == len(value):
        return value
    raise ValueError(f"a seed is named twice, in {value}")


Number = Annotated[float, BeforeValidator(_number)]
Policy = Annotated[str | float, BeforeValidator(_policy)]
Options = Annotated[dict[str, Any], BeforeValidator(as_mapping)]
Tasks = Annotated[dict[str, Options], BeforeValidator(as_mapping)]
Op = Literal["none", "max", "mean", "exp_mean", "swap", "mix"]


class Section(BaseModel):
    """Settings that belong together. Unknown keys are refused, and nothing is converted to another type."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _absent(cls, value: Any) -> Any:
        return {} if value is None else value  # `loss:` with nothing after it


def kind_of(hint: Any) -> str:
    """A type in words."""
    words = {int: "a whole number", float: "a number", str: "text", bool: "true or false", types.NoneType: "null"}
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return kind_of(parts[0])
    if origin is Literal:
        return f"one of {', '.join(map(str, parts))}"
    if origin in (types.UnionType, typing.Union):
        return " or ".join(kind_of(part) for part in parts)
    if origin is list:
        return f"a list of {kind_of(parts[0]).removeprefix('a ').removesuffix('s')}s"
    return "a mapping" if origin is dict else words[hint]


def bounds_of(item: FieldInfo) -> str:
    """The bounds of a number in words, e.g. ", at least 1"; "" without any."""
    words = {"gt": "above", "ge": "at least", "lt": "below", "le": "at most"}
    found = [(word, getattr(bound, key, None)) for bound in item.metadata for key, word in words.items()]
    return "".join(f", {word} {value:,}" for word, value in found if value is not None)


def default_of(item: FieldInfo) -> str:
    """A setting's default, as YAML."""
    return yaml.safe_dump(item.default, default_flow_style=True).split("\n")[0]
