"""Options that are for one choice of another option only, and the choice of a generation back end."""

from __future__ import annotations

import dataclasses
from typing import Any

from utils.errors import UserError


def refuse_other_choices(group: Any) -> None:
    """Refuse options that were changed from their default and are for another choice than the one made."""
    for field in dataclasses.fields(group):
        value = getattr(group, field.name)
        for name, choices in field.metadata["help"].only.items():
            chosen = getattr(group, name)
            # a list that is not given is empty: its field has a factory and no default
            if chosen in choices or value in (field.default, []):
                continue
            refusal = f"--{field.name} is for --{name} {', '.join(sorted(filter(None, choices)))}; leave it out"
            if chosen:
                refusal += f" with --{name} {chosen}"
            raise UserError(refusal)


def expect_backend(name: str, *known: str) -> None:
    """Refuse a generation back end that is not among `known`."""
    if name == "hybrid":
        raise UserError(
            "--generation_backend hybrid: DeepSpeed's kernels can read no model family of this transformers version; "
            "use shared (docs/hybrid_engine.md)"
        )
    if name not in known:
        raise UserError(f"--generation_backend {name} is unknown; expected {' or '.join(known)}")
