"""An emitter in Python: what a program in another language writes for the classic Redis adapter, with its own MessagePack.

Usage: emitter.py REDIS_URL ORDERS. ORDERS is a JSON array; each order is published in turn. Within `args`, {"$bytes": hex} is
bytes and {"$date": seconds} an instant. Written from wire.md 3.2 and 5; for tests.
"""
import datetime
import json
import sys

import msgpack
import redis

EVENT, JOIN, LEAVE, DISCONNECT, SERVER_SIDE_EMIT = 2, 2, 3, 4, 6


def value(pairs):
    if "$bytes" in pairs:
        return bytes.fromhex(pairs["$bytes"])
    if "$date" in pairs:
        return datetime.datetime.fromtimestamp(pairs["$date"], datetime.timezone.utc)
    return pairs


def message(order):
    """Returns channel and payload."""
    namespace = order.get("namespace", "/")
    # As Python has it: what is not given is nil.
    rooms, exclude = order.get("rooms"), order.get("except")
    requests = f"socket.io-request#{namespace}#"
    opts = {"rooms": rooms or [], "except": exclude or []}
    kind = order["kind"]
    if kind == "emit":
        packet = {"type": EVENT, "data": order["args"], "nsp": namespace}
        options = {"rooms": rooms, "flags": order.get("flags", {}), "except": exclude}
        # Node's servers iterate over the rooms, but nil is none to them, too.
        channel = f"socket.io#{namespace}#" + (f"{rooms[0]}#" if rooms and len(rooms) == 1 else "")
        return channel, msgpack.packb(["emitter", packet, options], datetime=True)
    if kind in ("join", "leave"):
        number = JOIN if kind == "join" else LEAVE
        return requests, json.dumps({"type": number, "opts": opts, "rooms": order["join"]})
    if kind == "disconnect":
        return requests, json.dumps({"type": DISCONNECT, "opts": opts, "close": order["close"]})
    return requests, json.dumps({"uid": "emitter", "type": SERVER_SIDE_EMIT, "data": order["args"]})


bus = redis.Redis.from_url(sys.argv[1])
for one in json.loads(sys.argv[2], object_hook=value):
    bus.publish(*message(one))
