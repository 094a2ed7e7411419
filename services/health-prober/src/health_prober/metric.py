"""One question to a Prometheus server: `GET /api/v1/query`, or POST where it is a long one."""

import asyncio
from urllib.parse import quote, urlsplit, urlunsplit

import aiohttp
from rollcall_contracts.model import MetricGate

from health_prober.domain.metric import BODY_LIMIT, MetricAnswer, judge_metric, unreachable
from health_prober.metrics import metric_queries
from health_prober.probe import read_body, short

_LONGEST_URL = 2000  # characters; longer ones are cut or refused by servers on the way
# Not in aiohttp's words: they are the address, which may hold a key.
_NO_ADDRESS = "the gate's server is no address that can be asked"
_HEADERS = {
    "Accept": "application/json",
    "Accept-Encoding": "identity",
    "User-Agent": "rollcall-health-prober",
}


async def ask_metric(gate: MetricGate) -> MetricAnswer:
    """Ask a gate's server once; never takes longer than the gate's timeout.

    Unlike a probe it trusts no certificate that nobody signed: the answer lets batches go on.
    """
    try:
        async with asyncio.timeout(gate.timeout):
            answer = await _ask(gate)
    except TimeoutError:
        answer = unreachable(f"no answer in {gate.timeout:g} s")
    except aiohttp.InvalidURL:
        answer = unreachable(_NO_ADDRESS)
    except (aiohttp.ClientError, OSError) as error:  # a certificate's is a ValueError, too
        answer = unreachable(short(error))
    except ValueError:
        answer = unreachable(_NO_ADDRESS)
    metric_queries.labels(answer.outcome.value).inc()
    return answer


async def _ask(gate: MetricGate) -> MetricAnswer:
    url = query_url(gate.server)
    form = {"query": gate.query}
    async with aiohttp.ClientSession(
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,  # a few bytes could unpack to gigabytes
        headers=_HEADERS,
        timeout=aiohttp.ClientTimeout(total=None),  # the caller's
    ) as session:
        # A redirect is not followed: the model names the server whose word counts.
        if len(url) + len(quote(gate.query)) > _LONGEST_URL:
            request = session.post(url, data=form, allow_redirects=False)
        else:
            request = session.get(url, params=form, allow_redirects=False)
        async with request as response:
            return judge_metric(response.status, await read_body(response, BODY_LIMIT), gate)


def query_url(server: str) -> str:
    """Return where a server is asked; a path or a query of its address is kept.

    Raises ValueError for what is no address.
    """
    parts = urlsplit(server)
    path = parts.path.rstrip("/") + "/api/v1/query"
    return urlunsplit((parts.scheme, parts.netloc, path, parts.query, ""))
