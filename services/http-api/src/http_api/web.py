"""The FastAPI application: routes, errors, and the gate before them."""

from fastapi import FastAPI

from http_api.asgi import Gate
from http_api.errors import add_handlers
from http_api.routes import (
    accounts,
    events,
    explain,
    groups,
    holds,
    hooks,
    images,
    instances,
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


def create_app(server: Server) -> FastAPI:
    """Return the application over one server's database, settings and configuration."""
    app = FastAPI(
        title="Rollcall",
        summary="Automatic OS image upgrades: Azure's scale set API, and Rollcall's own.",
        openapi_url="/rollcall/openapi.json",
        docs_url=None,  # the pages load scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.server = server
    # Those with a path that matches nearly everything come after those that know it better.
    modules = (scale_sets, upgrades, steering, hooks, explain, instances, load_balancers, images)
    others = (networks, holds, events, operations, status, groups, subscriptions, accounts, login)
    routers = [module.router for module in (*modules, *others)]
    add_handlers(app, routers)
    for router in routers:
        app.include_router(router)
    app.add_middleware(Gate, server=server)
    return app
