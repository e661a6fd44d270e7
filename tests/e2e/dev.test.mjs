// `npm run dev`, as a program that starts it sees it.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import net from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { test } from "node:test";
import { inProject } from "../../scripts/project.mjs";
import { send } from "./harness/client.mjs";

async function startDev(t, ...options) {
  const state = await mkdtemp(join(tmpdir(), "tollgate-dev-"));
  const npm = await startDevOn(t, state, ...options);
  t.after(() => rm(state, { recursive: true, force: true }));
  return npm;
}

async function startDevOn(t, state, ...options) {
  const npm = spawn("npm", ["run", "--silent", "dev", "--", "--quiet", "--state", state, ...options], {
    cwd: inProject(),
    stdio: ["ignore", "pipe", "pipe"],
  });
  t.after(() => npm.kill("SIGTERM"));
  return npm;
}

test("one line of JSON tells how to call, and SIGTERM ends everything", async (t) => {
  const npm = await startDev(t, "--port", "0");
  const [line] = await once(createInterface(npm.stdout), "line");
  const { url, admin_token, demo_key } = JSON.parse(line);
  assert.match(admin_token, /^development-only-.{15,}/);
  const answer = await send(`${url}/`, { headers: { authorization: `Bearer ${demo_key}` } });
  assert.notEqual(answer.status, 500);

  npm.kill("SIGTERM");
  await once(npm, "close");
  // "close" comes when nobody holds the output any more: no process is left behind.
  await assert.rejects(send(url), { code: "ECONNREFUSED" });
});

test("another start on the same state keeps the account, changes its plan when asked, and finds room for a key", async (t) => {
  const state = await mkdtemp(join(tmpdir(), "tollgate-dev-"));
  t.after(() => rm(state, { recursive: true, force: true }));
  const policy = join(state, "policy.toml");
  await writeFile(
    policy,
    `
[gateway]
key_prefix = "tk_dev"
[origins]
default = "https://origin.example.com"
[pools.credits]
[plans.small]
max_keys = 1
grants = [{ pool = "credits", amount = 9, renews = "never" }]
[plans.large]
max_keys = 1
[[routes]]
match = "POST /search"
cost  = 1
`,
  );
  for (const [options, tier] of [
    [[], "small"],
    [["--plan", "large"], "large"],
    [[], "large"],
  ]) {
    const npm = await startDevOn(t, state, "--port", "0", "--policy", policy, ...options);
    const [line] = await once(createInterface(npm.stdout), "line");
    const { url, demo_key } = JSON.parse(line);
    const me = await send(`${url}/me`, { headers: { authorization: `Bearer ${demo_key}` } });
    assert.deepEqual([me.json().tier, me.json().credits_remaining], [tier, 9]);
    npm.kill("SIGTERM");
    await once(npm, "close");
  }
});

test("a port that is taken is told in a sentence", async (t) => {
  const squatter = net.createServer().listen(0, "127.0.0.1");
  t.after(() => squatter.close());
  await once(squatter, "listening");
  const npm = await startDev(t, "--port", String(squatter.address().port));
  const [said] = await once(npm.stderr.setEncoding("utf8"), "data");
  const [code] = await once(npm, "close");
  assert.equal(code, 1);
  assert.match(said, /Port \d+ cannot be used .*--port/);
});
