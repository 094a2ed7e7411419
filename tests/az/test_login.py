"""az comes to know the cloud, logs in, and asks nobody else."""

from typing import Any

import pytest

pytestmark = pytest.mark.timeout(1800)  # the first test also installs az


def test_the_cloud_and_its_one_subscription(az: Any) -> None:
    cloud = az("cloud show -n rollcall")
    assert cloud["isActive"] is True
    assert cloud["endpoints"]["resourceManager"] == az.server.url
    assert cloud["endpoints"]["activeDirectory"] == f"{az.server.url}/adfs"

    account = az("account show")
    assert account["environmentName"] == "rollcall"
    assert account["state"] == "Enabled"
    assert account["user"]["type"] == "servicePrincipal"
    assert [each["id"] for each in az("account list")] == [account["id"]]
    assert [each["name"] for each in az("account list-locations")] == ["local"]
    assert az("account get-access-token")["subscription"] == account["id"]

    assert az("provider show -n Microsoft.Compute")["registrationState"] == "Registered"


def test_a_reader_looks_and_changes_nothing(az: Any, group: str) -> None:
    reader = az.another("reader")
    account = az.server.account("reader")
    (subscription,) = reader.log_in(account)
    assert subscription["user"]["name"] == account["clientId"]

    assert reader(f"group show -n {group}")["name"] == group
    said = reader.refuses("group create -n other -l local", "AuthorizationFailed")
    assert "owner" in said


def test_a_wrong_secret_is_refused(az: Any) -> None:
    stranger = az.another("stranger")
    account = az.server.account("reader")
    stranger("logout")

    with pytest.raises(AssertionError, match="AADSTS7000215"):
        stranger.log_in({**account, "clientSecret": "not-this-one"})


def test_nothing_outside_is_asked_but_whether_there_is_a_newer_az(az: Any) -> None:
    # No setting keeps az from it, at the first start of a new configuration.
    assert az.asked in (["raw.githubusercontent.com"], ["azcliprod.blob.core.windows.net"])
