"""Pages of the site that are made from something else: README, CONTRIBUTING, CHANGELOG, and every setting of a run."""

from __future__ import annotations

import re
import sys
from pathlib import Path

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
    text = re.sub(r"\[([\w./]+)\]\(\1\)", r"`\1`", text)  # files that are no pages
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
    whole = {key: item for key, item in schema.Config.model_fields.items() if key not in schema.SECTIONS}
    parts += ["## Whole command\n", *_table(whole)]
    for name, section in schema.SECTIONS.items():
        parts += [f"\n## {name}\n", *_table(section.model_fields)]
    return "\n".join(parts) + "\n"


def _table(settings) -> list[str]:
    from configs import fields

    lines = ["| setting | type | default | meaning |", "|---|---|---|---|"]
    for name, item in settings.items():
        kind = fields.kind_of(item.annotation) + fields.bounds_of(item)
        lines.append(f"| `{name}` | {_plain(kind)} | `{fields.default_of(item)}` | {_plain(item.description)} |")
    return lines


def _plain(kind: str) -> str:
    return kind.replace("|", "\\|").replace("<", "&lt;")
