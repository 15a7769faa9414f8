"""The engines by name: each is made where it is asked for, and not before."""

from __future__ import annotations

import subprocess
import sys

from glacic.config.model import LimitEngine
from glacic.shaping.makers import MAKERS


def test_every_engine_has_a_name_that_a_configuration_can_say() -> None:
    assert set(MAKERS) == {str(engine) for engine in LimitEngine} - {"auto"}


def test_to_know_the_names_loads_no_engine() -> None:
    code = (
        "import sys\nfrom glacic.shaping.makers import MAKERS\n"
        "loaded = [name for name in sys.modules if name.startswith(('glacic.shaping.', 'nftables', 'pyroute2'))]\n"
        "assert not {'nftables', 'pyroute2'} & set(loaded), loaded\n"
        "ours = {'cgroups', 'engine', 'makers', 'ondemand'}\n"
        "assert set(loaded) == {f'glacic.shaping.{name}' for name in ours}, loaded\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
