"""Records on disk: files appear whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fastdiff_jax.files import write_whole


class Store:
    """Records in a JSON-lines file that is replaced whole after every batch."""

    def __init__(self, path: Path):
        self.path, self.rows = path, {}
        if path.exists():
            for line in path.read_text().splitlines():
                row = json.loads(line)
                self.rows[row["key"]] = row

    def put(self, rows: list[dict[str, Any]]) -> None:
        """Add records and write the file."""
        self.rows |= {row["key"]: row for row in rows}
        text = "".join(json.dumps(row) + "\n" for row in self.rows.values())
        write_whole(self.path, lambda f: f.write(text.encode()))
