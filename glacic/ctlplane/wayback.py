"""Before a change of the ruleset: whether it would cut the ssh connection that the command itself came over.

What runs is not the question, since conntrack lets it go on: the person must be able to connect again. So a new
connection from the same address to the same port is simulated against the new configuration, on the interface by which
the kernel would answer the client.

Refuses to decide what happens then: the answer is a sentence, and `refuse_to_cut` raises it.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import NamedTuple

from glacic.ctlplane.nlsocket import refused
from glacic.ctlplane.retrace import Judge, Standing
from glacic.ctlplane.routes import Routes
from glacic.errors import GlacicError, KernelRefused, UsageError
from glacic.firewall.reach import Probe
from glacic.firewall.simulate import Verdict

NAME = "SSH_CONNECTION"
MAX_TEXT = 200  # two addresses with scopes, two ports
_TCP = 6


class SshConnection(NamedTuple):
    """Both ends. Addresses of 4 or 16 bytes; scope: the interface of a link-local client, "" for others."""

    client: bytes
    client_port: int
    server: bytes
    server_port: int
    scope: str = ""


def parse(text: str) -> SshConnection:
    """The four words of SSH_CONNECTION. Raises UsageError for anything else.

    An IPv4 address that is mapped into IPv6 (RFC 4291 2.5.5.2), as a server on `::` sees it, is one of IPv4.
    """
    try:
        return _ends(text)
    except ValueError:
        shown = ascii(text[:MAX_TEXT])
        raise UsageError(f"{NAME} is not `address port address port`: {shown}; unset it, or use --force") from None


def _ends(text: str) -> SshConnection:
    if len(text) > MAX_TEXT or not text.isascii():
        raise ValueError(text[:MAX_TEXT])
    client_text, client_port, server_text, server_port = text.split(" ")  # ValueError for more or fewer
    client, server = _address(client_text), _address(server_text)
    if client.version != server.version:
        raise ValueError(text)
    scope = (client.scope_id or "") if isinstance(client, IPv6Address) else ""
    return SshConnection(client.packed, _port(client_port), server.packed, _port(server_port), scope)


def would_cut(judge: Judge, ssh_connection: str) -> str | None:
    """Why the client could not connect again under the judge's configuration; None where it could.

    Where only what is not known here could change a refusal, it counts as one. Raises UsageError, KernelRefused,
    StoreError.
    """
    via = parse(ssh_connection)
    with _routes() as routes:
        way, goal = routes.to(via.client, via.server) or routes.to(via.client), routes.to(via.server)
    shown = _shown(via.client)
    if way is not None and way.local:
        return None
    interface = via.scope or (way.interface if way is not None else "")
    if not interface:
        return f"ssh from {shown} to port {via.server_port}: there is no route back to it"
    # An address that is being configured has no local route yet; a host on the client's own link is not behind us.
    here = goal is None or goal.local or bool(via.scope) or goal.interface == interface
    probe = Probe(
        hook="input" if here else "forward",
        iif=interface,
        oif="" if here or goal is None else goal.interface,
        source=via.client,
        destination=via.server,
        protocol=_TCP,
        source_port=via.client_port,
        port=via.server_port,
        forwarded_port=not here,
    )
    standing, outcome = judge.of(probe)
    if standing in (Standing.ACCEPTED, Standing.LEARNED) or outcome.verdict is Verdict.ACCEPT:
        return None
    return f"ssh from {shown} on {interface} to port {via.server_port}: {outcome.why}"


def refuse_to_cut(judge: Judge, ssh_connection: str) -> None:
    """Raise GlacicError where the change would cut the connection it came over."""
    why = would_cut(judge, ssh_connection)
    if why is not None:
        raise GlacicError(f"this change would cut the connection it came over ({why}): use --force if that is intended")


def _routes() -> Routes:
    try:
        return Routes()
    except OSError as error:
        raise KernelRefused(f"cannot ask for the route back: {refused(error)}") from None


def _address(text: str) -> IPv4Address | IPv6Address:
    address = ip_address(text)
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    if isinstance(address, IPv6Address) and address.scope_id and not _is_interface(address.scope_id):
        raise ValueError(text)
    return mapped or address


def _is_interface(text: str) -> bool:
    """Whether this may be an interface's name: up to 15 printable characters without `/` (IFNAMSIZ, linux/if.h)."""
    return 0 < len(text) < 16 and text.isprintable() and not set("/ *") & set(text)


def _port(text: str) -> int:
    number = int(text) if text.isdecimal() and len(text) <= 5 else 0
    if not 0 < number < 1 << 16:
        raise ValueError(text)
    return number


def _shown(address: bytes) -> str:
    return str(ip_address(address))
