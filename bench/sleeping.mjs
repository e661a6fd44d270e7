// Many accounts asleep on disk, a thousand of them awake: what one that is awake takes of memory, and what it
// costs to wake one.
import { createHmac } from "node:crypto";
import { copyFileSync, linkSync, readFileSync, writeFileSync } from "node:fs";
import { DatabaseSync } from "node:sqlite";
import { setTimeout as pause } from "node:timers/promises";
import { openAccount } from "./accounts.mjs";
import { startCounting } from "./counts.mjs";
import { databaseOf } from "./objects.mjs";
import { median } from "./rounds.mjs";
import { folder, secrets, startWorker, tollgate } from "./servers.mjs";
import { digits, table } from "./table.mjs";

const ASLEEP = 100_000;
const AWAKE = 1_000;
// A file has so many names at most (65,000 on ext4).
const NAMES_PER_FILE = 50_000;

const nameOf = (index) => `sleeper-${String(index).padStart(6, "0")}`;

export async function sleeping(origin) {
  const state = folder("disk");
  const started = performance.now();
  const keyOf = await putToSleep(origin, state);
  console.log(`\n${digits(ASLEEP)} accounts asleep on disk, made in ${digits((performance.now() - started) / 1000)} s`);
  await memory(origin, state, keyOf);
  await wakeUps(origin, state, keyOf);
}

// One account is opened as ever and called once; the others are its database with another id of the same
// length. Those that are called have a file of their own; the rest, which nobody calls, share a few.
async function putToSleep(origin, state) {
  const server = await startWorker(tollgate(), { origin, state });
  const key = await openAccount(server.port, nameOf(0));
  await call(server.port, key);
  await pause(100);
  await server.stop();
  const path = databaseOf(state, nameOf(0));
  const database = new DatabaseSync(path);
  database.exec("PRAGMA wal_checkpoint(TRUNCATE)");
  database.close();
  const model = readFileSync(path);
  const place = Buffer.from(nameOf(0));
  const called = 2 * AWAKE;
  for (let index = 1; index <= called; index++) {
    const copy = Buffer.from(model);
    for (let at = copy.indexOf(place); at >= 0; at = copy.indexOf(place, at)) copy.write(nameOf(index), at);
    writeFileSync(databaseOf(state, nameOf(index)), copy);
  }
  let shared;
  for (let index = called + 1; index < ASLEEP; index++) {
    const path = databaseOf(state, nameOf(index));
    if ((index - called) % NAMES_PER_FILE === 1) copyFileSync(databaseOf(state, nameOf(1)), (shared = path));
    else linkSync(shared, path);
  }
  return (index) => keyFor(key, nameOf(index));
}

// The same secret under another account id (see src/key.rs).
function keyFor(key, account) {
  const prefix = "tk_live";
  const payload = Buffer.from(key.slice(prefix.length + 1), "base64url").subarray(0, -16);
  payload.write(account, 2);
  const mac = createHmac("sha256", secrets.KEY_SECRET).update(`${prefix}\0`).update(payload).digest().subarray(0, 16);
  return `${prefix}_${Buffer.concat([payload, mac]).toString("base64url")}`;
}

async function call(port, key) {
  const started = performance.now();
  const answer = await fetch(`http://127.0.0.1:${port}/api/external/v1/tracks/42`, { headers: { authorization: `Bearer ${key}` } });
  const body = await answer.text();
  if (!answer.ok) throw new Error(`${answer.status} ${body}`);
  return performance.now() - started;
}

const residentBytes = (pid) => Number(readFileSync(`/proc/${pid}/statm`, "utf8").split(" ")[1]) * 4_096;

async function memory(origin, state, keyOf) {
  const server = await startCounting({ origin, state });
  const look = async () => ({ wasm: (await server.taken()).wasmBytes, process: residentBytes(server.pid) });
  // What the first ones need is there for all.
  for (let index = 1; index <= 50; index++) await call(server.port, keyOf(index));
  const before = await look();
  const calls = [];
  for (let index = 51; index <= 50 + AWAKE; index++) {
    calls.push(call(server.port, keyOf(index)));
    if (calls.length === 16) await Promise.all(calls.splice(0));
  }
  await Promise.all(calls);
  const after = await look();
  await server.stop();
  const each = (what) => `${digits((after[what] - before[what]) / AWAKE / 1_000, 1)} kB`;
  console.log(`\nMemory of each of ${digits(AWAKE)} awake: ${each("wasm")} in wasm, ${each("process")} of workerd in all (its own objects, SQLite's caches).`);
}

async function wakeUps(origin, state, keyOf) {
  const server = await startWorker(tollgate(), { origin, state });
  for (let warm = 0; warm < 40; warm++) await call(server.port, keyOf(1));
  const told = { asleep: [], warm: [] };
  for (let index = 1_500; index < 1_620; index++) {
    told.asleep.push(await call(server.port, keyOf(index)));
    told.warm.push(await call(server.port, keyOf(index)));
  }
  await server.stop();
  const [asleep, warm] = [median(told.asleep), median(told.warm)];
  const rows = [["to a sleeping account", digits(asleep, 2)], ["to the same, awake", digits(warm, 2)], ["ratio", `${digits(asleep / warm, 2)} ×`]];
  console.log(`\n${table(["a call, one caller, state on disk", "p50 ms"], rows)}`);
}
