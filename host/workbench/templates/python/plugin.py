# {if step}
"""Books seats. A step (`Action.execute`) and its undo (`Undo.compensate`).
# {end}
# {if undo-only}
"""Cancels seats: the undo of a step that another plugin does. It works on that plugin's state.
# {end}

The booking is in the plugin's state, under the saga and the step: what a call writes there is
committed together with the fact that the call succeeded, or not at all.
"""

import json
from typing import Optional

# {if step}
from componentize_py_types import Err
# {end}
from wit_world import exports
from wit_world.exports.manifest import Description
from wit_world.exports.undo import Undone, Undone_Done, Undone_Nothing
from wit_world.imports import log, state
# {if step}
from wit_world.imports.types import Call, Error, Failure_Permanent

SEATS_MAX = 8
# {end}
# {if undo-only}
from wit_world.imports.types import Call
# {end}

INPUT_SCHEMA = {
    "type": "object",
    "required": ["event", "seats"],
    "properties": {
        "event": {"type": "string", "description": "What the seats are for."},
        "seats": {"type": "integer", "minimum": 1},
    },
    # `amends plugin test` calls the step with these.
    "examples": [
        {"event": "concert", "seats": 2},
        {"event": "matinee", "seats": 1},
    ],
}

OUTPUT_SCHEMA = {
    "type": "object",
    "required": ["booking", "seats"],
    "properties": {"booking": {"type": "string"}, "seats": {"type": "integer"}},
}


def booking_of(call: Call) -> str:
    """The same for every attempt, and for the undo as for the step."""
    return f"booking/{call.saga_id}/{call.step}"


class Manifest(exports.Manifest):
    def describe(self) -> Description:
        return Description(
            name="{NAME}",
            version="0.1.0",
            # {if step}
            summary="Books seats.",
            # {end}
            # {if undo-only}
            summary="Cancels seats.",
            # {end}
            input_schema=json.dumps(INPUT_SCHEMA),
            output_schema=json.dumps(OUTPUT_SCHEMA),
            service=None,
            needs=["state"],
        )


# {if step}
class Action(exports.Action):
    def execute(self, call: Call, input: str) -> str:
        order = json.loads(input)
        booking = booking_of(call)
        # Called again with the same idempotency key: the booking is there, and so is the answer.
        booked = state.get(booking)
        if booked is not None:
            return booked
        seats = order["seats"]
        if seats > SEATS_MAX:
            message = f"{seats} seats for {order['event']}, and one booking has at most {SEATS_MAX}"
            # No effect stands, and another attempt would not help.
            raise Err(Failure_Permanent(Error("too_many_seats", message, None, None)))
        output = json.dumps({"booking": booking, "seats": seats})
        state.set(booking, output)
        log.write(log.Level.INFO, "booked", [("booking", booking)])
        return output


# {end}
class Undo(exports.Undo):
    def compensate(self, call: Call, input: str, output: Optional[str]) -> Undone:
        """`output` is none when nobody knows whether the step happened: the state tells."""
        booking = booking_of(call)
        if not state.delete(booking):
            return Undone_Nothing()
        log.write(log.Level.INFO, "cancelled", [("booking", booking)])
        return Undone_Done(json.dumps({"cancelled": booking}))
