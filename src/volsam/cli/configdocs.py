"""`config/README.md` and the JSON schema, written from the typed model so that they cannot drift."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from volsam.blocks.cluster.settings import Cluster
from volsam.config import Config
from volsam.section import Section

INTRODUCTION = """\
# Configuration

*Written by `volsam config-docs` from `src/volsam/config.py`, `src/volsam/train/settings.py` and
`src/volsam/evaluate/settings.py`; edit these files instead.*

What to run is said in one YAML file; where it runs (cores, cluster) is said by the profile. The least
that is needed:

```yaml
results: results
task: segment
model: embedded
samples:
  embryo:
    image: /data/embryo.tif
    axes: zyx
    voxel_size: {z: 2.0, y: 0.5, x: 0.5}
```

```
snakemake --workflow-profile profiles/local --configfile my.yaml
```

Everything else has a default. Paths are taken from the folder in which the command is typed.
`volsam plan --config my.yaml` shows what a run would cost, `volsam preview --config my.yaml` what it
would look like.

Inputs are checked: what cannot be read, a damaged chunk among it, ends the run with one sentence and
exit code 1. So does a missing chunk of a Zarr input that is taken for lost: the chunks beside it, along
two or more axes, are all there, and most of their voxels up to it hold data (a hundred missing chunks
are looked at so). Other missing chunks do not: the format leaves out empty ones, so they are read as the
fill value, a warning says how many there are, and the exit code is 0. Heed that warning where a copy
may be incomplete, or lacks a whole plane.
"""


SITE = """\
# Site file

*Written by `volsam config-docs` from `src/volsam/blocks/cluster/settings.py`; edit that file instead.*

Where blocks run is said in one YAML file beside a profile, e.g. `profiles/slurm/cluster.yaml`.
[hpc.md](hpc.md) takes you through one.
"""


def documents() -> dict[Path, str]:
    """All generated files, by path from the repository's root."""
    schema = json.dumps(Config.model_json_schema(), indent=2) + "\n"
    return {
        Path("config/README.md"): INTRODUCTION + _tables(Config),
        Path("docs/site-file.md"): SITE + _tables(Cluster),
        Path("workflow/schemas/config.schema.json"): schema,
    }


def _tables(root: type[BaseModel]) -> str:
    text = ""
    shown: dict[type[BaseModel], str] = {}
    for title, prefix, model in _sections(root, ""):
        if model in shown:
            text += f"\n## `{title}`\n\nAs [`{shown[model]}`](#{shown[model].replace('.', '')}).\n"
            continue
        shown[model] = title
        if title:
            text += f"\n## `{title}`\n\n{_one_line(model.__doc__)}\n"
        else:
            text += "\n## Top level\n"
        text += "\n| key | type | default | meaning |\n|---|---|---|---|\n"
        for name, field in model.model_fields.items():
            nested = _nested(field)
            meaning = _one_line(field.description or (nested.__doc__ if nested else ""))
            kind = "section" if nested else _type(field)
            text += f"| `{prefix}{name}` | {kind} | {_default(field, nested)} | {meaning} |\n"
    return text


def _sections(model: type[BaseModel], prefix: str) -> list[tuple[str, str, type[BaseModel]]]:
    found = [(prefix.rstrip("."), prefix, model)]
    for name, field in model.model_fields.items():
        nested = _nested(field)
        if nested:
            path = f"{prefix}{name}." + ("<name>." if name in ("samples", "pools") else "")
            found += _sections(nested, path)
    return found


def _nested(field: FieldInfo) -> type[BaseModel] | None:
    pending = [field.annotation]
    while pending:
        kind = pending.pop()
        if isinstance(kind, type) and issubclass(kind, Section):
            return kind
        pending += get_args(kind)
    return None


def _type(field: FieldInfo) -> str:
    schema = Config.model_json_schema()
    names = {"integer": "whole number", "array": "list", "object": "mapping", "string": "text"}

    def spell(node: dict[str, Any]) -> str:
        if "$ref" in node:
            return spell(schema["$defs"][node["$ref"].rsplit("/", 1)[1]])
        if "enum" in node or "const" in node:
            values = node.get("enum", [node.get("const")])
            return ", ".join(f"`{value}`" for value in values)
        if "anyOf" in node:
            kinds = [spell(n) for n in node["anyOf"] if n.get("type") != "null"]
            return " or ".join(dict.fromkeys(kinds))
        limits = [
            f"{sign} {node[key]:g}"
            for key, sign in (
                ("minimum", "≥"),
                ("exclusiveMinimum", ">"),
                ("maximum", "≤"),
            )
            if key in node
        ]
        kind = str(node.get("type", "any"))
        return " ".join([names.get(kind, kind), *limits])

    from pydantic import TypeAdapter

    annotated = field.rebuild_annotation()
    node = TypeAdapter(annotated).json_schema()
    schema = {"$defs": {**schema.get("$defs", {}), **node.get("$defs", {})}}
    return spell(node)


def _default(field: FieldInfo, nested: type[BaseModel] | None) -> str:
    if field.is_required():
        return "needed"
    if nested or field.default_factory is not None:
        return ""
    return "" if field.default is None else f"`{json.dumps(field.default)}`"


def _one_line(text: str | None) -> str:
    return " ".join((text or "").split()).replace("|", "\\|")
