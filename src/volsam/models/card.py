"""What is known of a model besides its weights: its description, and that as a card to read.

The description is the content of ``model.json``, which `model.Source.described` reads. The card is a
function of the description alone, so the two cannot disagree.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

WEIGHTS = "weights.safetensors"
_FIGURES = "The higher the better, unless the name says otherwise."


def describe(
    name: str,
    *,
    normalisation: str = "percentile",
    diameter: float | None = None,
    pixel_size: float | None = None,
    ais: Mapping[str, float] | None = None,
    encoder: Mapping[str, Any] | None = None,
    decoder: Mapping[str, Any] | None = None,
    prompts: Mapping[str, Any] | None = None,
    parent: str | None = None,
    parent_hash: str | None = None,
    ancestors: Sequence[Mapping[str, Any]] = (),
    data: Sequence[str | Mapping[str, Any]] = (),
    licence: str | None = None,
    authors: Sequence[str] = (),
    metrics: Mapping[str, Any] | None = None,
    recipe: Mapping[str, Any] | None = None,
    tuning: Mapping[str, Any] | None = None,
    training: str | None = None,
    use: str | None = None,
    limits: str | None = None,
    **more: Any,
) -> dict[str, Any]:
    """Put together the description of a model; values are as JSON gives them back.

    Parameters
    ----------
    name : str
        Name of the model.
    normalisation, diameter, pixel_size, ais, encoder, decoder, prompts
        As of `model.Source`.
    parent, parent_hash : str, optional
        The model it was trained from, as a user writes it, and the hash of its weights.
    ancestors : sequence of mapping
        The parents of the parent, oldest first; see `ancestry`.
    data : sequence of str or mapping
        What it was trained on; a mapping has ``name`` and ``licence``, and may have more.
    licence : str, optional
        SPDX identifier of the model's own licence.
    authors : sequence of str
        Who made it.
    metrics : mapping, optional
        Scores ``before`` and ``after`` the training, each of name and number, and what they were
        taken ``on``.
    recipe : mapping, optional
        Settings of the training.
    tuning : mapping, optional
        How `ais` was found.
    training : str, optional
        Digest of everything the weights are a function of.
    use, limits : str, optional
        What it is for, and what not.
    **more
        Further keys, kept as they are.
    """
    known = {key: value for key, value in locals().items() if key not in ("more", "name")}
    text = json.dumps({"name": name, "weights": WEIGHTS, **known, "ais": ais or {}, **more})
    description: dict[str, Any] = json.loads(text)
    return description


def ancestry(parent: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The `ancestors` of a model trained from the one that `parent` describes."""
    older = [dict(ancestor) for ancestor in parent.get("ancestors", ())]
    if parent.get("parent"):
        older.append({"model": parent["parent"], "hash": parent.get("parent_hash")})
    return older


def card_text(description: Mapping[str, Any]) -> str:
    """Write a description out as Markdown.

    Parameters
    ----------
    description : mapping
        From `describe`, and perhaps ``version``, ``created``, ``hashes`` as the store adds them.
    """
    version = description.get("version")
    title = description["name"] + (f", version {version}" if version else "")
    parts = [f"# {title}"]
    parts += [_paragraph(label, description.get(key)) for label, key in _PROSE]
    parts += [_facts(description), _data(description), _validation(description)]
    parts += [_pairs("Parameters of automatic instance segmentation", description.get("ais"))]
    parts += [_pairs("How they were found", description.get("tuning"))]
    parts += [_pairs("Recipe", description.get("recipe")), _origin(description)]
    return "\n\n".join(part for part in parts if part) + "\n"


_PROSE = (("For", "use"), ("Limits", "limits"))


def _paragraph(label: str, text: str | None) -> str:
    return f"**{label}:** {text}" if text else ""


def _facts(description: Mapping[str, Any]) -> str:
    rows = {
        "licence": description.get("licence") or "not stated",
        "authors": ", ".join(description.get("authors") or ()) or None,
        "made": description.get("created"),
        "intensities": description.get("normalisation"),
        "median object diameter": _unit(description.get("diameter"), "pixels"),
        "pixel size": _unit(description.get("pixel_size"), "µm"),
    }
    return _table(("", ""), [(key, value) for key, value in rows.items() if value is not None])


def _data(description: Mapping[str, Any]) -> str:
    entries = description.get("data") or ()
    lines = []
    for entry in entries:
        if isinstance(entry, str):
            lines.append(f"- {entry}")
            continue
        rest = {k: v for k, v in entry.items() if k not in ("name", "licence")}
        tail = "".join(f", {key}: {_plain(value)}" for key, value in rest.items())
        licence = entry.get("licence") or "not stated"
        lines.append(f"- {entry.get('name', 'unnamed')} (licence: {licence}{tail})")
    return "## Data\n\n" + ("\n".join(lines) or "Not stated.")


def _validation(description: Mapping[str, Any]) -> str:
    """Scores, under the heading that BioImage.IO asks a model's documentation for."""
    heading = "## Validation"
    metrics = description.get("metrics")
    if not metrics:
        plain = description.get("validation")
        if not plain:
            return f"{heading}\n\nNo scores were recorded."
        return f"{heading}\n\n{_table(('metric', 'score'), _cells(plain))}"
    before, after = metrics.get("before") or {}, metrics.get("after") or {}
    names = [*after, *(name for name in before if name not in after)]
    rows = [(name, _plain(before.get(name)), _plain(after.get(name))) for name in names]
    where = metrics.get("on")
    intro = f"On {where}. {_FIGURES}" if where else _FIGURES
    return f"{heading}\n\n{intro}\n\n{_table(('metric', 'parent', 'this model'), rows)}"


def _origin(description: Mapping[str, Any]) -> str:
    lines = [
        f"{index}. {ancestor.get('model')} (`{ancestor.get('hash')}`)"
        for index, ancestor in enumerate(ancestry(description), start=1)
    ]
    hashes = description.get("hashes") or {}
    lines += [
        f"- {kind} of the weights: `{hashes[kind]}`"
        for kind in ("xxh128", "sha256")
        if kind in hashes
    ]
    if description.get("training"):
        lines.append(f"- digest of the training: `{description['training']}`")
    return "## Origin\n\n" + "\n".join(lines) if lines else ""


def _pairs(heading: str, values: Mapping[str, Any] | None) -> str:
    return f"## {heading}\n\n{_table(('key', 'value'), _cells(values))}" if values else ""


def _cells(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(key, _plain(value)) for key, value in values.items()]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    def line(cells: Sequence[str]) -> str:
        return f"| {' | '.join(str(cell).replace('|', '/') for cell in cells)} |"

    return "\n".join([line(head), "|" + "---|" * len(head), *map(line, rows)])


def _unit(value: float | None, unit: str) -> str | None:
    return None if value is None else f"{value:g} {unit}"


def _plain(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.4g}"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return " ".join(text.split())
