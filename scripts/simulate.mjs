// `npm run simulate -- --seeds N --from S`: the core's simulation on N seeds from S on, each an
// account's life over days or months. A seed that fails is told with the shortest history that
// still fails and the line that replays it.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { parseArgs } from "node:util";
import { root } from "./project.mjs";
import { rust } from "./setup.mjs";
import { ENDING_SIGNALS, Failure, main, say, step } from "./step.mjs";

const TEST = ["test", "--quiet", "--profile", "simulation", "--test", "core"];

function wanted() {
  const options = { seeds: { type: "string", default: "1000" }, from: { type: "string", default: "0" } };
  const { values } = parseArgs({ options });
  for (const [name, value] of Object.entries(values)) {
    if (!/^\d{1,15}$/.test(value)) throw new Failure(`--${name}: expected a whole number, found ${value}`);
  }
  return values;
}

await main(async () => {
  const { seeds, from } = wanted();
  await rust();
  await step("Build the simulation (some minutes the first time)", "cargo", [...TEST, "--no-run"], { otherwise: "cargo's words are above." });
  say(`▸ Simulate ${seeds} seeds from ${from} on`);
  const started = performance.now();
  const child = spawn("cargo", [...TEST, "simulation", "--", "--nocapture"], {
    cwd: root,
    env: { ...process.env, TOLLGATE_SEEDS: seeds, TOLLGATE_FROM: from, RUST_BACKTRACE: "0" },
    stdio: ["ignore", "pipe", "inherit"],
    detached: true,
  });
  // cargo does not pass a signal on to what it runs: the whole group is told.
  const passOn = (signal) => process.kill(-child.pid, signal);
  for (const signal of ENDING_SIGNALS) process.on(signal, passOn);
  let days = 0;
  child.stdout.setEncoding("utf8").on("data", (text) => {
    for (const [line, count] of text.matchAll(/\d+ seeds, (\d+) account-days/g)) {
      days = Number(count);
      const seconds = (performance.now() - started) / 1000;
      say(`  ${line} in ${seconds.toFixed(0)} s: ${Math.round(days / seconds)} a second`);
    }
  });
  const [code] = await once(child, "close");
  if (code !== 0) throw new Failure("The simulation failed: the history and the line that replays it are above.");
});
