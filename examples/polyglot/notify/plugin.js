// Tells the customer that a parcel is on its way: puts a message into the outbox, or takes it out.

import { get, set, delete as remove } from 'amends:saga/state@1.1.0';

const inputSchema = {
  type: 'object',
  required: ['to', 'label', 'price_cents'],
  properties: {
    to: { type: 'string' },
    label: { type: 'string' },
    price_cents: { type: 'integer', minimum: 0 },
  },
  examples: [{ to: 'ada@example.com', label: '034012345000000019', price_cents: 990 }],
};

const outputSchema = {
  type: 'object',
  required: ['message', 'text'],
  properties: { message: { type: 'string' }, text: { type: 'string' } },
};

const messageOf = (call) => `outbox/${call.sagaId}/${call.step}`;

export const manifest = {
  describe: () => ({
    name: 'notify',
    version: '0.1.0',
    summary: 'Tells the customer that a parcel is on its way.',
    inputSchema: JSON.stringify(inputSchema),
    outputSchema: JSON.stringify(outputSchema),
    service: undefined,
    needs: ['state'],
  }),
};

export const action = {
  execute(call, input) {
    const message = messageOf(call);
    const written = get(message);
    if (written !== undefined) {
      return written;
    }
    const { to, label, price_cents: cents } = JSON.parse(input);
    if (!/^[^@\s]+@[^@\s]+$/.test(to)) {
      const failure = { code: 'no_address', message: `\`${to}\` is no address` };
      throw { tag: 'permanent', val: failure };
    }
    const text = `${to}: parcel ${label} is on its way, for ${(cents / 100).toFixed(2)}`;
    const output = JSON.stringify({ message, text });
    set(message, output);
    return output;
  },
};

export const undo = {
  compensate(call) {
    const message = messageOf(call);
    if (!remove(message)) {
      return { tag: 'nothing' };
    }
    return { tag: 'done', val: JSON.stringify({ recalled: message }) };
  },
};
