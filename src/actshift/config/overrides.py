"""Values as Hydra's override grammar reads them: the one function through which text gets into an override."""

from __future__ import annotations

import re
from pathlib import Path


def override(key: str, value: str | Path) -> str:
    """``key='value'``, read back by Hydra and OmegaConf as exactly this text.

    In quotation marks a backslash escapes only a quotation mark, so that it is doubled only where one follows, and
    ``${`` would be an interpolation.
    """
    text = re.sub(r"(\\*)\$\{", lambda found: found[1] * 2 + "\\${", str(value))
    text = re.sub(r"(\\*)'", lambda found: found[1] * 2 + "\\'", text)
    text = re.sub(r"(\\+)$", lambda found: found[1] * 2, text)
    return f"{key}='{text}'"


def text_of(given: str) -> str | None:
    """The text of a ``key=value`` override's value as Hydra reads it; None for null."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    value = OverridesParser.create().parse_override(given).value()
    return None if value is None else str(value)
