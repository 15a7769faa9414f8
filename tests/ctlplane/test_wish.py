"""What a change is made of."""

from __future__ import annotations

from glacic.ctlplane.revisions import Origin
from glacic.ctlplane.wish import Wish


def test_by_default_a_change_stays_and_cuts_nobody_off() -> None:
    wish = Wish(origin=Origin(who="user root", what="apply"))
    assert (wish.trial_s, wish.force, wish.keep_connections) == (None, False, False)
