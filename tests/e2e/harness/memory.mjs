// workerd's memory, as the kernel counts it: Tollgate's isolate and all else of the runtime; and the wasm's own, where
// whatever Tollgate remembers lies.
import { readFileSync, readdirSync } from "node:fs";
import { basename } from "node:path";
import { inProject } from "../../../scripts/project.mjs";

const LOOK = `
const { Instance } = WebAssembly;
WebAssembly.Instance = function (module, imports) {
  const instance = new Instance(module, imports);
  globalThis.wasmBytes = () => instance.exports.memory.buffer.byteLength;
  return instance;
};
`;
const entryBefore = (entry) => `
import "./look.js";
import * as looked from "./${entry}";
export * from "./${entry}";
export default {
  fetch(request, env, context) {
    if (request.headers.has("x-how-much")) return new Response(String(globalThis.wasmBytes()));
    return looked.default.fetch(request, env, context);
  },
};
`;

// These modules, of which the first is the entry, with one before it that tells how much memory the wasm has.
export function withWasmLook(modules) {
  const module = (name, contents) => ({ type: "ESModule", path: inProject("dist", name), contents });
  return [module("look-entry.js", entryBefore(basename(modules[0].path))), module("look.js", LOOK), ...modules];
}

export async function wasmMegabytes(gateway) {
  const answer = await gateway.send("GET", "/", { headers: { "x-how-much": "1" } });
  return Number(answer.text()) / 1_000_000;
}

// In megabytes, of the only workerd that this process has started: "VmRSS" what it has now, "VmHWM" the most it had.
export function residentMegabytes(field = "VmRSS") {
  for (const pid of readdirSync("/proc").filter((name) => /^\d+$/.test(name))) {
    try {
      const status = readFileSync(`/proc/${pid}/status`, "utf8");
      const value = (name) => new RegExp(`^${name}:\\s+(\\S+)`, "m").exec(status)[1];
      if (value("PPid") === String(process.pid) && value("Name") === "workerd") return value(field) / 1_000;
    } catch {
      // It ended meanwhile.
    }
  }
  throw new Error("workerd is no child of this process");
}
