"""Road 2, compiled: `road` is the extension module built from the C files here, or None where no compiler was.

It answers plain packets of flows that are in the cache without the interpreter: both readers' loops, in front of the
flow cache. Whatever else comes is put to the Python code, which is the same with and without it and knows every case;
road.c says how the two are kept from telling different things. Refuses to be needed.
"""

from __future__ import annotations

from types import ModuleType

road: ModuleType | None
try:
    from glacic.native import _road
except ImportError:
    road = None
else:
    road = _road
