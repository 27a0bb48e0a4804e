"""Several fields of one record reversed together: names are consistent, and either all fields are reversed or none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from counterfactuals.text.reverse import Reverser


def reverse_record(record: Mapping[str, Any], fields: Sequence[str], reverser: Reverser) -> dict[str, Any]:
    """The record with these fields reversed; the others stay. ValueError, one line, for a field that is no text.

    With a data set of `datasets`: `data.map(lambda row: reverse_record(row, ["prompt", "response"], reverser))`.
    """
    if not isinstance(record, Mapping):
        raise ValueError(f"no object with fields, but {type(record).__name__}")
    for field in fields:
        if not isinstance(record.get(field), str):
            found = ", ".join(map(str, record)) or "nothing"
            if field in record:
                raise ValueError(f"field {field!r} holds {type(record[field]).__name__}, not text")
            raise ValueError(f"no field {field!r}; found: {found}")
    return {**record, **dict(zip(fields, reverser.fields([record[field] for field in fields])))}
