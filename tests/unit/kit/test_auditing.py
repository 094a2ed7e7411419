"""The auditor's account, as RabbitMQ's definitions describe it."""

import re

import pytest
from rollcall_contracts.events import EVENT_CLASSES, event_type
from rollcall_kit.auditing import auditor_bindings, auditor_definitions, password_hash


def _matches(binding: str, key: str) -> bool:
    """Say whether a topic binding takes a routing key; enough for bindings of the form `word.#`."""
    return re.fullmatch(re.escape(binding.removesuffix(".#")) + r"(\..+)?", key) is not None


@pytest.mark.parametrize("cls", EVENT_CLASSES, ids=lambda cls: cls.__name__)
def test_every_entry_of_the_log_reaches_the_auditor_and_no_report(cls: type) -> None:
    type_ = event_type(cls)
    for key in (type_, f"{type_}.host-1.example.com"):
        assert any(_matches(binding, key) for binding in auditor_bindings())
    assert not any(_matches(binding, f"report.{type_}") for binding in auditor_bindings())


def test_the_account_may_read_its_queue_and_nothing_else() -> None:
    definitions = auditor_definitions(password="p", salt=b"salt", vhost="rollcall")
    assert definitions["permissions"] == [
        {
            "user": "auditor",
            "vhost": "rollcall",
            "configure": "",
            "write": "",
            "read": "^auditor$",
        }
    ]
    assert definitions["users"][0]["tags"] == []


def test_the_password_is_hashed_as_rabbitmq_documents_it() -> None:
    # The example of RabbitMQ's "Passwords" guide: salt 908DC60A, password "test12".
    assert (
        password_hash("test12", bytes.fromhex("908DC60A"))
        == "kI3GCqW5JLMJa4iX1lo7X4D6XbYqlLgxIs30+P6tENUV2POR"
    )


def test_a_salt_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="4 bytes, not 2"):
        password_hash("p", b"ab")
