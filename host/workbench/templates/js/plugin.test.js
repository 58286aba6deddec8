// Unit tests without a component and without a host: `npm test`.

import assert from 'node:assert/strict';
import { beforeEach, test } from 'node:test';

import { host } from './fake-host.js';

// After the fake host, which says what the plugin's imports are.
// {if step}
const { action, undo } = await import('./plugin.js');
// {end}
// {if undo-only}
const { undo } = await import('./plugin.js');
// {end}

const order = (seats) => JSON.stringify({ event: 'concert', seats });

beforeEach(() => host.reset());

// {if step}
test('books once', () => {
  const first = action.execute(host.call(), order(2));
  assert.equal(JSON.parse(first).seats, 2);
  assert.equal(action.execute(host.call({ attempt: 2 }), order(2)), first);
  assert.equal(host.state.size, 1);
});

test('refuses too many', () => {
  assert.throws(
    () => action.execute(host.call(), order(9)),
    (thrown) => thrown.tag === 'permanent' && thrown.val.code === 'too_many_seats',
  );
  assert.equal(host.state.size, 0);
});

// {end}
test('an undo succeeds when there is nothing to undo', () => {
  assert.deepEqual(undo.compensate(host.call(), order(2), undefined), { tag: 'nothing' });
  // {if step}
  const booked = action.execute(host.call(), order(2));
  // {end}
  // {if undo-only}
  const { sagaId, step } = host.call();
  const booking = `booking/${sagaId}/${step}`;
  const booked = JSON.stringify({ booking, seats: 2 });
  host.state.set(booking, booked);
  // {end}
  assert.equal(undo.compensate(host.call(), order(2), booked).tag, 'done');
  assert.equal(undo.compensate(host.call({ attempt: 2 }), order(2), booked).tag, 'nothing');
  assert.equal(host.state.size, 0);
});
