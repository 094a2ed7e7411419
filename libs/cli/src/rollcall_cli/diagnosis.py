"""From facts about an installation to findings: what is wrong, and what mends it. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from rollcall_cli.moments import counted, length

Document = Mapping[str, Any]
SILENT = timedelta(seconds=30)  # as long as the orchestrator waits for an agent's sign of life
ROUNDS = 3  # intervals after which a feed that is not read any more is a fault
SLACK = timedelta(seconds=60)
SKEW, SKEW_FAULT = 2.0, 10.0  # seconds by which clocks may differ: unwise, and wrong
RENEW = timedelta(days=14)  # before a certificate ends
BACKLOG = 1000  # entries of the log that wait to be published


class State(StrEnum):
    """What a check came to."""

    OK = "ok"
    WARNING = "warning"
    FAULT = "fault"
    UNKNOWN = "unknown"  # it could not be looked at


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """The result of a check."""

    check: str
    state: State
    message: str
    fix: str = ""  # what to do, where something is wrong


class Reached(StrEnum):
    """How far a command came with the server."""

    ANSWERS = "answers"
    AWAY = "away"  # nobody answers
    UNTRUSTED = "untrusted"  # its certificate
    REFUSED = "refused"  # 401
    FORBIDDEN = "forbidden"  # 403
    OLDER = "older"  # it has no such facts


@dataclass(frozen=True, slots=True, kw_only=True)
class Direct:
    """What a look at a server itself gave, past the API."""

    where: str  # without the password
    source: str  # who named it
    error: str | None = None  # None: it answers, and takes the account
    time: datetime | None = None  # by its own clock


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue:
    """A queue of the broker."""

    name: str
    messages: int
    consumers: int
    dead: int  # messages that nobody could handle


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """All that was seen."""

    url: str
    reached: Reached
    message: str = ""  # what went wrong
    todo: str = ""  # what may mend it
    seconds: float = 0.0  # for one answer
    here: datetime  # this machine's clock, in the middle of the question
    there: datetime | None = None  # the server's
    certificate_ends: datetime | None = None
    health: Document | None = None  # GET /rollcall/health
    ready: bool | None = None  # what /readyz says, where the health could not be read
    missing: Sequence[Document] = ()  # what it lacks
    database: Direct | None = None
    broker: Direct | None = None
    queues: Sequence[Queue] = ()


def diagnose(facts: Facts) -> list[Finding]:
    """Return a finding for each check."""
    found = [
        *_server(facts),
        *_clock(facts),
        *_certificate(facts),
        _database(facts),
        _broker(facts),
        *_services(facts),
    ]
    agents = list(_agents(facts))
    feeds = list(_feeds(facts))
    return [*found, *agents, *feeds]


def is_well(findings: Sequence[Finding]) -> bool:
    """Say whether nothing is wrong."""
    return all(finding.state is not State.FAULT for finding in findings)


# --- the server -----------------------------------------------------------------------------------


def _server(facts: Facts) -> Iterator[Finding]:
    if facts.reached in (Reached.AWAY, Reached.UNTRUSTED):
        check = "server" if facts.reached is Reached.AWAY else "tls"
        yield Finding(check=check, state=State.FAULT, message=facts.message, fix=facts.todo)
        return
    took = length(facts.seconds) if facts.seconds >= 1 else f"{facts.seconds * 1000:.0f} ms"
    version = f", version {facts.health['version']}" if facts.health is not None else ""
    yield Finding(check="server", state=State.OK, message=f"{facts.url} answers in {took}{version}")
    match facts.reached:
        case Reached.REFUSED:
            yield Finding(
                check="login",
                state=State.FAULT,
                message=facts.message,
                fix=f"{facts.todo}; the owner gives an account another secret with POST "
                "/rollcall/accounts/ID/secret",
            )
        case Reached.FORBIDDEN:
            yield Finding(
                check="login",
                state=State.WARNING,
                message=facts.message,
                fix="to look at the whole installation an account needs the role reader at '/'",
            )
        case Reached.OLDER:
            yield Finding(
                check="login",
                state=State.WARNING,
                message=f"{facts.url} does not tell its health: {facts.message}",
                fix="is it Rollcall's API, and not older than this command?",
            )
        case _:
            yield Finding(check="login", state=State.OK, message="the server lets you look")


def _clock(facts: Facts) -> Iterator[Finding]:
    if facts.there is not None:
        yield _skew("this machine's clock", facts.here, "the server's", facts.there)
    database = facts.health["database"].get("time") if facts.health is not None else None
    if facts.health is not None and database is not None:
        server = datetime.fromisoformat(facts.health["time"])
        finding = _skew(
            "the database's clock", datetime.fromisoformat(database), "http-api's", server
        )
        if finding.state is not State.OK:
            yield finding


def _skew(one: str, mine: datetime, other: str, theirs: datetime) -> Finding:
    skew = (mine - theirs).total_seconds()
    if abs(skew) <= SKEW:
        return Finding(check="clock", state=State.OK, message=f"{one} and {other} agree")
    way = "ahead of" if skew > 0 else "behind"
    return Finding(
        check="clock",
        state=State.FAULT if abs(skew) > SKEW_FAULT else State.WARNING,
        message=f"{one} is {length(abs(skew))} {way} {other}",
        fix="let both machines follow a time server (`timedatectl set-ntp true`, or chrony): "
        "tokens, windows and timeouts go by the clock",
    )


def _certificate(facts: Facts) -> Iterator[Finding]:
    if facts.certificate_ends is None:
        return
    left = facts.certificate_ends - facts.here
    day = f"{facts.certificate_ends:%Y-%m-%d}"
    if left > RENEW:
        yield Finding(check="tls", state=State.OK, message=f"the certificate is valid until {day}")
    else:
        yield Finding(
            check="tls",
            state=State.WARNING,
            message=f"the certificate ends on {day}",
            fix="renew it: `rollcall up --tls` does so when it starts, elsewhere it is the file of "
            "ROLLCALL_API_TLS_CERTIFICATE",
        )


# --- database and broker --------------------------------------------------------------------------


def _lacks(facts: Facts, code: str) -> str | None:
    """Return what /readyz said of a part that is missing."""
    for failure in facts.missing:
        if failure["code"] == code:
            return str(failure["message"])
    return None


def _database(facts: Facts) -> Finding:
    told = _lacks(facts, "DatabaseAway")
    if facts.health is not None and not facts.health["database"]["up"]:
        told = facts.health["database"].get("message", "")
    fix = (
        "start PostgreSQL, or look at its log and at ROLLCALL_DATABASE_URL of the services; "
        "rollouts stand still meanwhile and go on by themselves"
    )
    return _backing("database", "PostgreSQL", facts, facts.database, told, fix)


def _broker(facts: Facts) -> Finding:
    told = _lacks(facts, "BrokerAway")
    if facts.health is not None and not facts.health["broker"]["up"]:
        told = told or "no connection"
    fix = (
        "start RabbitMQ, or look at its log and at ROLLCALL_AMQP_URL of the services; nothing is "
        "lost: what is decided waits in the database, what agents saw waits with them"
    )
    return _backing("broker", "RabbitMQ", facts, facts.broker, told, fix)


def _backing(
    check: str, name: str, facts: Facts, direct: Direct | None, told: str | None, fix: str
) -> Finding:
    """Say how a server is: from here, and from http-api, which told of it unless None."""
    if direct is not None and direct.error is not None:
        message = f"{direct.where} ({direct.source}): {direct.error}"
    elif told is not None:
        where = f"; from here {direct.where} answers" if direct is not None else ""
        said = f" ({told})" if told else ""
        message = f"http-api does not reach {name}{said}{where}"
    else:
        return _well(check, name, facts, direct)
    return Finding(check=check, state=State.FAULT, message=message, fix=fix)


def _well(check: str, name: str, facts: Facts, direct: Direct | None) -> Finding:
    if direct is not None:
        words = f"{name} answers at {direct.where} ({direct.source})"
        return Finding(check=check, state=State.OK, message=words)
    if facts.health is not None or facts.ready:
        return Finding(check=check, state=State.OK, message=f"http-api reaches {name}")
    return Finding(
        check=check,
        state=State.UNKNOWN,
        message=f"{name} could not be looked at",
        fix="run doctor where ROLLCALL_DATABASE_URL and ROLLCALL_AMQP_URL are set, or on the "
        "machine of `rollcall up` with its --state-dir",
    )


# --- services -------------------------------------------------------------------------------------


def _services(facts: Facts) -> Iterator[Finding]:
    faults: list[Finding] = []
    for queue in facts.queues:
        if queue.consumers == 0:
            waiting = counted(queue.messages, "message waits", "messages wait")
            faults.append(
                Finding(
                    check="services",
                    state=State.FAULT,
                    message=f"nobody reads the queue {queue.name}; {waiting} in it",
                    fix=f"start {queue.name.partition('.')[0]}, or look at its log",
                )
            )
        if queue.dead:
            words = counted(queue.dead, "message that", "messages that")
            faults.append(
                Finding(
                    check="services",
                    state=State.WARNING,
                    message=f"{queue.name}.dead holds {words} nobody could handle",
                    fix=f"look for message_rejected in the log of {queue.name.partition('.')[0]}",
                )
            )
    health = facts.health
    missing = [
        *(health["missingViews"] if health is not None else ()),
        *(failure["target"] for failure in facts.missing if failure["code"] == "ViewMissing"),
    ]
    if missing:
        faults.append(
            Finding(
                check="services",
                state=State.FAULT,
                message=f"missing in the database: {', '.join(missing)}",
                fix="start orchestrator and image-publisher: each makes its own tables",
            )
        )
    unpublished = None if health is None else health["unpublished"]
    if health is not None and health["broker"]["up"] and (unpublished or 0) > BACKLOG:
        faults.append(
            Finding(
                check="services",
                state=State.WARNING,
                message=f"{unpublished} entries of the event log wait to be published",
                fix="look at the log of orchestrator; the broker may be slow, or its disk full",
            )
        )
    yield from faults
    if not faults:
        yield _quiet(facts, unpublished)


def _quiet(facts: Facts, unpublished: int | None) -> Finding:
    """Return what is known of services that nothing is wrong with."""
    words = []
    if facts.queues:
        words.append(f"{counted(len(facts.queues), 'queue is', 'queues are')} read")
    if unpublished is not None:
        words.append(f"{counted(unpublished, 'event waits', 'events wait')} to be published")
    if not words:
        return Finding(
            check="services", state=State.UNKNOWN, message="the services could not be looked at"
        )
    return Finding(check="services", state=State.OK, message=", ".join(words))


# --- agents and feeds -----------------------------------------------------------------------------


def _agents(facts: Facts) -> Iterator[Finding]:
    if facts.health is None or facts.health["hosts"] is None:
        yield Finding(check="agents", state=State.UNKNOWN, message="the agents are not known")
        return
    hosts, now = facts.health["hosts"], datetime.fromisoformat(facts.health["time"])
    silent = [(host, now - datetime.fromisoformat(host["seenTime"])) for host in hosts]
    silent = [(host, since) for host, since in silent if since > SILENT]
    if not hosts:
        yield Finding(
            check="agents",
            state=State.FAULT,
            message="no agent has ever reported: there is no host to make instances on",
            fix="start instance-agent on a host with ROLLCALL_HOST and ROLLCALL_AMQP_URL "
            "(docs/drivers.md)",
        )
    elif len(silent) == len(hosts) and len(hosts) > 1:
        yield Finding(
            check="agents",
            state=State.FAULT,
            message=f"all {len(hosts)} agents are silent, for {length(min(s for _, s in silent))}",
            fix="look at the broker and at orchestrator first, which hears them all; then at the "
            "agents' logs",
        )
    else:
        for host, since in silent:
            yield Finding(
                check="agents",
                state=State.FAULT,
                message=f"the agent of {host['host']} is silent for {length(since)}; "
                f"{counted(host['instances'], 'instance is', 'instances are')} on that host",
                fix=f"start instance-agent on {host['host']}, or look at its log: does it reach "
                "the broker? Instances live on meanwhile, and none is upgraded there",
            )
        for host in hosts:
            for scale_set in host.get("blindlyProbed", ()):
                yield Finding(
                    check="agents",
                    state=State.WARNING,
                    message=f"the Tcp probe of {scale_set.rpartition('/')[2]} proves nothing on "
                    f"{host['host']}, where connections are taken for guests that have not booted; "
                    "its automatic upgrades are held",
                    fix="give the set an Http or Https probe, or put its machines on a bridge: "
                    "ROLLCALL_QEMU_NETWORK (docs/drivers.md)",
                )
        if not silent:
            words = f"{counted(len(hosts), 'agent reports', 'agents report')}"
            yield Finding(check="agents", state=State.OK, message=words)


FEED_FIXES = {
    "FeedUnreachable": "look at the feed's server and at its `url`; polls go on",
    "FeedTruncated": "it passes by itself, or a proxy is broken",
    "FeedTooLarge": "raise `max_bytes` if the feed is right",
    "FeedMalformed": "its author must repair it",
    "FeedPathUnsafe": "do not trust this feed before you know why",
    "FeedSignatureMissing": "sign it (`rollcall feed sign`), or say `unsigned: true` if that is "
    "what you want",
    "FeedSignatureInvalid": "treat it as an attack if it lasts; after a change of keys renew the "
    "keyring",
    "FeedKeyringUnusable": "write the keyring again with `gpg --export KEY > FILE`",
    "FeedVerifierMissing": "install the package gpgv where image-publisher runs",
    "FeedWentBack": "an old mirror passes by itself; else write the feed again with a newer "
    "`updated`",
    "FeedStale": "find out why nobody writes the feed, or raise `max_age`",
    "FeedPollFailed": "look for feed_poll_failed in the log of image-publisher",
}


def _feeds(facts: Facts) -> Iterator[Finding]:
    health = facts.health
    if health is None or health["feeds"] is None:
        yield Finding(check="feeds", state=State.UNKNOWN, message="the feeds are not known")
        return
    now = datetime.fromisoformat(health["time"])
    known = {feed["name"]: feed for feed in health["feeds"]}
    configured = {each["name"]: float(each["interval"]) for each in health["configuredFeeds"]}
    found = [
        finding
        for name in configured
        if (finding := _feed(known.get(name), name, configured[name], now)) is not None
    ]
    yield from found
    if not configured:
        yield Finding(
            check="feeds",
            state=State.WARNING,
            message="no image feed is configured: no new image will ever come",
            fix="name one in the configuration file, under `feeds:` (docs/feeds.md)",
        )
    elif not found:
        words = counted(len(configured), "feed is read", "feeds are read")
        yield Finding(check="feeds", state=State.OK, message=f"{words}: {', '.join(configured)}")


def _feed(feed: Document | None, name: str, interval: float, now: datetime) -> Finding | None:
    checked = None if feed is None else feed["checkedTime"]
    late = timedelta(seconds=interval) * ROUNDS + SLACK
    if feed is None or checked is None:
        return Finding(
            check="feeds",
            state=State.FAULT,
            message=f"the feed {name} was never read",
            fix="start image-publisher with the same configuration file, or look at its log",
        )
    error = feed["error"]
    if error is not None:
        whole = not str(error["code"]).startswith("Image")
        return Finding(
            check="feeds",
            state=State.FAULT if whole else State.WARNING,
            message=f"the feed {name} ({feed['url']}): {error['code']}: {error['message']}",
            fix=FEED_FIXES.get(error["code"], "see docs/feeds.md, Errors and what to do"),
        )
    since = now - datetime.fromisoformat(checked)
    if since > late:
        return Finding(
            check="feeds",
            state=State.FAULT,
            message=f"the feed {name} was last read {length(since)} ago, and should be every "
            f"{length(interval)}",
            fix="start image-publisher, or look at its log",
        )
    return None
