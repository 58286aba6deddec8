"""A host for unit tests: what a plugin imports as `wit_world.imports`, in memory.

Import it before `plugin`. It is not part of the component.
"""

import importlib
import json
import sys
from pathlib import Path

BINDINGS = Path(__file__).parent / "bindings"
if not BINDINGS.is_dir():
    raise ImportError(f"there is no {BINDINGS}: `amends plugin build` makes it")
sys.path.insert(0, str(BINDINGS))

from wit_world.imports.types import Call  # noqa: E402


class Host:
    """What a plugin has written, and what it finds. `reset` before each test."""

    def __init__(self):
        self.reset()

    def reset(self):
        self.state = {}  # keys and JSON texts
        self.events = []  # (type, data)
        self.lines = []  # (level, message, fields)
        self.settings = {}  # each value is made a JSON text
        self.secrets = {}
        self.granted = {"state", "events"}

    def call(self, **otherwise) -> Call:
        """A call as the host makes it, with what a test wants otherwise."""
        made = {
            "saga_id": "01890000-0000-7000-8000-000000000001",
            "definition": "evening",
            "step": "seats",
            "attempt": 1,
            "idempotency_key": "k",
            "traceparent": None,
        }
        return Call(**{**made, **otherwise})


host = Host()


def _json(text):
    """The host takes nothing but JSON."""
    json.loads(text)
    return text


def _compare_and_swap(key, expected, new):
    if host.state.get(key) != expected:
        return False
    if new is None:
        host.state.pop(key, None)
    else:
        host.state[key] = _json(new)
    return True


def _add(key, delta, minimum, maximum):
    from wit_world.imports.state import Added

    if key not in host.state:
        return Added.ABSENT
    most = 2**53 - 1
    total = int(host.state[key]) + delta
    if total < max(-most, -most if minimum is None else minimum):
        return Added.TOO_SMALL
    if total > min(most, most if maximum is None else maximum):
        return Added.TOO_LARGE
    host.state[key] = str(total)
    return Added.DONE


def _list_keys(prefix, after, limit):
    keys = (key for key in host.state if key.startswith(prefix) and (after is None or key > after))
    return sorted(keys)[:limit]


def _setting(name):
    return json.dumps(host.settings[name]) if name in host.settings else None


IMPORTS = {
    "state": {
        "get": lambda key: host.state.get(key),
        "set": lambda key, value: host.state.update({key: _json(value)}),
        "delete": lambda key: host.state.pop(key, None) is not None,
        "compare_and_swap": _compare_and_swap,
        "add": _add,
        "list_keys": _list_keys,
    },
    "events": {"emit": lambda event_type, data: host.events.append((event_type, _json(data)))},
    "config": {
        "setting": _setting,
        "secret": lambda name: host.secrets.get(name),
        "granted": lambda capability: capability in host.granted,
    },
    "log": {"write": lambda level, message, fields: host.lines.append((level, message, fields))},
}

for _interface, _calls in IMPORTS.items():
    # The bindings have what `wit/world.wit` imports.
    if (BINDINGS / "wit_world" / "imports" / f"{_interface}.py").is_file():
        vars(importlib.import_module(f"wit_world.imports.{_interface}")).update(_calls)
