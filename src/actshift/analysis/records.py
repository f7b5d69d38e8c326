"""What an analysis was made from, as JSON beside its frames."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

from actshift.config.identity import identity_of, ignored_keys
from actshift.observe.provenance import code_provenance
from actshift.schema.building import plain
from actshift.schema.config import Config


def record(config: Config, files: Mapping[str, str]) -> str:
    """What a configuration says of an analysis, the code and versions at work, and SHA-256 of each frame's text."""
    content = {
        "analysis": plain(config.analysis),
        "model": config.model.name,
        "dataset": config.dataset.name,
        "protocol": config.protocol.name,
        "identity": identity_of(config, ignore=ignored_keys()),
        "frames": {name: hashlib.sha256(text.encode()).hexdigest() for name, text in files.items()},
        "code": code_provenance(),
    }
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"
