// Stands in place of the bundle's entry and counts what is billed: messages to objects, rows, alarms. Also
// tells how large the wasm's memory is. Never on while something is timed.
import "./spy.js";
import gateway, * as deployed from "./entry.js";

const none = { messages: 0, statements: 0, rowsWritten: 0, rowsRead: 0, alarmsSet: 0, alarms: 0 };
let counts = { ...none };

const counted = (Deployed) =>
  class extends Deployed {
    constructor(context, env) {
      const { storage } = context;
      const { sql } = storage;
      const [exec, setAlarm] = [sql.exec.bind(sql), storage.setAlarm.bind(storage)];
      Object.defineProperty(sql, "exec", {
        value: (...statement) => {
          const cursor = exec(...statement);
          // When this turn is over all its rows are read, and what is done in the background is counted when it is done.
          Promise.resolve(cursor).then(count);
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
      return super.tell(message);
    }

    alarm() {
      counts.alarms += 1;
      return super.alarm();
    }
  };

function count({ rowsWritten, rowsRead }) {
  counts.statements += 1;
  counts.rowsWritten += rowsWritten;
  counts.rowsRead += rowsRead;
}

export class Account extends counted(deployed.Account) {}

export class Directory extends counted(deployed.Directory) {}

export class ImportedKeys extends counted(deployed.ImportedKeys) {}

export default {
  fetch(request, env, context) {
    if (!request.url.endsWith("/_bench/counts")) return gateway.fetch(request, env, context);
    const told = { ...counts, wasmBytes: globalThis.benchMemory.buffer.byteLength };
    counts = { ...none };
    return Response.json(told);
  },
};
