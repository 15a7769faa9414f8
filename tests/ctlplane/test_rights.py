"""Who may do what: root and the service's own user everything, two groups less, everybody else nothing."""

from __future__ import annotations

import os
import pwd
import socket
from unittest import mock

import pytest

from glacic.ctlplane import rights
from glacic.ctlplane.rights import CHANGE, READ, Doorkeeper, Peer, Right
from glacic.errors import NotAllowed

GROUPS = {"glacic": 100, "glacic-admin": 200}


@pytest.mark.parametrize(
    ("peer", "may"),
    [
        (Peer(1, 0, 0, ()), CHANGE),
        (Peer(1, 1000, 1000, ()), Right.NOTHING),
        (Peer(1, 1000, 100, ()), READ),
        (Peer(1, 1000, 1000, (7, 100)), READ),
        (Peer(1, 1000, 1000, (100, 200)), CHANGE),
        (Peer(1, 1000, 200, ()), CHANGE),
        (Peer(1, 65_534, 65_534, (65_534,)), Right.NOTHING),  # a user that this user namespace does not know
    ],
)
def test_rights_come_from_groups(peer: Peer, may: Right) -> None:
    assert Doorkeeper(GROUPS.get).right_of(peer) == may


def test_without_the_groups_only_root_and_the_services_own_user_remain() -> None:
    door = Doorkeeper({}.get)
    assert door.right_of(Peer(1, 1000, 1000, (100, 200))) == Right.NOTHING
    with mock.patch("os.geteuid", return_value=1000):
        assert door.right_of(Peer(1, 1000, 1000, ())) == CHANGE
        assert door.right_of(Peer(1, 1001, 1000, ())) == Right.NOTHING
    assert door.socket_group() == os.getegid()
    assert Doorkeeper(GROUPS.get).socket_group() == 100


def test_a_group_that_is_made_or_emptied_counts_from_the_next_request_on() -> None:
    groups: dict[str, int] = {}
    door = Doorkeeper(groups.get)
    peer = Peer(1, 1000, 1000, (100,))
    assert door.right_of(peer) == Right.NOTHING
    groups["glacic"] = 100
    assert door.right_of(peer) == READ


def test_where_the_kernel_cannot_say_the_groups_the_database_does() -> None:
    nobody = pwd.getpwnam("nobody")
    door = Doorkeeper({"glacic": nobody.pw_gid}.get)
    assert door.right_of(Peer(1, nobody.pw_uid, 4_000_000, None)) == Right.NOTHING
    with mock.patch("os.getgrouplist", return_value=[nobody.pw_gid]):
        assert door.right_of(Peer(1, nobody.pw_uid, 4_000_000, None)) == READ
    assert rights.groups_of(4_000_000, 4_000_000) == [4_000_000]


def test_the_kernel_says_who_connected() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        peer = rights.peer_of(ours)
    assert (peer.pid, peer.uid, peer.gid) == (os.getpid(), os.getuid(), os.getgid())
    assert set(peer.groups or ()) == set(os.getgroups())


def test_a_kernel_that_does_not_know_the_groups_is_no_error() -> None:
    connection = mock.Mock()
    connection.getsockopt.side_effect = [bytes(12), OSError(92, "Protocol not available")]
    assert rights.peer_of(connection).groups is None


def test_a_refusal_says_who_what_and_which_group() -> None:
    error = rights.refusal_for(Peer(1, 4_000_000, 1, ()), READ, CHANGE, "flows.set\x1b[2J")
    assert isinstance(error, NotAllowed)
    assert error.exit_code == 1
    assert str(error) == (
        "you are user 4000000 (uid 4000000) and may read here; flows.set\\x1b[2J is for root and group glacic-admin: "
        "`usermod -aG glacic,glacic-admin 4000000` as root, then log in again"
    )
    assert error.details["group"] == "glacic-admin"


def test_a_name_does_no_harm() -> None:
    hostile = pwd.struct_passwd(("\x1b[2J" + "x" * 100_000, "", 7, 7, "", "", ""))
    with mock.patch("pwd.getpwuid", return_value=hostile):
        name = rights.name_of(7)
    assert name.isprintable()
    assert len(name) == rights.MAX_NAME
