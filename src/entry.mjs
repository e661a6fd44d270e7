// The only hand-written JavaScript in the deployed code: the runtime gives RPC and alarms to classes
// that extend DurableObject, which a class exported from Rust cannot.
import { DurableObject } from "cloudflare:workers";
import policy from "../policy.toml";
import Gateway, { AccountCore, DirectoryCore, LookupCore } from "../build/index.js";

// Rust reads it from here at first use, also after a trap has begun the wasm anew.
globalThis.tollgatePolicy = policy;

const lent = (build) =>
  class extends DurableObject {
    #core = null;

    tell(message) {
      return this.#run((core) => core.tell(message));
    }

    // Set by accounts alone.
    alarm() {
      return this.#run((core) => core.alarm());
    }

    // A trap ends the wasm's memory, with the cores of all objects in this isolate. The call that trapped
    // fails; every other core is refused by the glue before it runs, and is built again from its storage.
    #run(work) {
      try {
        return work((this.#core ??= build(this.ctx, this.env)));
      } catch (error) {
        this.#core = null;
        if (error instanceof WebAssembly.RuntimeError) throw error;
        return work((this.#core = build(this.ctx, this.env)));
      }
    }
  };

export class Account extends lent((state, env) => new AccountCore(state, env)) {}

export class Directory extends lent((state) => new DirectoryCore(state)) {}

export class ImportedKeys extends lent((state) => new LookupCore(state)) {}

export default Gateway;

const mistake = Gateway.prototype.policyMistake();
if (mistake) throw new Error(mistake);
