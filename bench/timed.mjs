// The cases that are timed under load.
import { keysFor, openAccount, openTwin } from "./accounts.mjs";
import { load, request, search } from "./load.mjs";
import { median, medianOf, p99, ratio, rounds } from "./rounds.mjs";
import { folder, startNginx, startWorker, tollgate, worker } from "./servers.mjs";
import { digits, table } from "./table.mjs";

const CALLERS = 64;
const ACCOUNTS = 256;
const TWIN = "JavaScript twin";
const TOLLGATE = "Tollgate";
// So long each is called before it is measured. V8 compiles what has run often enough anew: JavaScript soon, a wasm
// function after tens of thousands of calls. On disk a call takes so long that nobody could wait for that.
const WARM_UP_SECONDS = 3;
const LONG_WARM_UP_SECONDS = { tmpfs: 25, disk: 15, refused: 8 };
// In this time callers connect, and accounts are called twice: the end of a call waits only where the next is near.
const UNCOUNTED_SECONDS = 0.5;
// So long Tollgate's ends wait for the next message.
const TOLLGATE_REST_MILLIS = 600;

const millis = (micros) => digits(micros / 1000, 2);

function show(title, told, against) {
  const rows = [...told].map(([name, rounds]) => [
    name,
    digits(medianOf(rounds, "rate")),
    millis(medianOf(rounds, "p50")),
    millis(p99(rounds)),
    digits(medianOf(rounds, "cpuMicros")),
    ...against.map((other) => `${digits(ratio(rounds, told.get(other), "rate"), 2)} ×`),
  ]);
  const compared = against.map((name) => `of ${name}`);
  console.log(`\n${title}\n\n${table(["", "per second", "p50 ms", "p99 ms", "CPU µs", ...compared], rows)}`);
}

const started = new Map();

// Those of a kind are started once, and end with this process.
function contendersOf(kind, origin) {
  if (!started.has(kind)) started.set(kind, startContenders(kind, origin));
  return started.get(kind);
}

async function startContenders(kind, origin) {
  const start = (what) => startWorker(what, { origin: origin.url, state: folder(kind) });
  const contenders = [
    { name: "pass-through Worker", ...(await start(worker("pass-through"))) },
    { name: TWIN, open: openTwin, ...(await start(worker("twin", [["ACCOUNTS", "Account"]]))) },
    { name: TOLLGATE, open: openAccount, restMillis: TOLLGATE_REST_MILLIS, ...(await start(tollgate())) },
    { name: "limiter of the docs", ...(await start(worker("docs-limiter", [["LIMITER", "Limiter"]]))) },
    { name: "hono-rate-limiter", ...(await start(worker("hono-limiter", [["LIMITER", "Limiter"]]))) },
  ];
  const nginx = await startNginx(origin);
  if (nginx) contenders.push({ name: "nginx limit_req", ...nginx });
  else console.log("\nnginx is not installed: left out.");
  for (const contender of contenders) {
    const { name, open = async (_, name) => name, port } = contender;
    contender.keys = await keysFor(open, port, ACCOUNTS, "account");
    const seconds = [TWIN, TOLLGATE].includes(name) ? LONG_WARM_UP_SECONDS[kind] : WARM_UP_SECONDS;
    await load({ port, callers: CALLERS, seconds, requests: contender.keys.map(search) });
  }
  return contenders;
}

// The load generator and the origin alone: what no contender can pass.
async function ceiling(origin, kind) {
  const rates = [];
  for (let round = 0; round < 3; round++) {
    const { requests, seconds } = await load({ port: origin.port, callers: CALLERS, seconds: 0.5, requests: [search("none")] });
    rates.push(requests / seconds);
  }
  console.log(`\n${kind}: load generator and origin alone reach ${digits(median(rates))} requests a second.`);
}

