# Made by `amends plugin build` and not part of the project: it stands between the host and `plugin.py`.
#
# A component is CPython as it was when it was built, with its modules imported. So `random` had its seed
# then, and would give the same numbers in every call.

import random
import sys

import plugin

# Otherwise the last lines would be lost with the instance.
sys.stdout.reconfigure(line_buffering=True)

_is_seeded = False


def _entry(interface, method):
    served = getattr(plugin, interface)

    def call(self, *arguments):
        global _is_seeded
        if not _is_seeded:
            random.seed()
            _is_seeded = True
        return getattr(served, method)(self, *arguments)

    return type(interface, (served,), {method: call})


for _interface, _method in {
    "Manifest": "describe",
    "Action": "execute",
    "Undo": "compensate",
    "Probe": "probe",
}.items():
    if hasattr(plugin, _interface):
        globals()[_interface] = _entry(_interface, _method)
