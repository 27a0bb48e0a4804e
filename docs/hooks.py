"""Pages of the site that are made from something else: README, CONTRIBUTING, CHANGELOG, and every setting of a run."""

from __future__ import annotations

import dataclasses
import re
import sys
import typing
from pathlib import Path

import yaml
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "security.md",
    "examples/README.md": "examples.md",
}


def on_files(files: Files, config) -> Files:
    for source, page in PAGES.items():
        if (ROOT / source).exists():
            files.append(File.generated(config, page, content=_inside((ROOT / source).read_text(encoding="utf-8"))))
    files.append(File.generated(config, "configuration.md", content=configuration()))
    return files


def on_page_content(html: str, **_) -> str:
    """In tables an interval stands below its figure, in one piece: seven of them fit beside each other."""
    return re.sub(r"(<td[^>]*>[^<]+) (\[[^\]<]+\])(?=</td>)", r"\1 <small>\2</small>", html)


def _inside(text: str) -> str:
    """Links of a page at the top of the repository, as seen from docs/."""
    text = text.replace("](docs/", "](")
    for source, page in PAGES.items():
        text = text.replace(f"]({source})", f"]({page})")
    text = re.sub(r"\[([\w.]+)\]\(\1\)", r"`\1`", text)  # files that are no pages
    return text


def configuration() -> str:
    """Every setting with its type, default and meaning, by section."""
    from configs import schema

    parts = [
        "# Settings\n",
        "A run is one YAML file; `key.sub=value` on the command line wins over it. An unknown key, a value of another "
        "type and an impossible combination are refused together, before anything is loaded. One word in place of a "
        "section is its first setting: `teacher: gpt2`, `tracking: wandb`. Made from `configs/schema.py`.\n",
    ]
    hints = typing.get_type_hints(schema.Config)
    top = [item for item in dataclasses.fields(schema.Config) if not dataclasses.is_dataclass(hints[item.name])]
    parts += ["## Whole command\n", *_table(top, hints)]
    for item in dataclasses.fields(schema.Config):
        section = hints[item.name]
        if dataclasses.is_dataclass(section):
            name = item.name
            parts += [f"\n## {name}\n", *_table(dataclasses.fields(section), typing.get_type_hints(section))]
    return "\n".join(parts) + "\n"


def _table(fields, hints) -> list[str]:
    from configs import schema

    lines = ["| setting | type | default | meaning |", "|---|---|---|---|"]
    for item in fields:
        default = item.default if item.default_factory is dataclasses.MISSING else item.default_factory()
        shown = yaml.safe_dump(default, default_flow_style=True).split("\n")[0]
        kind = schema._say(hints[item.name]) if typing.get_origin(hints[item.name]) is not dict else "settings"
        meaning = item.metadata["meaning"].replace("|", "\\|")
        lines.append(f"| `{item.name}` | {_plain(kind)} | `{shown}` | {meaning} |")
    return lines


def _plain(kind: str) -> str:
    return kind.replace("|", "\\|").replace("<", "&lt;")
