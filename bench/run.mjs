// `npm run bench`: Tollgate against its twins. How to read what it prints: bench/README.md.
//
//   npm run bench                              everything, in under ten minutes
//   npm run bench -- charged refused           only these parts
//   npm run bench -- --rounds 11 --seconds 3   for longer
import { cpus } from "node:os";
import { parseArgs } from "node:util";
import { build } from "../scripts/build.mjs";
import { setUp, underProjectNode } from "../scripts/setup.mjs";
import { Failure, main, say } from "../scripts/step.mjs";

const PARTS = ["charged", "refused", "latency", "counts", "start", "history", "sleeping"];

const { values: told, positionals } = parseArgs({
  options: { rounds: { type: "string", default: "5" }, seconds: { type: "string", default: "1" } },
  allowPositionals: true,
});

await main(async () => {
  const unknown = positionals.filter((part) => !PARTS.includes(part));
  if (unknown.length > 0) throw new Failure(`There is no part ${unknown.join(", ")}; there are ${PARTS.join(", ")}.`);
  await setUp({ forTests: true });
  await underProjectNode(async () => {
    await build();
    await run(positionals.length > 0 ? positionals : PARTS, { count: Number(told.rounds), seconds: Number(told.seconds) });
  });
});

// What was started ends with this process, also where a part has failed.
process.exit();

// What follows needs the project's packages, which the set-up brings.
async function run(parts, length) {
  const started = performance.now();
  const { startOrigin } = await import("./servers.mjs");
  const { charged, refused, latency } = await import("./timed.mjs");
  const { counts, countLoneCall, showCounts } = await import("./counts.mjs");
  const { bill } = await import("./bill.mjs");
  const { startTime } = await import("./start.mjs");
  const { history } = await import("./history.mjs");
  const { sleeping } = await import("./sleeping.mjs");

  say(`\nTollgate's bench on ${cpus().length} × ${cpus()[0].model}, ${new Date().toISOString().slice(0, 10)}`);
  const origin = await startOrigin();
  const has = (part) => parts.includes(part);
  let cpuMicros = null;
  if (has("charged")) cpuMicros = await charged(origin, length);
  if (has("refused")) await refused(origin, length);
  if (has("latency")) await latency(origin, length);
  if (has("counts")) {
    const counted = await counts(origin.url);
    showCounts(counted);
    bill({ busy: counted.call, lone: await countLoneCall(origin.url), cpuMicros });
  }
  if (has("start")) await startTime(origin.url);
  if (has("history")) await history(origin.url, length);
  if (has("sleeping")) await sleeping(origin.url);
  await origin.stop();
  say(`\nEnded by itself after ${Math.round((performance.now() - started) / 1000)} s.`);
}
