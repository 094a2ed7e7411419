"""What no request may have, whatever its route."""

import pytest
from http_api.domain.requests import unacceptable

HOST = (b"host", b"localhost:8470")


@pytest.mark.parametrize(
    ("path", "query", "headers"),
    [
        (b"/", b"", []),
        (b"/subscriptions/s/resourceGroups/g.h(1)", b"api-version=2024-11-01&$top=5", [HOST]),
        (b"/a%20b/%E6%97%A5/100%/..a/a..", b"$filter=name%20eq%20'a%2Fb'+and+x", [HOST]),
        (b"/x", b"", [(b"host", b"[::1]:80"), (b"content-length", b"5")]),
        (b"/x", b"", [(b"host", b"a-b_c.example"), (b"transfer-encoding", b"chunked")]),
        (b"/x", b"", [(b"host", b"")]),
    ],
)
def test_what_is_taken(path: bytes, query: bytes, headers: list[tuple[bytes, bytes]]) -> None:
    assert unacceptable("1.1", path, query, headers) is None
    assert unacceptable("1.0", path, query, headers) is None


@pytest.mark.parametrize(
    ("path", "query", "headers", "named"),
    [
        (b"/a%00", b"", [], "NUL"),
        (b"/a%0a", b"", [], "control"),
        (b"/a%7F", b"", [], "control"),
        (b"/%ff", b"", [], "path is not UTF-8"),
        (b"/%ed%a0%80", b"", [], "path is not UTF-8"),
        (b"/a%2Fb", b"", [], "encoded slash"),
        (b"/a%2fb", b"", [], "encoded slash"),
        (b"/a%5cb", b"", [], "encoded slash"),
        (b"/a/../b", b"", [], "'..'"),
        (b"/a/%2e%2E", b"", [], "'..'"),
        (b"/./a", b"", [], "'.'"),
        (b"/", b"a=%00", [], "query contains NUL"),
        (b"/", b"a=%ff", [], "query is not UTF-8"),
        (b"/", b"", [(b"host", b"[::1")], "Host"),
        (b"/", b"", [(b"host", b"a/b")], "Host"),
        (b"/", b"", [(b"host", b"a b")], "Host"),
        (b"/", b"", [(b"host", b"a:port")], "Host"),
        (b"/", b"", [(b"host", b"\xe9")], "Host"),
        (
            b"/",
            b"",
            [HOST, (b"content-length", b"0"), (b"transfer-encoding", b"chunked")],
            "not both",
        ),
    ],
)
def test_what_is_not(
    path: bytes, query: bytes, headers: list[tuple[bytes, bytes]], named: str
) -> None:
    failure = unacceptable("1.1", path, query, headers)
    assert failure is not None
    assert named in failure.message


@pytest.mark.parametrize("version", ["0.9", "2.0", "9.9"])
def test_versions_that_are_not_spoken(version: str) -> None:
    failure = unacceptable(version, b"/", b"", [HOST])
    assert failure is not None
    assert version in failure.message
