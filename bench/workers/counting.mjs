// Stands in place of the bundle's entry and counts what is billed: messages to objects, rows, alarms. Also
// tells how large the wasm's memory is. Never on while something is timed.
import "./spy.js";
import gateway, { Account as Deployed } from "./entry.js";

export { Directory, ImportedKeys } from "./entry.js";

const none = { messages: 0, statements: 0, rowsWritten: 0, rowsRead: 0, alarmsSet: 0, alarms: 0 };
let counts = { ...none };

export class Account extends Deployed {
  #cursors = [];

  constructor(context, env) {
    const { storage } = context;
    const { sql } = storage;
    const [exec, setAlarm] = [sql.exec.bind(sql), storage.setAlarm.bind(storage)];
    Object.defineProperty(sql, "exec", {
      value: (...statement) => {
        const cursor = exec(...statement);
        this.#cursors.push(cursor);
        return cursor;
      },
    });
    Object.defineProperty(storage, "setAlarm", {
      value: (at) => {
        counts.alarmsSet += 1;
        return setAlarm(at);
      },
    });
    super(context, env);
  }

  tell(message) {
    counts.messages += 1;
    try {
      return super.tell(message);
    } finally {
      this.#count();
    }
  }

  alarm() {
    counts.alarms += 1;
    super.alarm();
    this.#count();
  }

  #count() {
    for (const { rowsWritten, rowsRead } of this.#cursors.splice(0)) {
      counts.statements += 1;
      counts.rowsWritten += rowsWritten;
      counts.rowsRead += rowsRead;
    }
  }
}

export default {
  fetch(request, env, context) {
    if (!request.url.endsWith("/_bench/counts")) return gateway.fetch(request, env, context);
    const told = { ...counts, wasmBytes: globalThis.benchMemory.buffer.byteLength };
    counts = { ...none };
    return Response.json(told);
  },
};
