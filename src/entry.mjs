// The only hand-written JavaScript in the deployed code: workerd gives RPC and alarms
// to classes that extend DurableObject, which a class exported from Rust cannot.
import { DurableObject } from "cloudflare:workers";
import policy from "../policy.toml";
import Gateway, { AccountCore } from "../build/index.js";

// Rust reads it from here at first use, also after a trap has reset the wasm's memory.
globalThis.tollgatePolicy = policy;

export class Account extends DurableObject {
  constructor(ctx, env) {
    super(ctx, env);
    this.core = new AccountCore(ctx, env);
  }

  tell(message) {
    return this.core.tell(message);
  }

  alarm() {
    return this.core.alarm();
  }
}

export class Directory extends DurableObject {}

export class ImportedKeys extends DurableObject {}

export default Gateway;
