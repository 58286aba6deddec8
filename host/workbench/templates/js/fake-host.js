// A host for unit tests: what a plugin imports as `amends:saga/…`, in memory. It is not part of the component.

import { register } from 'node:module';

/** What a plugin has written, and what it finds. `reset` before each test. */
export const host = {
  /** The plugin's state: keys and JSON texts. */
  state: new Map(),
  /** The domain events that it emitted: `{ type, data }`. */
  events: [],
  /** The lines that it logged: `{ level, message, fields }`. */
  lines: [],
  /** Its settings; each value is made a JSON text. */
  settings: {},
  /** Its secrets. */
  secrets: {},
  /** The capabilities that are granted. */
  granted: new Set(['state', 'events']),

  reset() {
    this.state.clear();
    this.events.length = 0;
    this.lines.length = 0;
    this.settings = {};
    this.secrets = {};
    this.granted = new Set(['state', 'events']);
  },

  /** A call as the host makes it, with what a test wants otherwise. */
  call: (otherwise = {}) => ({
    sagaId: '01890000-0000-7000-8000-000000000001',
    definition: 'evening',
    step: 'seats',
    attempt: 1,
    idempotencyKey: 'k',
    ...otherwise,
  }),
};

// The host takes nothing but JSON.
const json = (text) => {
  JSON.parse(text);
  return text;
};

// The largest number of a counter.
const COUNTER_MAX = BigInt(Number.MAX_SAFE_INTEGER);

/** What the plugin imports: the interfaces of `wit/saga.wit`. */
export const imports = {
  state: {
    get: (key) => host.state.get(key),
    set: (key, value) => void host.state.set(key, json(value)),
    delete: (key) => host.state.delete(key),
    compareAndSwap: (key, expected, next) => {
      if (host.state.get(key) !== expected) return false;
      if (next === undefined) host.state.delete(key);
      else host.state.set(key, json(next));
      return true;
    },
    add: (key, delta, min = -COUNTER_MAX, max = COUNTER_MAX) => {
      if (!host.state.has(key)) return 'absent';
      const sum = BigInt(host.state.get(key)) + delta;
      if (sum < min || sum < -COUNTER_MAX) return 'too-small';
      if (sum > max || sum > COUNTER_MAX) return 'too-large';
      host.state.set(key, `${sum}`);
      return 'done';
    },
    listKeys: (prefix, after, limit) =>
      [...host.state.keys()]
        .filter((key) => key.startsWith(prefix) && (after === undefined || key > after))
        .sort()
        .slice(0, limit),
  },
  events: { emit: (type, data) => void host.events.push({ type, data: json(data) }) },
  config: {
    setting: (name) => (name in host.settings ? JSON.stringify(host.settings[name]) : undefined),
    secret: (name) => host.secrets[name],
    granted: (capability) => host.granted.has(capability),
  },
  log: { write: (level, message, fields) => void host.lines.push({ level, message, fields }) },
};

// Node.js asks these hooks what an import of `amends:saga/state@1.1.0` is: a module of the names above.
const names = Object.fromEntries(Object.entries(imports).map(([of, calls]) => [of, Object.keys(calls)]));
const hooks = `
  const names = ${JSON.stringify(names)};
  export const resolve = (specifier, context, next) => {
    const of = specifier.match(/^amends:saga\\/([a-z]+)@/)?.[1];
    return of in names ? { url: 'amends:' + of, shortCircuit: true } : next(specifier, context);
  };
  export const load = (url, context, next) => {
    const of = url.startsWith('amends:') && url.slice('amends:'.length);
    if (!of) return next(url, context);
    const lines = names[of].map(
      (name, at) => \`const f\${at} = imports.\${of}.\${name}; export { f\${at} as \${name} };\`,
    );
    const source = ["import { imports } from '${import.meta.url}';", ...lines].join(' ');
    return { format: 'module', source, shortCircuit: true };
  };
`;
register(`data:text/javascript,${encodeURIComponent(hooks)}`);
