// The only hand-written JavaScript in the deployed code: the runtime gives RPC and alarms to classes
// that extend DurableObject, which a class exported from Rust cannot, and some things cost less on this side.
import { DurableObject } from "cloudflare:workers";
import policy from "../build/policy.cbor";
import openApi from "../build/openapi.json";
import { AccountCore, DirectoryCore, LookupCore, fetch, policyFault, wake } from "../build/index.js";

// Rust reads them from here at first use, also after a trap has begun the wasm anew.
globalThis.tollgatePolicy = policy;
globalThis.tollgateOpenApi = openApi;

// Rust's futures go on by way of this, several times in each call, and workerd's own costs more.
globalThis.queueMicrotask = (callback) => void Promise.resolve().then(callback);

// What crosses between JavaScript and Rust in one piece: every crossing costs, and every text that crosses is
// copied (see edge/crossing.rs and edge/promise.rs).
globalThis.tollgate = {
  linesOf({ method, url, headers }) {
    let lines = `${method}\n${url}`;
    for (const [name, value] of headers) lines += `\n${name}\n${value}`;
    return lines;
  },
  change,
  forward(fetcher, target, request, lines, read, init) {
    const { method, body } = request;
    const headers = new Headers(request.headers);
    change(headers, lines);
    // A Worker that is bound is told what Cloudflare knows of the client, as if it had been called itself.
    if (fetcher !== globalThis) init = { ...init, cf: request.cf };
    // `fetch` takes no body with these, but a request that is derived from one that has it.
    const isBodyOdd = body !== null && (method === "GET" || method === "HEAD");
    if (isBodyOdd && read === undefined) return fetcher.fetch(new Request(target, request), { ...init, headers });
    return fetcher.fetch(target, { ...init, method, headers, body: read ?? body });
  },
  answer(status, lines, body) {
    const response = new Response(body, { status });
    change(response.headers, lines);
    return response;
  },
  // Built from the body and the answer itself, so that a compressed body keeps its bytes.
  copyOf: (fromOrigin, carried) => new Response(carried ?? fromOrigin.body, fromOrigin),
  decidingOf({ headers }) {
    const value = (name) => headers.get(name) ?? "";
    return `${value("Access-Control-Allow-Origin")}\n${value("Access-Control-Expose-Headers")}\n${value("Location")}`;
  },
  watch(promise, key) {
    promise.then((value) => wake(key, true, value), (error) => wake(key, false, error));
  },
  after: (millis, key) => setTimeout(() => wake(key, true, undefined), millis),
  // Not at once: no wasm may be running when an object is ended, and its answer should be out.
  storageFailed: (storage) => setTimeout(() => stateOf.get(storage)?.abort("its storage failed"), 0),
};

function change(headers, lines) {
  const parts = lines.split("\n");
  for (let at = 0; at < parts.length - 1; at += 2) {
    if (parts[at + 1] === "") headers.delete(parts[at]);
    else headers.set(parts[at], parts[at + 1]);
  }
}

const stateOf = new WeakMap();

const lent = (build) =>
  class extends DurableObject {
    #core = null;

    constructor(state, env) {
      super(state, env);
      stateOf.set(state.storage, state);
    }

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

export default { fetch };

const fault = policyFault();
if (fault) throw new Error(fault);
