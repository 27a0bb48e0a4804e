"""Kinds of values of a setting: what YAML reads otherwise than it was meant, and bounds that a field cannot state."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator


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


def _augment(value: Any) -> Any:
    return {True: "both", False: "none"}[value] if isinstance(value, bool) else value


def _no(value: Any) -> Any:
    return "no" if value is False else value  # YAML reads a bare no as false


def _mapping(value: Any) -> Any:
    return {} if value is None else value


def _layers(value: Any) -> Any:
    if value in ("even", "hf", "all") or (isinstance(value, list) and all(type(item) is int for item in value)):
        return value
    raise ValueError(f"must be even, hf, all or a list of layers, not {value!r}")


def _betas(value: list[float]) -> list[float]:
    if len(value) == 2 and all(0 <= beta < 1 for beta in value):
        return value
    raise ValueError(f"must be two numbers in [0, 1), not {value}")


def _distinct(value: list[int]) -> list[int]:
    if len(set(value)) == len(value):
        return value
    raise ValueError(f"a seed is named twice, in {value}")


Number = Annotated[float, BeforeValidator(_number)]
Policy = Annotated[str | float, BeforeValidator(_policy)]
Options = Annotated[dict[str, Any], BeforeValidator(_mapping)]
Names = Annotated[dict[str, str], BeforeValidator(_mapping)]
Tasks = Annotated[dict[str, Options], BeforeValidator(_mapping)]
Op = Literal["none", "max", "mean", "exp_mean", "swap", "mix"]
Augment = Annotated[Literal["none", "one", "both"], BeforeValidator(_augment)]
Precision = Annotated[Literal["no", "bf16", "fp16"] | None, BeforeValidator(_no)]
Layers = Annotated[str | list[int], BeforeValidator(_layers)]
Betas = Annotated[list[Number], AfterValidator(_betas)]
Seeds = Annotated[list[int], AfterValidator(_distinct)]
