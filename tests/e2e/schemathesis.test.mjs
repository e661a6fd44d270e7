// The running gateway against its own description: schemathesis makes requests of it, good and bad ones,
// and holds the answers against it. It is a Python program; where there is none, this test says so.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { schemathesis } from "../../scripts/project.mjs";
import { isSchemathesisThere } from "../../scripts/setup.mjs";
import { openAccount, policyFor } from "./harness/account.mjs";
import { secrets, startGateway } from "./harness/gateway.mjs";
import { startOrigin } from "./harness/origin.mjs";
import { startStripe } from "./harness/stripe.mjs";

// What the examples in the description speak of is there.
const TABLES = `
[imported_keys]
pattern = "sk_[0-9a-f]{32}"
[pools.credits]
[pools.lyrics]
[plans.starter]
requests_per_minute = 1000
paid = true
grants = [{ pool = "credits", amount = 300, renews = "monthly", rollover = 20 }]
[plans.pro]
stripe_price = "price_pro"
[top_up]
credits_per = 100
price = "1.00 USD"
[[packages]]
id = "small"
credits = 500
price = "5.00 USD"
[[routes]]
match = "POST /search"
cost  = 15
[[routes]]
match = "POST /stems"
when  = { "query.mode" = "full" }
cost  = 2
[[routes]]
match = "POST /stems"
cost  = 1
[[routes]]
match  = "POST /dub"
charge = { rate = 10, unit = 60, from = "query.seconds", minimum = 10, maximum = 600 }
`;

// So many requests of each operation at most, in each of the three phases.
const EXAMPLES = process.env.TOLLGATE_FULL ? 100 : 6;

const skip = !isSchemathesisThere() && "schemathesis is not installed: it needs Python 3.10 with venv, and PyPI once";

test("the gateway is as it is described", { skip, timeout: process.env.TOLLGATE_FULL ? 3_600_000 : 240_000 }, async (t) => {
  const origin = await startOrigin(t);
  const { vars } = await startStripe(t);
  const gateway = await startGateway(t, { policy: policyFor(origin, TABLES, 'base_path = "/api/v1"'), vars });
  const acme = await openAccount(gateway, { id: "acme", external_id: "customer 7", plan: "starter" });
  // Its key is not revoked by what is tried on those of acme.
  const reader = await openAccount(gateway, { id: "reader", plan: "starter" });
  for (const account of [acme, reader]) await account.finished("POST", "/api/v1/search");

  const folder = await mkdtemp(join(tmpdir(), "tollgate-test-"));
  t.after(() => rm(folder, { recursive: true, force: true }));
  const description = (await gateway.send("GET", "/_tollgate/v1/openapi.json")).json();
  Object.values(description.components.schemas).forEach(close);
  await writeFile(join(folder, "openapi.json"), JSON.stringify(description));

  const settings = join(schemathesis.settings, "schemathesis.toml");
  const run = ["--config-file", settings, "run", "--max-examples", String(EXAMPLES), "openapi.json"];
  const started = Date.now();
  const child = spawn(schemathesis.program, run, {
    cwd: folder,
    env: {
      ...process.env,
      PYTHONPATH: schemathesis.settings,
      PYTHONDONTWRITEBYTECODE: "1",
      NO_PROXY: "127.0.0.1",
      TOLLGATE_URL: gateway.url,
      TOLLGATE_ADMIN_TOKEN: secrets.ADMIN_TOKEN,
      TOLLGATE_KEY: reader.key,
    },
    stdio: ["ignore", "pipe", "pipe"],
  });
  t.after(() => child.kill("SIGKILL"));
  let output = "";
  for (const stream of [child.stdout, child.stderr]) stream.setEncoding("utf8").on("data", (text) => (output += text));
  const [code] = await once(child, "close");

  const summary = output.slice(output.lastIndexOf(" SUMMARY ="));
  assert.equal(code, 0, output);
  t.diagnostic(`${EXAMPLES} examples at most in ${Math.round((Date.now() - started) / 1_000)} s`);
  for (const line of summary.split("\n").slice(1)) if (line.trim()) t.diagnostic(line);
  const described = Object.values(description.paths).flatMap((item) => Object.keys(item));
  const operations = described.filter((name) => name !== "parameters").length;
  assert.match(summary, new RegExp(`Tested: ${operations}\\b`));
  assert.ok(!gateway.logs().some(({ status }) => status >= 500), "nothing is a 5xx");
});

// A description lets answers have further members; the code must not, or they would go undescribed.
function close(schema) {
  if (schema === null || typeof schema !== "object") return;
  if (schema.properties) schema.additionalProperties ??= false;
  for (const part of [...Object.values(schema.properties ?? {}), schema.items, schema.additionalProperties]) close(part);
}
