"""Accounts of programs, for the owner: made, shown, given another secret, removed."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Response
from fastapi.responses import JSONResponse
from rollcall_contracts.events import Event
from rollcall_kit.outbox import Connection

from http_api import accounts, progress, resources
from http_api.domain.access import read_grants
from http_api.domain.documents import Reader
from http_api.domain.operations import Kind
from http_api.errors import ApiError
from http_api.routes.common import JsonBody, Pool, ServerOf
from http_api.routes.status import Asking

router = APIRouter(tags=["accounts"], prefix="/rollcall/accounts")
MAX_NAME = 100  # characters


@router.get("")
async def list_all(pool: Pool) -> Response:
    """Return the accounts, without their secrets."""
    async with pool.acquire() as connection:
        tenant, _ = await resources.directory(connection)
        found = await accounts.accounts(connection)
    return JSONResponse({"value": [each.json(tenant) for each in found]})


@router.post("")
async def add(body: JsonBody, server: ServerOf, asked: Asking) -> Response:
    """Make an account; its secret is shown this once.

    The same request, repeated by a client that got no answer, is the same account with another
    secret: the one that was lost is worth nothing.
    """
    reader = Reader(body)
    name = reader.text("name")
    if name is None or len(name) > MAX_NAME:
        reader.fault("name", f"name must be a text of at most {MAX_NAME} characters")
    grants = read_grants(reader)
    secret, hash = await accounts.new_secret()

    async def work(connection: Connection) -> tuple[dict[str, Any], list[Event]]:
        now = server.context.now()
        tenant, _ = await resources.directory(connection)
        known = await progress.repeated(connection, router.prefix, asked, now)
        found = await accounts.accounts(connection, known.goal["id"]) if known else []
        if found:
            id = found[0].client_id
            await accounts.replace_secret(connection, id, hash, now)
        else:
            id = await accounts.add(connection, name or "", hash, grants, now)
            await progress.begin(connection, Kind.NOTHING, router.prefix, asked, now, {"id": id})
        (made,) = await accounts.accounts(connection, id)
        return made.json(tenant), []

    made = await server.transact(work)
    return JSONResponse({**made, "clientSecret": secret}, status_code=201)


async def existing_account(client_id: str, pool: Pool) -> accounts.Account:
    """Return the account in the path. Raises ApiError 404."""
    async with pool.acquire() as connection:
        found = await accounts.accounts(connection, client_id)
    if not found:
        raise ApiError(404, "AccountNotFound", f"There is no account {client_id}.")
    return found[0]


Known = Annotated[accounts.Account, Depends(existing_account)]


@router.get("/{client_id}")
async def get(account: Known, pool: Pool) -> Response:
    """Return one account."""
    async with pool.acquire() as connection:
        tenant, _ = await resources.directory(connection)
    return JSONResponse(account.json(tenant))


@router.put("/{client_id}/roles")
async def put_roles(account: Known, body: JsonBody, pool: Pool) -> Response:
    """Replace an account's roles; they hold from its next request on."""
    grants = read_grants(Reader(body))
    async with pool.acquire() as connection, connection.transaction():
        tenant, _ = await resources.directory(connection)
        await accounts.set_grants(connection, account.client_id, grants)
        (changed,) = await accounts.accounts(connection, account.client_id)
    return JSONResponse(changed.json(tenant))


@router.post("/{client_id}/secret")
async def renew(account: Known, pool: Pool, server: ServerOf) -> Response:
    """Give an account another secret, shown this once; the one before is worth nothing."""
    secret, hash = await accounts.new_secret()
    async with pool.acquire() as connection:
        await accounts.replace_secret(connection, account.client_id, hash, server.context.now())
    return JSONResponse({"clientId": account.client_id, "clientSecret": secret})


@router.delete("/{client_id}")
async def remove(client_id: str, pool: Pool) -> Response:
    """Remove an account; its tokens are worth nothing from now on. 204 also if there is none."""
    async with pool.acquire() as connection:
        await accounts.remove(connection, client_id)
    return Response(status_code=204)
