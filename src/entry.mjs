// The only hand-written JavaScript in the deployed code: the runtime gives RPC and alarms to classes
// that extend DurableObject, which a class exported from Rust cannot.
import { DurableObject } from "cloudflare:workers";
import policy from "../build/policy.cbor";
import { AccountCore, fetch, policyFault } from "../build/index.js";

// Rust reads it from here at first use, also after a trap has begun the wasm anew.
globalThis.tollgatePolicy = policy;

export class Account extends DurableObject {
  #core = null;

  tell(message) {
    return this.#run((core) => core.tell(message));
  }

  alarm() {
    this.#run((core) => core.alarm());
  }

  // A trap ends the wasm's memory, with the cores of all objects in this isolate. The call that trapped
  // fails; every other core is refused by the glue before it runs, and is built again from its storage.
  #run(work) {
    try {
      return work((this.#core ??= new AccountCore(this.ctx)));
    } catch (error) {
      this.#core = null;
      if (error instanceof WebAssembly.RuntimeError) throw error;
      return work((this.#core = new AccountCore(this.ctx)));
    }
  }
}

export class Directory extends DurableObject {}

export class ImportedKeys extends DurableObject {}

export default { fetch };

const fault = policyFault();
if (fault) throw new Error(fault);
