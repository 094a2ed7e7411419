"""What images there are (M22), as bare JSON arrays."""

from collections.abc import Callable
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Response
from fastapi.responses import JSONResponse
from rollcall_contracts.model import Image

from http_api import queries
from http_api.domain.present.images import list_json, name_json, names, ordered, version_json
from http_api.errors import ApiError
from http_api.routes.common import SUBSCRIPTION, Pool, ServerOf, Top, need_api_version

router = APIRouter(tags=["images"], dependencies=[Depends(need_api_version)])
PUBLISHERS = SUBSCRIPTION + "/providers/Microsoft.Compute/locations/{location}/publishers"
OFFERS = PUBLISHERS + "/{publisher}/artifacttypes/vmimage/offers"
SKUS = OFFERS + "/{offer}/skus"
VERSIONS = SKUS + "/{sku}/versions"


@router.get(PUBLISHERS)
async def publishers(subscription: str, location: str, pool: Pool) -> Response:
    """Return who publishes images."""
    return await _names(
        pool,
        PUBLISHERS.format(subscription=subscription, location=location),
        location,
        {},
        lambda image: image.publisher,
    )


@router.get(OFFERS)
async def offers(subscription: str, location: str, publisher: str, pool: Pool) -> Response:
    """Return a publisher's offers."""
    return await _names(
        pool,
        OFFERS.format(subscription=subscription, location=location, publisher=publisher),
        location,
        {"publisher": publisher},
        lambda image: image.offer,
    )


@router.get(SKUS)
async def skus(
    subscription: str, location: str, publisher: str, offer: str, pool: Pool
) -> Response:
    """Return an offer's SKUs."""
    return await _names(
        pool,
        SKUS.format(subscription=subscription, location=location, publisher=publisher, offer=offer),
        location,
        {"publisher": publisher, "offer": offer},
        lambda image: image.sku,
    )


@router.get(VERSIONS)
async def versions(
    subscription: str,
    location: str,
    publisher: str,
    offer: str,
    sku: str,
    pool: Pool,
    server: ServerOf,
    expand: Annotated[str, Query(alias="$expand")] = "",
    top: Top = None,
    order: Annotated[
        str, Query(alias="$orderby", pattern=r"(?i)^ *(name( +(asc|desc))?)? *$")
    ] = "",
) -> Response:
    """Return a SKU's versions in numeric order (M21)."""
    found = await _images(pool, {"publisher": publisher, "offer": offer, "sku": sku})
    base = VERSIONS.format(
        subscription=subscription, location=location, publisher=publisher, offer=offer, sku=sku
    )
    shown = ordered(found, descending=order.lower().strip().endswith("desc"), top=top)
    if expand.lower().startswith("properties"):
        return JSONResponse(
            [version_json(base, location, image, server.config.supports) for image in shown]
        )
    return JSONResponse([name_json(base, location, image.version) for image in shown])


@router.get(VERSIONS + "/{version}")
async def one_version(
    subscription: str,
    location: str,
    publisher: str,
    offer: str,
    sku: str,
    version: str,
    pool: Pool,
    server: ServerOf,
) -> Response:
    """Return one version with its properties."""
    found = await _images(pool, {"publisher": publisher, "offer": offer, "sku": sku})
    image = next((image for image in found if image.version.lower() == version.lower()), None)
    if image is None:
        raise _not_found()
    base = VERSIONS.format(
        subscription=subscription, location=location, publisher=publisher, offer=offer, sku=sku
    )
    return JSONResponse(version_json(base, location, image, server.config.supports))


async def _names(
    pool: Pool,
    base: str,
    location: str,
    wanted: dict[str, str],
    part: Callable[[Image], str],
) -> Response:
    return JSONResponse(list_json(base, location, names(await _images(pool, wanted), part)))


async def _images(pool: Pool, wanted: dict[str, str]) -> list[Image]:
    """Return the images with these parts. Raises ApiError 404 when a part is nobody's."""
    async with pool.acquire() as connection:
        found = [
            image
            for image in await queries.images(connection)
            if all(getattr(image, part).lower() == value.lower() for part, value in wanted.items())
        ]
    if wanted and not found:
        raise _not_found()
    return found


def _not_found() -> ApiError:
    return ApiError(404, "NotFound", "Artifact: VMImage was not found.")