// Gives the processor time per call of Tollgate, many accounts on disk, in microseconds.
export async function charged(origin, { count, seconds }) {
  let cpuMicros;
  for (const kind of ["tmpfs", "disk"]) {
    await ceiling(origin, kind);
    const contenders = await contendersOf(kind, origin);
    const calls = (keys) => contenders.map((contender) => ({ ...contender, requests: keys(contender.keys).map(search) }));
    const how = { callers: CALLERS, seconds, uncounted: UNCOUNTED_SECONDS, count };
    const many = await rounds(calls((keys) => keys), how);
    show(`Charged call, ${ACCOUNTS} accounts, ${CALLERS} callers, state on ${kind}`, many, [TWIN]);
    cpuMicros = medianOf(many.get(TOLLGATE), "cpuMicros");
    const hot = await rounds(calls(([key]) => [key]), how);
    show(`Charged call, one hot account, ${CALLERS} callers, state on ${kind}`, hot, [TWIN]);
    compareSlowest(many, hot);
  }
  return cpuMicros;
}

function compareSlowest(many, hot) {
  const of = (told) => `${digits(p99(told.get(TOLLGATE)) / p99(told.get(TWIN)), 2)} ×`;
  console.log(`\nTollgate's p99 to the twin's: many accounts ${of(many)}, one hot account ${of(hot)}.`);
}

// Refusals that no object is asked for, against a Worker that only answers 429, and one that refuses as Tollgate does.
export async function refused(origin, { count, seconds }) {
  const start = (what) => startWorker(what, { origin: origin.url, state: folder("tmpfs") });
  const refuser = { name: "JavaScript that only answers 429", ...(await start(worker("refuser"))) };
  const byHand = { name: "JavaScript by hand", open: openTwin, ...(await start(worker("refuser-by-hand"))) };
  const gateway = { name: TOLLGATE, open: (port, name) => openAccount(port, name, "flood"), ...(await start(tollgate())) };
  const flooded = await gateway.open(gateway.port, "flooded");
  const contenders = [refuser, byHand, { ...gateway, open: undefined }];
  for (const contender of contenders) {
    const { name, open = async () => flooded, port } = contender;
    const key = await open(port, "flooded");
    const call = request("GET", "/api/external/v1/tracks/1", { authorization: `Bearer ${key}` });
    contender.requests = { call, forged: search(`${key.slice(0, -3)}AAA`), malformed: search("tk_live_nonsense") };
    // The one call that the limit lets through, before the flood.
    await load({ port, callers: 1, seconds: 0.05, requests: [call] });
    const seconds = name === refuser.name ? WARM_UP_SECONDS : LONG_WARM_UP_SECONDS.refused;
    await load({ port, callers: CALLERS, seconds, requests: Object.values(contender.requests) });
  }
  const against = async (title, status, kind) => {
    const asked = contenders.map((contender) => ({ ...contender, requests: [contender.requests[kind]] }));
    const statusOf = { [TOLLGATE]: status, [byHand.name]: status, [refuser.name]: 429 };
    const told = await rounds(asked, { callers: CALLERS, seconds, count, statusOf });
    show(title, told, [refuser.name, byHand.name]);
  };
  await against("Refused for a limit that the isolate knows of: a flood on one key", 429, "call");
  await against("Forged key", 401, "forged");
  await against("Malformed key", 401, "malformed");
  for (const { stop } of contenders) await stop();
}

// What one caller alone waits for, and how much of it the contender adds to the bare pass-through.
export async function latency(origin, { count, seconds }) {
  const contenders = (await contendersOf("tmpfs", origin)).map((contender) => ({ ...contender, requests: [search(contender.keys[0])] }));
  const told = await rounds(contenders, { callers: 1, seconds: seconds / 2, count });
  const floor = told.get("pass-through Worker");
  const added = (rounds) => median(rounds.map(({ p50 }, at) => p50 - floor[at].p50));
  const rows = [...told].map(([name, rounds]) => [name, millis(medianOf(rounds, "p50")), millis(added(rounds)), millis(p99(rounds))]);
  console.log(`\nOne caller alone, charged calls, state on tmpfs\n\n${table(["", "p50 ms", "added ms", "p99 ms"], rows)}`);
}
