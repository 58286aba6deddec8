// {if step}
// Books seats. A step (`action.execute`) and its undo (`undo.compensate`).
// {end}
// {if undo-only}
// Cancels seats: the undo of a step that another plugin does. It works on that plugin's state.
// {end}
//
// The booking is in the plugin's state, under the saga and the step: what a call writes there is
// committed together with the fact that the call succeeded, or not at all.

// {if step}
import { get, set, delete as remove } from 'amends:saga/state@1.1.0';
// {end}
// {if undo-only}
import { delete as remove } from 'amends:saga/state@1.1.0';
// {end}
import { write } from 'amends:saga/log@1.1.0';

// {if step}
const SEATS_MAX = 8;

// {end}
const inputSchema = {
  type: 'object',
  required: ['event', 'seats'],
  properties: {
    event: { type: 'string', description: 'What the seats are for.' },
    seats: { type: 'integer', minimum: 1 },
  },
  // `amends plugin test` calls the step with these.
  examples: [
    { event: 'concert', seats: 2 },
    { event: 'matinee', seats: 1 },
  ],
};

const outputSchema = {
  type: 'object',
  required: ['booking', 'seats'],
  properties: { booking: { type: 'string' }, seats: { type: 'integer' } },
};

/**
 * The same for every attempt, and for the undo as for the step.
 *
 * @param {Amends.Call} call
 */
const bookingOf = (call) => `booking/${call.sagaId}/${call.step}`;

/** @type {Amends.Manifest} */
export const manifest = {
  describe: () => ({
    name: '{NAME}',
    version: '0.1.0',
    // {if step}
    summary: 'Books seats.',
    // {end}
    // {if undo-only}
    summary: 'Cancels seats.',
    // {end}
    inputSchema: JSON.stringify(inputSchema),
    outputSchema: JSON.stringify(outputSchema),
    service: undefined,
    needs: ['state'],
  }),
};

// {if step}
/** @type {Amends.Action} */
export const action = {
  execute(call, input) {
    const { event, seats } = JSON.parse(input);
    const booking = bookingOf(call);
    // Called again with the same idempotency key: the booking is there, and so is the answer.
    const booked = get(booking);
    if (booked !== undefined) {
      return booked;
    }
    if (seats > SEATS_MAX) {
      const message = `${seats} seats for ${event}, and one booking has at most ${SEATS_MAX}`;
      /** @type {Amends.Failure} No effect stands, and another attempt would not help. */
      const refused = { tag: 'permanent', val: { code: 'too_many_seats', message } };
      throw refused;
    }
    const output = JSON.stringify({ booking, seats });
    set(booking, output);
    write('info', 'booked', [['booking', booking]]);
    return output;
  },
};

// {end}
/** @type {Amends.Undo} */
export const undo = {
  // `output` is undefined when nobody knows whether the step happened: the state tells.
  compensate(call, input, output) {
    const booking = bookingOf(call);
    if (!remove(booking)) {
      return { tag: 'nothing' };
    }
    write('info', 'cancelled', [['booking', booking]]);
    return { tag: 'done', val: JSON.stringify({ cancelled: booking }) };
  },
};
