"""The brake on logins: who may try a secret now, and who has to wait first.

Wrong tries are counted for an account together with the address that they come from, and for all
ids that are no account's at one address; never for an account alone, or whoever knows its id could
keep it out from anywhere. The first few are free, so that a slip costs nothing; each one after them
doubles the wait.
"""

from collections import OrderedDict
from dataclasses import dataclass, field
from ipaddress import IPv6Address, ip_address

LONGEST = 60.0  # seconds that a wrong try can cost at most
FORGOTTEN = 900.0  # seconds after which wrong tries of before count no more
MOST = 20_000  # of those that are counted; then the one that was quiet for longest is forgotten


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowance:
    """How many wrong tries are free."""

    free: int


KNOWN = Allowance(free=5)  # of one account, from one address
UNKNOWN = Allowance(free=20)  # of ids that are no account's, from one address


@dataclass(frozen=True, slots=True, kw_only=True)
class Tries:
    """Wrong tries so far, and the time of the last one in seconds of any clock."""

    count: int = 0
    last: float = 0.0


def wait(allowance: Allowance, tries: Tries, now: float) -> float:
    """Return for how many seconds no try is looked at; 0: it may be made."""
    over = tries.count - allowance.free
    if over < 0 or now - tries.last >= FORGOTTEN:
        return 0.0
    pause = min(2.0 ** min(over, 30), LONGEST)
    return max(0.0, tries.last + pause - now)


def charged(tries: Tries, now: float) -> Tries:
    """Return the tries with one more."""
    count = 0 if now - tries.last >= FORGOTTEN else tries.count
    return Tries(count=count + 1, last=now)


def place_of(address: str) -> str:
    """Return what an address counts as: of IPv6, the network that one client has for itself."""
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if not isinstance(parsed, IPv6Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return f"{IPv6Address(int(parsed) >> 64 << 64)}/64"


@dataclass(slots=True)
class Brake:
    """The wrong tries of everybody, as one copy of http-api has seen them."""

    _tries: OrderedDict[tuple[str, str], Tries] = field(default_factory=OrderedDict)

    def begin(self, account: str, address: str, now: float) -> float:
        """Begin a try, which counts as a wrong one until `succeed`; return how long to wait first.

        `account` is '' for an id that is no account's. Where there is something to wait for,
        nothing was begun. Charged before and not after, or a thousand tries at once would be free.
        """
        key = (account, place_of(address))
        allowance = KNOWN if account else UNKNOWN
        tries = self._tries.get(key, Tries())
        seconds = wait(allowance, tries, now)
        if seconds > 0:
            return seconds
        self._tries[key] = charged(tries, now)
        self._tries.move_to_end(key)
        if len(self._tries) > MOST:
            self._tries.popitem(last=False)
        return 0.0

    def succeed(self, account: str, address: str) -> None:
        """Forget the wrong tries of an account from an address: its secret was right."""
        self._tries.pop((account, place_of(address)), None)
