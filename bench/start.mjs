// What an isolate needs before its first answer: the wasm compiled and instantiated, the policy read.
import { execFileSync } from "node:child_process";
import { once } from "node:events";
import { readFileSync, writeFileSync } from "node:fs";
import net from "node:net";
import { join } from "node:path";
import { inProject } from "../scripts/project.mjs";
import { median } from "./rounds.mjs";
import { folder, startWorker, tollgate, worker } from "./servers.mjs";
import { digits } from "./table.mjs";

const ROUNDS = 9;
const REQUEST = "GET /nowhere HTTP/1.1\r\nhost: api.example.com\r\n\r\n";

// Milliseconds from the first request to its answer: workerd makes the isolate with the process, so the
// process's start is part of it, and the bare Worker's is taken off.
async function startMillis(what, origin) {
  const started = performance.now();
  const server = await startWorker(what, { origin, state: folder("tmpfs") });
  const socket = net.connect(server.port, "127.0.0.1");
  socket.write(REQUEST);
  await once(socket, "data");
  const millis = performance.now() - started;
  socket.destroy();
  await server.stop();
  return millis;
}

// The bundle in Node.js, whose V8 does the same: inside workerd no clock runs before the first request.
// What the platform gives is left out, and the wasm is compiled before.
const TIMED = `
import { readFileSync, readdirSync } from "node:fs";
const dist = ${JSON.stringify(inProject("dist"))} + "/";
const named = (end) => readFileSync(dist + readdirSync(dist).find((name) => end.test(name)));
const policy = named(/-policy\\.cbor$/);
globalThis.benchDescription = named(/-openapi\\.json$/).toString();
globalThis.addEventListener = () => {};
const before = performance.now();
globalThis.benchWasm = new WebAssembly.Module(named(/\\.wasm$/));
globalThis.benchPolicy = new Uint8Array(policy).buffer;
const started = performance.now();
await import("./bundle.mjs");
console.log(JSON.stringify({ compile: started - before, start: performance.now() - started }));
`;

function startInNode() {
  const home = folder("tmpfs");
  const bundle = readFileSync(inProject("dist", "entry.js"), "utf8")
    .replace(/import\s*\{([^}]*)\}\s*from\s*"cloudflare:workers";/g, (_, names) => {
      return `const {${names.replace(/ as /g, ": ")}} = { WorkerEntrypoint: class {}, DurableObject: class {} };`;
    })
    .replace(/import ([\w$]+) from\s*"[^"]*\.wasm";/g, "const $1 = benchWasm;")
    .replace(/import ([\w$]+) from\s*"[^"]*-policy\.cbor";/g, "const $1 = benchPolicy;")
    .replace(/import ([\w$]+) from\s*"[^"]*-openapi\.json";/g, "const $1 = benchDescription;");
  writeFileSync(join(home, "bundle.mjs"), bundle);
  writeFileSync(join(home, "timed.mjs"), TIMED);
  return Array.from({ length: ROUNDS }, () => JSON.parse(execFileSync(process.execPath, [join(home, "timed.mjs")])));
}

export async function startTime(origin) {
  const millis = { bare: [], gateway: [] };
  const bare = worker("refuser");
  const gateway = tollgate();
  for (let round = 0; round < ROUNDS; round++) {
    millis.bare.push(await startMillis(bare, origin));
    millis.gateway.push(await startMillis(gateway, origin));
  }
  const more = median(millis.gateway.map((gateway, round) => gateway - millis.bare[round]));
  const inNode = startInNode();
  const of = (what) => digits(median(inNode.map((told) => told[what])), 1);
  console.log(`\nIsolate start: to instantiate the wasm and read the policy ${of("start")} ms, after ${of("compile")} ms to compile it (in Node.js).`);
  console.log(
    `workerd answers its first request after ${digits(median(millis.gateway))} ms with Tollgate and ` +
      `${digits(median(millis.bare))} ms with a bare Worker; ${digits(more, 1)} ms more, in the median of ${ROUNDS} starts.\n` +
      "That is to read, compile and instantiate the wasm, to read the policy and the secrets, and to answer.",
  );
}
