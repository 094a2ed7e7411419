"""`rollcall sets`, `show`, `instances`, `images`, `history`: what there is."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from rollcall_cli.client import Api, ClientError
from rollcall_cli.naming import near
from rollcall_cli.session import Session, SetName, on_server
from rollcall_cli.tables import (
    history_lines,
    image_parts,
    images_table,
    instances_table,
    set_page,
    sets_table,
    upgrade_page,
)

SETS = "providers/Microsoft.Compute/virtualMachineScaleSets"
PARTS = ("publisher", "offer", "SKU", "version")
LATEST = "latest"


@on_server
def sets(session: Session) -> None:
    """List the scale sets.

    All that you may see; --subscription and --resource-group narrow it down.
    """
    found: list[Any] = []
    for place in _places(session):
        found += session.api.items(f"{place}/{SETS}")
    session.put({"value": found}, lambda: sets_table(found))


def _places(session: Session) -> Iterator[str]:
    group = f"/resourceGroups/{session.resource_group}" if session.resource_group else ""
    if session.subscription is not None:
        yield f"/subscriptions/{session.subscription}{group}"
        return
    for item in session.api.items("/subscriptions"):
        yield f"{item['id']}{group}"


@on_server
def show(session: Session, scale_set: SetName) -> None:
    """Show a scale set.

    As JSON or YAML it is the resource itself, which `rollcall apply -f` takes again.
    """
    id = session.find(scale_set)
    document = session.api.get(id)

    def shown() -> Any:
        newest = session.api.get(f"{id}/rollcall/upgrades", {"$top": 1})["value"]
        view = session.api.get(f"{id}/instanceView")
        return set_page(document, view, newest[0] if newest else None, datetime.now(UTC))

    session.put(document, shown)


@on_server
def instances(session: Session, scale_set: SetName) -> None:
    """List a set's instances."""
    id = session.find(scale_set)
    found = session.api.items(f"{id}/virtualMachines", {"$expand": "instanceView"})
    session.put({"value": found}, lambda: instances_table(found, datetime.now(UTC)))


@on_server
def history(
    session: Session,
    scale_set: SetName,
    upgrade: Annotated[
        str | None,
        typer.Argument(
            metavar="[UPGRADE]",
            help="Show this upgrade with its batches and instances; `latest` is the last one.",
        ),
    ] = None,
    every: Annotated[
        bool,
        typer.Option("--all", help="Upgrades of any age, in full: Rollcall's own document."),
    ] = False,
) -> None:
    """List a set's upgrades.

    As Azure has it: the last five of the past two months, newest first.
    """
    id, now = session.find(scale_set), datetime.now(UTC)
    if upgrade is not None:
        known = _newest(session.api, id) if upgrade == LATEST else upgrade
        document = session.api.get(f"{id}/rollcall/upgrades/{known}")
        session.put(document, lambda: upgrade_page(document, now))
        return
    place = "rollcall/upgrades" if every else "osUpgradeHistory"
    found = session.api.items(f"{id}/{place}")
    session.put({"value": found}, lambda: history_lines(found, now))


def _newest(api: Api, id: str) -> str:
    known = api.get(f"{id}/rollcall/upgrades", {"$top": 1})["value"]
    if not known:
        raise ClientError(f"the scale set {id.rpartition('/')[2]} never had an upgrade")
    newest: str = known[0]["id"]
    return newest


@on_server
def images(
    session: Session,
    image: Annotated[
        str,
        typer.Argument(
            metavar="[PUBLISHER[:OFFER[:SKU[:VERSION]]]]",
            help="Only these; --set takes those that a set follows.",
            show_default="all",
        ),
    ] = "",
    of_set: Annotated[
        str | None,
        typer.Option("--set", help="Only the versions that this scale set follows.", metavar="SET"),
    ] = None,
) -> None:
    """List the published images.

    As JSON it is a bare list, as Azure's image lists are.
    """
    wanted = [part for part in image.split(":") if part]
    if len(wanted) > len(PARTS):
        raise ClientError(f"{image} names no image: it is PUBLISHER:OFFER:SKU:VERSION")
    if of_set is not None:
        reference = session.api.get(session.find(of_set))["properties"]["virtualMachineProfile"][
            "storageProfile"
        ]["imageReference"]
        wanted = [reference[part] for part in ("publisher", "offer", "sku")]
    found = list(_images(session, wanted))
    session.put(found, lambda: images_table(found))


def _images(session: Session, wanted: Sequence[str]) -> Iterator[Any]:
    """Yield the versions below what is wanted, oldest first. Raises ClientError."""
    api = session.api
    subscription = session.subscription or next(
        (item["subscriptionId"] for item in api.items("/subscriptions")), "any"
    )
    places = api.items(f"/subscriptions/{subscription}/locations")
    base = (
        f"/subscriptions/{subscription}/providers/Microsoft.Compute/locations/"
        f"{places[0]['name']}/publishers"
    )
    for publisher in _chosen(api, base, wanted, 0):
        offers = f"{base}/{publisher}/artifacttypes/vmimage/offers"
        for offer in _chosen(api, offers, wanted, 1):
            skus = f"{offers}/{offer}/skus"
            for sku in _chosen(api, skus, wanted, 2):
                versions = api.get(f"{skus}/{sku}/versions", {"$expand": "properties"})
                if len(wanted) < len(PARTS):
                    yield from versions
                    continue
                _one_of([item["name"] for item in versions], wanted[3], "version")
                yield from (v for v in versions if image_parts(v["id"])[3] == wanted[3])


def _chosen(api: Api, path: str, wanted: Sequence[str], depth: int) -> list[str]:
    names = [item["name"] for item in api.get(path)]
    if depth >= len(wanted):
        return names
    return [_one_of(names, wanted[depth], PARTS[depth])]


def _one_of(names: Sequence[str], wanted: str, what: str) -> str:
    """Return the name that is meant, whatever its case. Raises ClientError, which lists them."""
    for name in names:
        if name.lower() == wanted.lower():
            return name
    raise ClientError(
        f"there is no {what} {wanted}.{near(wanted, names)} "
        f"There are: {', '.join(names) or 'none at all'}"
    )
