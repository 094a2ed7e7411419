"""The messages as others read them: a JSON Schema for each, and one AsyncAPI document over all.

Both are made from the event classes and checked in under docs/events; `make golden` writes them.
"""

from typing import Any

from rollcall_contracts.events import (
    EVENT_CLASSES,
    AgentSeen,
    EventBase,
    HostRequest,
    ImageFetched,
    ImageFetchFailed,
    ImageFetchRequested,
    InstanceReport,
    MetricQueried,
    event_type,
)

EXCHANGE = "rollcall.events"  # where rollcall_kit.broker publishes; a test compares the two

# Agents and probers publish these under `report.<type>`.
REPORTS = tuple(
    cls
    for cls in EVENT_CLASSES
    if issubclass(cls, InstanceReport)
    or cls in (AgentSeen, ImageFetched, ImageFetchFailed, MetricQueried)
)
# These are written to the event log, and published under their own type. A heartbeat is not.
ENTRIES = tuple(cls for cls in EVENT_CLASSES if cls is not AgentSeen)

_ATTRIBUTES = {
    "specversion": "The CloudEvents version: `1.0`.",
    "id": "A UUID; with `source` it identifies the event.",
    "source": "The service that published it.",
    "type": "The type, with its version.",
    "subject": "What the event is about: a scale set, an instance, an image or a feed.",
    "time": "When it was decided or seen: ISO 8601, UTC.",
}
_LOG_ATTRIBUTES = {
    "stream": "The chain that the entry is in: a scale set's id in lower case, or `images`.",
    "sequence": "The entry's number in its stream: 1, 2, 3 … without gaps.",
    "previoushash": "The hash of the stream's entry before; 64 zeros for the first.",
    "hash": "SHA-256 over this entry and the hash before.",
}
_OPTIONAL_ATTRIBUTES = {
    "correlationid": "The upgrade that the event belongs to, where there is one."
}


def schema_name(cls: type[EventBase]) -> str:
    """Return the file's name of an event's schema."""
    return f"{event_type(cls)}.json"


def event_schema(cls: type[EventBase]) -> dict[str, Any]:
    """Return the JSON Schema of one event's body.

    Readers must ignore properties that they do not know: new optional ones may come in a version.
    """
    schema = cls.model_json_schema(mode="serialization")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:rollcall:event:{event_type(cls)}",
        **schema,
        # It has a default in Python; on the wire it is always there, and says what the rest means.
        "required": ["type", *schema.get("required", [])],
    }


def asyncapi() -> dict[str, Any]:
    """Return the AsyncAPI 3.0 document: each routing key, and what is published under it."""
    routes = [
        *(_route(cls, report=False) for cls in ENTRIES),
        *(_route(cls, report=True) for cls in REPORTS),
    ]
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Rollcall events",
            "version": "1.0.0",
            "description": (
                "All messages are CloudEvents 1.0 in AMQP's binary mode on the topic exchange"
                f" `{EXCHANGE}`: the body is the event, its attributes are `cloudEvents:` headers."
                " Entries of the event log are published under their type; requests to agents"
                " have the host's name behind it. Agents and probers report under `report.<type>`,"
                " which only the orchestrator reads."
            ),
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "channels": {name: channel for name, channel, _ in routes},
        "operations": {f"send-{name}": operation for name, _, operation in routes},
        "components": {
            "messages": {
                **{event_type(cls): _message(cls, "entry") for cls in ENTRIES},
                **{f"report.{event_type(cls)}": _message(cls, "report") for cls in REPORTS},
            },
            "messageTraits": {
                "entry": {"headers": _headers({**_ATTRIBUTES, **_LOG_ATTRIBUTES})},
                "report": {"headers": _headers(_ATTRIBUTES)},
            },
        },
    }


def _route(cls: type[EventBase], *, report: bool) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """Return a channel's name, the channel, and the operation that sends to it."""
    type_ = event_type(cls)
    name = f"report.{type_}" if report else type_
    to_host = not report and issubclass(cls, HostRequest | ImageFetchRequested)
    channel: dict[str, Any] = {
        "address": f"{name}.{{host}}" if to_host else name,
        "messages": {"event": {"$ref": f"#/components/messages/{name}"}},
        "bindings": {
            "amqp": {
                "is": "routingKey",
                "exchange": {
                    "name": EXCHANGE,
                    "type": "topic",
                    "durable": True,
                    "autoDelete": False,
                },
            }
        },
    }
    if to_host:
        channel["parameters"] = {"host": {"description": "The host whose agent is asked."}}
    operation = {
        "action": "send",
        "channel": {"$ref": f"#/channels/{name}"},
        "summary": _summary(cls),
        "messages": [{"$ref": f"#/channels/{name}/messages/event"}],
    }
    return name, channel, operation


def _message(cls: type[EventBase], kind: str) -> dict[str, Any]:
    return {
        "name": event_type(cls),
        "title": cls.__name__,
        "summary": _summary(cls),
        "contentType": "application/json",
        "traits": [{"$ref": f"#/components/messageTraits/{kind}"}],
        "payload": {"$ref": f"./schemas/{schema_name(cls)}"},
    }


def _headers(required: dict[str, str]) -> dict[str, Any]:
    described = {**required, **_OPTIONAL_ATTRIBUTES}
    return {
        "type": "object",
        "properties": {
            f"cloudEvents:{name}": {"type": "string", "description": text}
            for name, text in described.items()
        },
        "required": [f"cloudEvents:{name}" for name in required],
    }


def _summary(cls: type[EventBase]) -> str:
    return (cls.__doc__ or "").partition("\n\n")[0].strip()
