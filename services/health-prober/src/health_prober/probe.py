"""One probe: a new connection, one question, and what the answer means.

A kept connection would hide a listener that died, so none is kept.
"""

import asyncio
import os

import aiohttp
from rollcall_contracts.events import ProbeTarget
from rollcall_contracts.model import Health, Probe

from health_prober.domain.answer import BODY_LIMIT, Answer, read_answer

_HEADERS = {"User-Agent": "rollcall-health-prober", "Accept-Encoding": "identity"}


def open_session() -> aiohttp.ClientSession:
    """Return the session that all probes share. To be called where an event loop runs."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(
            force_close=True,
            limit=0,  # the prober's lanes bound it
            # As load balancers do: an instance's certificate is made for the name under which its
            # users reach it, or by itself; the question is whether the application answers.
            ssl=False,
        ),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,  # a few bytes could unpack to gigabytes
        headers=_HEADERS,
        timeout=aiohttp.ClientTimeout(total=None),  # each probe has its own
    )


async def probe_once(session: aiohttp.ClientSession, probe: Probe, target: ProbeTarget) -> Answer:
    """Ask one instance once; return what it said. Never takes longer than the timeout.

    An instance that cannot be reached is Unhealthy, as for a load balancer; so is one whose address
    is none.
    """
    try:
        async with asyncio.timeout(probe.timeout):
            if probe.protocol == "Tcp":
                return await _connect(target)
            return await _get(session, probe, target)
    except TimeoutError:
        return Answer(health=Health.UNHEALTHY, reason=f"no answer in {probe.timeout:g} s")
    except (aiohttp.ClientError, OSError) as error:
        return Answer(health=Health.UNHEALTHY, reason=short(error))
    except ValueError:  # no name of a host: a part of it is empty, or has more than 63 letters
        reason = f"the address {target.address[:100]!r} cannot be asked"
        return Answer(health=Health.UNHEALTHY, reason=reason)


async def _connect(target: ProbeTarget) -> Answer:
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_connection(asyncio.Protocol, target.address, target.port)
    transport.close()
    return Answer(health=Health.HEALTHY, reason="TCP connected")


async def _get(session: aiohttp.ClientSession, probe: Probe, target: ProbeTarget) -> Answer:
    # A redirect is an answer of another status than 200, and is not followed: the probe asks
    # about this instance.
    async with session.get(url_of(probe, target), allow_redirects=False) as response:
        return read_answer(response.status, await read_body(response, BODY_LIMIT))


async def read_body(response: aiohttp.ClientResponse, limit: int) -> bytes:
    """Return a body; of one that is longer than `limit`, just enough to see that it is."""
    body = b""
    while len(body) <= limit:
        chunk = await response.content.read(limit + 1 - len(body))
        if not chunk:
            break
        body += chunk
    response.close()  # what is left of a longer body is not waited for
    return body


def url_of(probe: Probe, target: ProbeTarget) -> str:
    """Return the URL that an HTTP probe asks."""
    host = f"[{target.address}]" if ":" in target.address else target.address
    path = "/" + (probe.request_path or "").removeprefix("/")
    return f"{probe.protocol.lower()}://{host}:{target.port}{path}"


def short(error: Exception) -> str:
    """Return an error in one line: the system's own words where there are some."""
    tls = isinstance(error, aiohttp.ClientSSLError)  # its numbers are TLS's own
    if isinstance(error, OSError) and not tls and error.errno is not None and error.errno > 0:
        return os.strerror(error.errno)  # asyncio words it differently than uvloop
    return (str(error) or type(error).__name__).partition("\n")[0][:200]
