"""Unit tests without a component and without a host: `python3 -m unittest`, after a build."""

import json
import unittest

from fake_host import host  # before the plugin

# {if step}
from componentize_py_types import Err
# {end}
from wit_world.exports.undo import Undone_Done, Undone_Nothing

# {if step}
from plugin import Action, Undo
# {end}
# {if undo-only}
from plugin import Undo, booking_of
# {end}


def order(seats):
    return json.dumps({"event": "concert", "seats": seats})


class Seats(unittest.TestCase):
    def setUp(self):
        host.reset()

    # {if step}
    def test_books_once(self):
        first = Action().execute(host.call(), order(2))
        self.assertEqual(json.loads(first)["seats"], 2)
        self.assertEqual(Action().execute(host.call(attempt=2), order(2)), first)
        self.assertEqual(len(host.state), 1)

    def test_refuses_too_many(self):
        with self.assertRaises(Err) as refused:
            Action().execute(host.call(), order(9))
        self.assertEqual(refused.exception.value.value.code, "too_many_seats")
        self.assertEqual(host.state, {})

    # {end}
    def test_an_undo_succeeds_when_there_is_nothing_to_undo(self):
        self.assertEqual(Undo().compensate(host.call(), order(2), None), Undone_Nothing())
        # {if step}
        booked = Action().execute(host.call(), order(2))
        # {end}
        # {if undo-only}
        booking = booking_of(host.call())
        booked = json.dumps({"booking": booking, "seats": 2})
        host.state[booking] = booked
        # {end}
        undone = Undo().compensate(host.call(), order(2), booked)
        self.assertIsInstance(undone, Undone_Done)
        again = Undo().compensate(host.call(attempt=2), order(2), booked)
        self.assertEqual(again, Undone_Nothing())
        self.assertEqual(host.state, {})
