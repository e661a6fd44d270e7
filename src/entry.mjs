// The only hand-written JavaScript in the deployed code: workerd gives RPC and alarms
// to classes that extend DurableObject, which a class exported from Rust cannot.
import { DurableObject } from "cloudflare:workers";
import policy from "../policy.toml";
import Gateway, { AccountCore } from "../build/index.js";

// Rust reads it from here at first use, also after a trap has reset the wasm's memory.
globalThis.tollgatePolicy = policy;

// A trap ends the wasm's memory with every call in it, and none of their promises would ever settle: callers
// of the object would hang. They are told instead; the next call finds the wasm started anew.
const underWay = new Set();
addEventListener("error", ({ error }) => {
  if (!(error instanceof WebAssembly.RuntimeError)) return;
  for (const reject of underWay) reject(new Error("the account's object was interrupted"));
});

async function orInterrupted(begin) {
  const { promise, reject } = Promise.withResolvers();
  underWay.add(reject);
  try {
    return await Promise.race([begin(), promise]);
  } finally {
    underWay.delete(reject);
  }
}

export class Account extends DurableObject {
  constructor(ctx, env) {
    super(ctx, env);
    this.core = new AccountCore(ctx, env);
  }

  tell(message) {
    return orInterrupted(() => this.core.tell(message));
  }

  alarm() {
    return orInterrupted(() => this.core.alarm());
  }
}

export class Directory extends DurableObject {}

export class ImportedKeys extends DurableObject {}

export default Gateway;
