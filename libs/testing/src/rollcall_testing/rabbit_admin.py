"""RabbitMQ's management API, as far as tests need it: vhosts, accounts, permissions, queues."""

from types import TracebackType
from typing import Any, Self
from urllib.parse import quote, urlsplit

import httpx


class RabbitAdmin:
    """An administrator of the test broker, working in one vhost."""

    def __init__(self, amqp_url: str, api_url: str, vhost: str) -> None:
        """Take the broker's AMQP URL and API address, each with an administrator's account."""
        self._amqp = urlsplit(amqp_url)
        api = urlsplit(api_url)
        self.vhost = vhost
        self._users: set[str] = set()
        self._http = httpx.Client(
            base_url=f"{api.scheme}://{api.hostname}:{api.port}/api",
            auth=(api.username or "", api.password or ""),
            timeout=30,
        )

    def url(self, user: str | None = None, password: str = "") -> str:
        """Return the vhost's AMQP URL, for the administrator or for an account of the test."""
        account = self._amqp.netloc.rpartition("@")[0]
        if user is not None:
            account = f"{quote(user, safe='')}:{quote(password, safe='')}"
        place = f"{self._amqp.hostname}:{self._amqp.port}"
        return f"amqp://{account}@{place}/{quote(self.vhost, safe='')}"

    def add_vhost(self) -> None:
        """Make the vhost, with every permission for the administrator."""
        self._put(f"/vhosts/{quote(self.vhost, safe='')}", {})
        self.set_permissions(self._amqp.username or "", configure=".*", write=".*", read=".*")

    def delete_vhost(self) -> None:
        """Delete the vhost with its queues, and the accounts that the test made."""
        for user in self._users:
            self._call("DELETE", f"/users/{quote(user, safe='')}")
        self._call("DELETE", f"/vhosts/{quote(self.vhost, safe='')}")

    def add_user(self, name: str, password: str, *, tags: str = "") -> None:
        """Make an account; it is deleted after the test."""
        self._put(f"/users/{quote(name, safe='')}", {"password": password, "tags": tags})
        self._users.add(name)

    def set_permissions(self, user: str, *, configure: str, write: str, read: str) -> None:
        """Set what an account may do in the vhost, as regular expressions over names."""
        self._put(
            f"/permissions/{quote(self.vhost, safe='')}/{quote(user, safe='')}",
            {"configure": configure, "write": write, "read": read},
        )

    def set_topic_permissions(self, user: str, *, exchange: str, write: str, read: str) -> None:
        """Set which routing keys of a topic exchange an account may use in the vhost."""
        self._put(
            f"/topic-permissions/{quote(self.vhost, safe='')}/{quote(user, safe='')}",
            {"exchange": exchange, "write": write, "read": read},
        )

    def import_definitions(self, definitions: dict[str, Any]) -> None:
        """Import accounts and permissions as from a definitions file; accounts go after the test.

        Entries of the vhost are written for the product's; they are moved to the test's.
        """
        moved = {
            kind: [entry | ({"vhost": self.vhost} if "vhost" in entry else {}) for entry in entries]
            for kind, entries in definitions.items()
            if kind != "vhosts"
        }
        self._call("POST", "/definitions", moved)
        self._users.update(entry["name"] for entry in definitions.get("users", ()))

    def queues(self) -> dict[str, dict[str, Any]]:
        """Return the vhost's queues by name, as the API describes them."""
        answer = self._call("GET", f"/queues/{quote(self.vhost, safe='')}")
        return {queue["name"]: queue for queue in answer.json()}

    def drop_connections(self) -> int:
        """Cut every client connection of the vhost; say how many there were."""
        answer = self._call("GET", f"/vhosts/{quote(self.vhost, safe='')}/connections")
        for connection in answer.json():
            self._call("DELETE", f"/connections/{quote(connection['name'], safe='')}")
        return len(answer.json())

    def answers(self) -> bool:
        """Say whether the API answers yet."""
        try:
            return self._http.get("/whoami").status_code == httpx.codes.OK
        except httpx.TransportError:
            return False

    def _put(self, path: str, body: dict[str, Any]) -> None:
        self._call("PUT", path, body)

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> httpx.Response:
        answer = self._http.request(method, path, json=body)
        answer.raise_for_status()
        return answer

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._http.close()
