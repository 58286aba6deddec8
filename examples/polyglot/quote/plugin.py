"""Quotes what it costs to send a parcel, and holds the price until it is released."""

import json
from typing import Optional

from componentize_py_types import Err
from wit_world import exports
from wit_world.exports.manifest import Description
from wit_world.exports.undo import Undone, Undone_Done, Undone_Nothing
from wit_world.imports import state
from wit_world.imports.types import Call, Error, Failure_Permanent

# Cents by zone: for the first 500 g, and for each 500 g after that.
TARIFF = {"home": (390, 80), "near": (690, 150), "far": (1490, 420)}

STEP_G = 500

INPUT_SCHEMA = {
    "type": "object",
    "required": ["zone", "weight_g"],
    "properties": {
        "zone": {"type": "string", "description": "home, near or far"},
        "weight_g": {"type": "integer", "minimum": 1},
    },
    "examples": [{"zone": "near", "weight_g": 1200}],
}

OUTPUT_SCHEMA = {
    "type": "object",
    "required": ["quote", "price_cents"],
    "properties": {"quote": {"type": "string"}, "price_cents": {"type": "integer"}},
}


def quote_of(call: Call) -> str:
    return f"quote/{call.saga_id}/{call.step}"


class Manifest(exports.Manifest):
    def describe(self) -> Description:
        return Description(
            name="quote",
            version="0.1.0",
            summary="Quotes what it costs to send a parcel.",
            input_schema=json.dumps(INPUT_SCHEMA),
            output_schema=json.dumps(OUTPUT_SCHEMA),
            service=None,
            needs=["state"],
        )


class Action(exports.Action):
    def execute(self, call: Call, input: str) -> str:
        quote = quote_of(call)
        held = state.get(quote)
        if held is not None:
            return held
        parcel = json.loads(input)
        if parcel["zone"] not in TARIFF:
            message = f"there is no tariff for the zone {parcel['zone']}"
            raise Err(Failure_Permanent(Error("no_tariff", message, None, None)))
        first, each = TARIFF[parcel["zone"]]
        more = max(0, -(-(int(parcel["weight_g"]) - STEP_G) // STEP_G))
        output = json.dumps({"quote": quote, "price_cents": first + more * each})
        state.set(quote, output)
        return output


class Undo(exports.Undo):
    def compensate(self, call: Call, input: str, output: Optional[str]) -> Undone:
        quote = quote_of(call)
        if not state.delete(quote):
            return Undone_Nothing()
        return Undone_Done(json.dumps({"released": quote}))
