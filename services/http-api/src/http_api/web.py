"""The FastAPI application: routes, errors, and the gate before them."""

from fastapi import FastAPI

from http_api.asgi import Gate
from http_api.errors import add_handlers
from http_api.inside import Inside
from http_api.logins import Logins
from http_api.openapi import openapi_document
from http_api.routes import (
    accounts,
    actions,
    autoscale,
    deployments,
    events,
    existence,
    explain,
    extensions,
    groups,
    holds,
    hooks,
    images,
    instances,
    keys,
    load_balancers,
    login,
    networks,
    operations,
    scale_sets,
    status,
    steering,
    subscriptions,
    upgrades,
)
from http_api.writes import Server

OPENAPI = "/rollcall/openapi.json"
# Those with a path that matches nearly everything come after those that know it better.
_MODULES = (scale_sets, extensions, upgrades, steering, hooks, explain, actions, instances)
_OTHERS = (load_balancers, images, networks, holds, events, operations, status, groups)
_LAST = (subscriptions, accounts, keys, login)
_TEMPLATES = (deployments, autoscale, existence)
ROUTERS = tuple(m.router for m in (*_MODULES, *_TEMPLATES, *_OTHERS, *_LAST))


def create_app(server: Server) -> FastAPI:
    """Return the application over one server's database, settings and configuration."""
    app = FastAPI(
        title="Rollcall",
        summary="Automatic OS image upgrades: Azure's scale set API, and Rollcall's own.",
        openapi_url=OPENAPI,
        docs_url=None,  # the pages load scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.server = server
    app.state.logins = Logins()
    app.state.inside = Inside(server, ROUTERS)
    app.openapi_schema = openapi_document(ROUTERS)
    add_handlers(app, ROUTERS)
    for router in ROUTERS:
        app.include_router(router)
    app.add_middleware(Gate, server=server)
    return app
