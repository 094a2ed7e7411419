"""What operators look at: health, readiness, metrics, feeds and hosts."""

from importlib.metadata import version
from typing import Any

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST
from rollcall_contracts.model import Failure
from rollcall_kit.database import DATABASE_AWAY

from http_api import installation, queries, store
from http_api.errors import error_response
from http_api.metrics import scrape
from http_api.routes.common import Pool, Scopes, ServerOf

router = APIRouter(tags=["operations"])


@router.get("/healthz")
async def healthz() -> Response:
    """Say that the process is alive."""
    return JSONResponse({"status": "alive"})


@router.get("/readyz")
async def readyz(pool: Pool, server: ServerOf) -> Response:
    """Say whether requests can be answered; 503 with each thing that is missing."""
    missing: list[Failure] = []
    try:
        async with pool.acquire(timeout=3) as connection:
            missing += [
                Failure(
                    code="ViewMissing",
                    message=f"the view {view} does not exist: its service has not started yet",
                    target=view,
                )
                for view in await queries.missing_views(connection)
            ]
    except (*DATABASE_AWAY, TimeoutError) as error:
        text = str(error) or type(error).__name__
        missing.append(Failure(code="DatabaseAway", message=text, target="database"))
    if not server.context.broker.is_up:
        missing.append(
            Failure(code="BrokerAway", message="no connection to RabbitMQ", target="broker")
        )
    if missing:
        summary = Failure(code="NotReady", message=f"{len(missing)} things are missing")
        return error_response(503, summary, details=missing)
    return JSONResponse({"status": "ready"})


@router.get("/rollcall/health")
async def health(pool: Pool, server: ServerOf) -> Response:
    """Return what `rollcall doctor` judges: clocks, database, broker, agents and feeds.

    Always 200: a part that cannot be read just now is null, and `database.message` says why.
    """
    configured = [{"name": feed.name, "interval": feed.interval} for feed in server.config.feeds]
    facts: dict[str, Any] = {"hosts": None, "feeds": None, "unpublished": None, "missingViews": []}
    try:
        async with pool.acquire(timeout=3) as connection:
            facts["database"] = {"up": True, "time": await installation.clock(connection)}
            facts["missingViews"] = await queries.missing_views(connection)
            if not facts["missingViews"]:
                facts["hosts"] = await installation.hosts(connection)
                facts["feeds"] = await installation.feeds(connection)
                facts["unpublished"] = await installation.unpublished(connection)
    except (*DATABASE_AWAY, TimeoutError) as error:
        message = str(error) or type(error).__name__
        facts["database"] = {"up": False, "time": None, "message": message}
    return JSONResponse(
        {
            "version": version("http-api"),
            "broker": {"up": server.context.broker.is_up},
            **facts,
            "configuredFeeds": configured,
            "time": server.context.now().isoformat(),
        }
    )


@router.get("/metrics")
async def metrics(pool: Pool) -> Response:
    """Return metrics in Prometheus' text form."""
    async with pool.acquire() as connection:
        return Response(await scrape(connection), media_type=CONTENT_TYPE_LATEST)


@router.get("/rollcall/feeds")
async def feeds(pool: Pool) -> Response:
    """Return each image feed with its present error, and its errors so far by code."""
    async with pool.acquire() as connection:
        return JSONResponse({"value": await installation.feeds(connection)})


@router.get("/rollcall/scaleSets")
async def scale_sets(pool: Pool, scopes: Scopes) -> Response:
    """Return the id of every scale set that the client may see, in any subscription and group."""
    async with pool.acquire() as connection:
        ids = await store.scale_set_ids(connection, scopes)
    return JSONResponse({"value": [{"id": id, "name": id.rpartition("/")[2]} for id in ids]})


@router.get("/rollcall/hosts")
async def hosts(pool: Pool) -> Response:
    """Return the hosts whose agents were seen."""
    async with pool.acquire() as connection:
        return JSONResponse({"value": await installation.hosts(connection)})
