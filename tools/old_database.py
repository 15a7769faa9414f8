"""Makes a flow database of an earlier version, for tests/learning/databases: `tools/old_database.py VERSION FILE`.

By the migrations up to that version and nothing else, with a few rows in every table. Made once, when a version is
released, and never again: the file is what that version really left behind.
"""

# ruff: noqa: S608 -- rows of our own
from __future__ import annotations

import sqlite3
import sys
from contextlib import closing

from glacic.learning.schema import APPLICATION_ID, MIGRATIONS

_KEY = "'lan_wan', x'020000000001', 6"
ROWS = (
    f"INSERT INTO flow VALUES (1, {_KEY}, 443, x'', 2, 5, 9, 7, 3, 'tofu')",
    f"INSERT INTO flow VALUES (2, {_KEY}, 22, x'', 3, 6, 6, 1, 0, 'user')",
    f"INSERT INTO flow VALUES (4, {_KEY}, 80, x'c0000207', 1, 7, 8, 2, 0, 'traffic')",
    f"INSERT INTO flow VALUES (5, {_KEY}, 23, x'', 4, 7, 8, 2, 0, 'user')",
    f"INSERT INTO \"transition\" VALUES (1, {_KEY}, 443, x'', NULL, 2, 5, 'tofu', 'learned on first use')",
    f"INSERT INTO \"transition\" VALUES (2, {_KEY}, 22, x'', NULL, 1, 5, 'traffic', 'new flow, pending')",
    f"INSERT INTO \"transition\" VALUES (3, {_KEY}, 22, x'', 1, 3, 6, 'user root', 'decided by a person')",
    "INSERT INTO flow_address VALUES (1, x'0a000001', 9)",
    "INSERT INTO learning VALUES ('', 1, 5, NULL, 'file')",
    "INSERT INTO setting VALUES ('learning_mode', 'true')",
    "INSERT INTO setting VALUES ('policy_numbers', '{\"lan_wan\": 3}')",
)


def make(version: int, path: str) -> None:
    """A new file of that version."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        for step in MIGRATIONS[:version]:
            for sql in step:
                connection.execute(sql)
        for sql in ROWS:
            connection.execute(sql)
        connection.commit()
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {version}")


if __name__ == "__main__":
    make(int(sys.argv[1]), sys.argv[2])
