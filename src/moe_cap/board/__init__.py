"""The table of all results: canonical values, how they look on screen, and files of them."""

from moe_cap.board.columns import COLUMNS, Column
from moe_cap.board.export import FORMATS, export
from moe_cap.board.frame import frame, missing_reasons, row_id
from moe_cap.board.payload import payload
from moe_cap.board.records import Records, parse_records
from moe_cap.board.snapshot import refresh_table

__all__ = [
    "COLUMNS",
    "FORMATS",
    "Column",
    "Records",
    "export",
    "frame",
    "missing_reasons",
    "parse_records",
    "payload",
    "refresh_table",
    "row_id",
]
