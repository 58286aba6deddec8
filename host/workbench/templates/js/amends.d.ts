// The interfaces of `wit/saga.wit`, for an editor and for TypeScript. `jsconfig.json` turns the check on;
// `npx --package typescript tsc -p jsconfig.json` makes it on a command line.

/** What the host calls, and is answered with. Payloads are JSON texts. */
declare namespace Amends {
  /** A JSON text (RFC 8259). */
  type Json = string;

  /** Which way a call goes. */
  type Direction = 'execute' | 'compensate';

  /** Which call this is. */
  interface Call {
    /** The saga, a UUID. */
    sagaId: string;
    /** The name of the saga's definition. */
    definition: string;
    /** The name of the step, `shipment`; of a step that runs over a list, `shipment[3]`, counted from 0. */
    step: string;
    /** Counts from 1. */
    attempt: number;
    /** Hand this to every service that you call: it is the same on every attempt. */
    idempotencyKey: string;
    /** W3C trace context of this call. */
    traceparent?: string;
  }

  /** What went wrong, for people and for programs. */
  interface Error {
    /** `a-z`, `0-9` and `_`, at most 64 of them, the first one a letter: `out_of_stock`. */
    code: string;
    /** A sentence for the person on call. */
    message: string;
    /** How long to wait before the next attempt, in milliseconds. */
    retryAfterMs?: bigint;
    /** Anything else worth keeping. */
    details?: Json;
  }

  /**
   * Why a call has no result: `throw` one. With `permanent` no effect stands and another attempt would not
   * help, with `retryable` no effect stands and another may help, with `unknown` the effect may stand.
   * Whatever else is thrown is unknown, too.
   */
  type Failure =
    | { tag: 'permanent'; val: Error }
    | { tag: 'retryable'; val: Error }
    | { tag: 'unknown'; val: Error };

  /** What an undo did: undone, with a receipt if there is one to keep, or there was nothing to undo. */
  type Undone = { tag: 'done'; val?: Json } | { tag: 'nothing' };

  /** What is known about a call whose reply was lost. */
  type Fate = { tag: 'happened'; val: Json } | { tag: 'did-not-happen' } | { tag: 'unclear' };

  /** What the component says about itself. */
  interface Description {
    /** Lower case words joined by `-`. */
    name: string;
    /** SemVer 2.0.0. */
    version: string;
    /** One sentence. */
    summary: string;
    /** JSON Schema (2020-12) of the input of `execute`. */
    inputSchema: Json;
    /** JSON Schema (2020-12) of the output of `execute`. */
    outputSchema: Json;
    /** The service that it calls, if there is one: a name for breakers and limits. */
    service?: string;
    /** The capabilities that it cannot do without: `state`, `events`, `config`, `http`. */
    needs: string[];
  }

  /** `export const manifest` */
  interface Manifest {
    describe(): Description;
  }

  /** `export const action` */
  interface Action {
    /** Does the step, and answers its output. */
    execute(call: Call, input: Json): Json;
  }

  /** `export const undo` */
  interface Undo {
    /** Undoes the step. `output` is undefined when nobody knows whether the step happened. */
    compensate(call: Call, input: Json, output: Json | undefined): Undone;
  }

  /** `export const probe`, of the world `step-probe` */
  interface Probe {
    /** Finds out what became of a call whose reply was lost. */
    probe(call: Call, direction: Direction, input: Json): Fate;
  }
}

/** A keyed store of the plugin's own, committed with the call's outcome. */
declare module 'amends:saga/state@1.1.0' {
  function get(key: string): Amends.Json | undefined;
  function set(key: string, value: Amends.Json): void;
  /** True when it was there. Import it as `import { delete as remove }`. */
  function remove(key: string): boolean;
  /** Writes `next` when the present value is `expected`; true when it did. */
  function compareAndSwap(
    key: string,
    expected: Amends.Json | undefined,
    next: Amends.Json | undefined,
  ): boolean;
  /** `done`: the number changes when the call is recorded. Else nothing changes. */
  type Added = 'done' | 'too-small' | 'too-large' | 'absent';
  /**
   * Adds to a counter, a value that is a whole number, when the sum is in `min` to `max`. The call is
   * recorded as long as this has the same answer, whatever the number is by then.
   */
  function add(key: string, delta: bigint, min: bigint | undefined, max: bigint | undefined): Added;
  /** Keys that begin with `prefix`, in order, at most `limit`, after `after`. */
  function listKeys(prefix: string, after: string | undefined, limit: number): string[];
  export { add, compareAndSwap, remove as delete, get, listKeys, set };
}

/** Domain events of the plugin's own, committed with the call's outcome. */
declare module 'amends:saga/events@1.1.0' {
  /** Emits an event such as `order.prescription_created`. */
  export function emit(eventType: string, data: Amends.Json): void;
}

/** The plugin's settings and secrets, from the host's config. */
declare module 'amends:saga/config@1.1.0' {
  export function setting(name: string): Amends.Json | undefined;
  export function secret(name: string): string | undefined;
  /** Whether `state`, `events` or `http` is granted. */
  export function granted(capability: string): boolean;
}

/** Lines for the host's log. */
declare module 'amends:saga/log@1.1.0' {
  type Level = 'debug' | 'info' | 'warn' | 'error';
  export function write(level: Level, message: string, fields: [string, string][]): void;
}
