// One step of set-up, build or test: it says what it does and how long that may take, keeps its
// output to itself while all is well, and shows the end of it when it fails.
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { root } from "./project.mjs";

const TAIL_LINES = 60;

// What ends this process ends its children first, so that nothing is left behind.
export const ENDING_SIGNALS = ["SIGINT", "SIGTERM", "SIGHUP"];

// A failure that the person at the terminal can act on: told in one sentence, without a stack.
export class Failure extends Error {}

let silent = false;

export function keepQuiet() {
  silent = true;
}

export function say(line) {
  if (!silent) console.log(line);
}

// `otherwise` is the sentence that says what to do when the command fails; with `live` its output is
// passed on as it comes; `timeout` in milliseconds ends it.
export async function step(title, command, args, { env = {}, live = false, timeout, otherwise = "" } = {}) {
  say(`▸ ${title}`);
  const started = performance.now();
  const showing = live && !silent;
  const child = spawn(command, args, {
    cwd: root,
    timeout,
    env: { ...process.env, ...env },
    stdio: ["ignore", showing ? "inherit" : "pipe", showing ? "inherit" : "pipe"],
  });
  let output = "";
  for (const stream of [child.stdout, child.stderr]) {
    stream?.setEncoding("utf8").on("data", (text) => (output += text));
  }
  const passOn = (signal) => child.kill(signal);
  for (const signal of ENDING_SIGNALS) process.on(signal, passOn);
  const [code, signal] = await once(child, "close").catch((error) => [error.message]);
  for (const signal of ENDING_SIGNALS) process.off(signal, passOn);
  const seconds = ((performance.now() - started) / 1000).toFixed(1);
  if (code !== 0) {
    const tail = output.trimEnd().split("\n").slice(-TAIL_LINES).join("\n");
    if (tail) console.error(tail);
    const ending = signal ? `was ended by ${signal}` : `failed (${code})`;
    throw new Failure(`${title}: ${ending} after ${seconds} s. ${otherwise}`.trim());
  }
  say(`  done in ${seconds} s`);
}

// What a command prints, or null when it cannot be run or fails.
export function outputOf(command, args) {
  const { status, stdout } = spawnSync(command, args, { cwd: root, encoding: "utf8" });
  return status === 0 ? stdout.trim() : null;
}

// Runs a script's main function and turns what goes wrong into a sentence and an exit code.
export async function main(run) {
  try {
    await run();
  } catch (error) {
    console.error(error instanceof Failure ? `\n✗ ${error.message}` : error);
    process.exitCode = 1;
  }
}
