"""On which host a new instance is made: the one with the fewest of the set, and room."""

from collections import Counter

from rollcall_rollout.fleet import Fleet


def hosts_with_room(fleet: Fleet) -> dict[str, int | None]:
    """Return the hosts that can take one more, with how many they can take; None: no limit."""
    return {host: fleet.room.get(host) for host in fleet.hosts if fleet.room.get(host, 1) > 0}


def room_for(fleet: Fleet, count: int) -> bool:
    """Say whether so many new instances have room."""
    rooms = hosts_with_room(fleet)
    return bool(rooms) and (
        any(room is None for room in rooms.values())
        or sum(room or 0 for room in rooms.values()) >= count
    )


def place(fleet: Fleet, count: int) -> list[tuple[str, str]]:
    """Return host and id of new instances, as many as have room."""
    rooms = hosts_with_room(fleet)
    load = Counter({host: 0 for host in rooms})
    load.update(i.host for i in fleet.instances.values() if i.host in load)
    placed: list[tuple[str, str]] = []
    for number in range(fleet.next_id, fleet.next_id + count):
        if not load:
            break
        host = min(load, key=lambda name: (load[name], name))
        placed.append((host, str(number)))
        load[host] += 1
        room = rooms[host]
        if room is not None:
            rooms[host] = room - 1
            if room == 1:
                del load[host]
    return placed
