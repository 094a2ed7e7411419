"""Image lists over HTTP (M22)."""

from typing import Any

PUBLISHERS = "/subscriptions/s/providers/Microsoft.Compute/locations/westeurope/publishers"
VERSIONS = f"{PUBLISHERS}/contoso/artifacttypes/vmimage/offers/web/skus/STABLE/versions"


async def test_m22_image_lists_are_bare_arrays(api: Any) -> None:
    assert await api.get(PUBLISHERS) == []
    for version in ("14.4.9", "14.4.10", "2.0"):
        await api.add_image(version, os_type="Windows")
    await api.add_image("99.0", withdrawn=True)
    await api.add_image("1.0", publisher="Fabrikam", offer="Db", sku="x")
    names = await api.get(PUBLISHERS)
    assert [item["name"] for item in names] == ["Contoso", "Fabrikam"]
    assert set(names[0]) == {"location", "name", "id"}
    assert names[0]["location"] == "westeurope"
    offers = await api.get(f"{PUBLISHERS}/CONTOSO/artifacttypes/vmimage/offers")
    assert [item["name"] for item in offers] == ["Web"]
    skus = await api.get(f"{PUBLISHERS}/Contoso/ArtifactTypes/VMImage/offers/web/skus")
    assert [item["name"] for item in skus] == ["stable"]
    versions = await api.get(VERSIONS)
    assert [item["name"] for item in versions] == ["2.0", "14.4.9", "14.4.10"]
    newest = await api.get(VERSIONS, params={"$top": 1, "$orderby": "name desc"})
    assert [item["name"] for item in newest] == ["14.4.10"]
    assert "properties" not in newest[0]
    expanded = await api.get(VERSIONS, params={"$expand": "properties/imageDeprecationStatus"})
    one = await api.get(f"{VERSIONS}/14.4.10")
    assert one == {**expanded[-1], "id": one["id"]}
    assert one["properties"]["osDiskImage"] == {"operatingSystem": "Windows"}
    automatic = one["properties"]["automaticOSUpgradeProperties"]
    assert automatic == {"automaticOSUpgradeSupported": True}
    for path in (f"{VERSIONS}/99.0", VERSIONS.replace("contoso", "nobody")):
        await api.error("GET", path, 404)
    for wrong in ({"$top": "x"}, {"$top": 0}, {"$orderby": "size"}):
        await api.get(VERSIONS, 400, params=wrong)
