"""What Glacic takes for itself in the kernel, and why that one. Nothing else in the tree writes such a number.

Table            `inet glacic`: one table for both families; other tables are never touched. Bandwidth limits have one
                 of their own, `inet glacic_limits`: their life is another one (decision 0011).
Chain priority   filter (0) decides; filter + 10 reads what the hook answered: a packet accepted out of a queue goes on
                 at the next priority of its hook (net/netfilter/nfnetlink_queue.c, nf_reinject). Limits come behind
                 both: what the firewall drops or rejects uses up nobody's rate.
Packet mark      0x00ff0000, the field proven with the real `queue` statement: the low 16 bits are where routing tools
                 and VPNs put theirs. Only more than 63 learning policies take the top byte as well.
Connection mark  0x00800000 let in by a fail mode, 0x00400000 still in the packet window. `offload_mark` is the user's.
                 0xff000000 is the number of the limit that shapes a connection's downloads. The top byte: routing tools
                 save packet marks in the low 16 bits, VPNs and the bits above have the third byte, and 255 limits fit
                 in. No packet brings it to a hook in its own mark, where it would be a policy's number: tc clears it.
Limits           `inet glacic_shape`: the table that tells the shape engine's packets by cgroup.
Queues, groups   `log_group` (and `queues` numbers from there); with an inline rate limit one more, the sink.
"""

from __future__ import annotations

FAMILY = "inet"
TABLE = "glacic"

BEHIND_HOOK = 10  # chain priority, after filter

LIMITS_TABLE = "glacic_limits"
LIMITS_PRIORITY = BEHIND_HOOK + 10  # chain priority

ASKED = 0x0080_0000  # in the packet mark: sent to the queue and not answered yet
REJECT = 0x0040_0000  # in the packet mark: the engine says reject
OFFLOAD = 0x0001_0000  # the whole field, in an answer: the packet window of this connection is over. Without ASKED it
#                       can name no policy, and REJECT is not in it, so it is no other answer
NUMBER_LOW = 0x003F_0000  # in the packet mark: the number of the policy that asks
_NUMBER_HIGH = 0xFF00_0000  # ... and its upper bits, where there are more than 63
LOW_NUMBERS = 63  # that the lower bits can name: never 0, which is a packet window's, also where a reload that makes
#                    the field narrower has the upper bits not read

CT_FAIL_OPEN = 0x0080_0000  # in the connection mark: a fail mode let this connection in
CT_INSPECT = 0x0040_0000  # in the connection mark: accepted, and still sent through the queue (packet_window)
CT_LIMIT_SHIFT = 24
CT_LIMIT = 0xFF << CT_LIMIT_SHIFT  # in the connection mark: which limit shapes its downloads; 0: none

SHAPE_TABLE = "glacic_shape"

MAX_POLICIES = LOW_NUMBERS << 8  # what both halves of the number can name

FAIL_OPEN_COUNTER = "fail_open"  # named counter: packets that a fail mode let through


def field(highest_number: int) -> int:
    """The bits of the packet mark that the hook uses when policies are numbered up to `highest_number`."""
    low = ASKED | REJECT | NUMBER_LOW
    return low | _NUMBER_HIGH if highest_number > LOW_NUMBERS else low


def mark_of(number: int) -> int:
    """The packet mark that asks for policy `number` (1..MAX_POLICIES)."""
    if not 0 < number <= MAX_POLICIES:
        raise ValueError(f"policy number {number} is not in 1..{MAX_POLICIES}")
    high, low = divmod(number - 1, LOW_NUMBERS)
    return ASKED | (low + 1) << 16 | high << 24


def number_in(mark: int, highest_number: int) -> int:
    """The policy number in a packet mark; 0 where nobody asked."""
    if not mark & ASKED:
        return 0
    low = (mark & NUMBER_LOW) >> 16
    return low + LOW_NUMBERS * (mark >> 24) if low and highest_number > LOW_NUMBERS else low


def sink_queue(log_group: int, queues: int) -> int:
    """The queue for what an inline rate limit holds back.

    The worker binds it with room for no packet, so the kernel drops there while the worker lives, and does as the fail
    mode says when nobody listens: the limit never decides in place of a fail mode, and user space sees no packet.
    """
    return log_group + queues
