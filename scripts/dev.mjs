// `npm run dev`: the gateway on this machine, with a demo origin, a demo account and durable state.
import { once } from "node:events";
import { readFileSync } from "node:fs";
import net from "node:net";
import { resolve } from "node:path";
import { parseArgs } from "node:util";
import { build } from "./build.mjs";
import { checkPolicy } from "./check.mjs";
import { inProject } from "./project.mjs";
import { setUp, underProjectNode } from "./setup.mjs";
import { ENDING_SIGNALS, Failure, keepQuiet, main, say } from "./step.mjs";

const USAGE = `npm run dev -- [options]
  --policy FILE   the policy to run under (policy.toml)
  --origin URL    forward to this origin instead of the demo one
  --port N        listen on 127.0.0.1:N (8787)
  --state DIR     keep accounts and calls here (.dev/state)
  --plan NAME     the demo account's plan (the one it has; at first, the policy's first)
  --quiet         print only one JSON line when ready: {"url", "admin_token", "demo_key"}
ADMIN_TOKEN, KEY_SECRET, ORIGIN_TOKEN, ORIGIN_SECRET and WEBHOOK_SECRET are taken from the environment when set.`;

// A deployed Worker refuses values that begin like this: they are no secrets.
const developmentSecrets = {
  ADMIN_TOKEN: "development-only-admin-token-0123456789",
  KEY_SECRET: "development-only-key-secret-01234567890",
  ORIGIN_TOKEN: "development-only-origin-token-012345678",
  ORIGIN_SECRET: "development-only-origin-secret-01234567",
  WEBHOOK_SECRET: `whsec_${btoa("development-only-webhook-secret-0123")}`,
};

function optionsFrom(args) {
  try {
    const { values } = parseArgs({
      args,
      options: {
        policy: { type: "string" },
        origin: { type: "string" },
        port: { type: "string", default: "8787" },
        state: { type: "string" },
        plan: { type: "string" },
        quiet: { type: "boolean", default: false },
        help: { type: "boolean", default: false },
      },
    });
    if (!/^\d{1,5}$/.test(values.port) || Number(values.port) > 65_535) {
      throw new Error(`--port: "${values.port}" is no port`);
    }
    if (
      values.origin &&
      !(URL.canParse(values.origin) && /^https?:$/.test(new URL(values.origin).protocol))
    ) {
      throw new Error(`--origin: "${values.origin}" is no http or https address`);
    }
    // npm runs scripts in the project's folder; names are meant from where the person is.
    const fromHere = (path) => resolve(process.env.INIT_CWD ?? ".", path);
    return {
      ...values,
      port: Number(values.port),
      policy: values.policy ? fromHere(values.policy) : inProject("policy.toml"),
      state: values.state ? fromHere(values.state) : inProject(".dev", "state"),
    };
  } catch (error) {
    throw new Failure(`${error.message}\n\n${USAGE}`);
  }
}

function readPolicy(file) {
  try {
    return readFileSync(file, "utf8");
  } catch (error) {
    throw new Failure(`--policy: ${file} cannot be read (${error.code}).`);
  }
}

// Asked before anything is built: workerd would say it late, and with a stack trace.
async function portMustBeFree(port) {
  const probe = net.createServer().listen(port, "127.0.0.1");
  await once(probe, "listening").catch(({ code }) => {
    throw new Failure(
      `Port ${port} cannot be used (${code}); choose another with --port, or 0 for any free one.`,
    );
  });
  probe.close();
}

async function runGateway(options) {
  await build();
  if (options.policy !== inProject("policy.toml")) await checkPolicy(options.policy);
  const policyText = readPolicy(options.policy);
  // These need the packages that set-up brings.
  const [{ parse }, { runBundle }, { startDemoOrigin }, { openDemoAccount, curlLine }] = await Promise.all(
    ["smol-toml", "./runtime.mjs", "./demo-origin.mjs", "./demo-account.mjs"].map((name) => import(name)),
  );

  const running = [];
  try {
    const origin = options.origin ? { url: options.origin, close() {} } : await startDemoOrigin();
    running.push(() => origin.close());
    const secrets = Object.fromEntries(
      Object.entries(developmentSecrets).map(([name, value]) => [name, process.env[name] || value]),
    );
    // With these of a sandbox at Stripe, and `stripe listen --forward-to …/_tollgate/v1/stripe/webhook`, payments work here.
    for (const name of ["STRIPE_SECRET_KEY", "STRIPE_WEBHOOK_SECRET", "STRIPE_API"])
      if (process.env[name]) secrets[name] = process.env[name];
    const { miniflare, url } = await runBundle({
      port: options.port,
      policy: policyText,
      bindings: { ...secrets, DEVELOPMENT: "true", ORIGIN_OVERRIDE: origin.url },
      state: options.state,
      onLog: ({ level, message }) =>
        level === "error" || level === "warn" ? console.error(message) : say(message),
    }).catch((error) => {
      throw new Failure(`The gateway did not start: ${error.message}`);
    });
    running.push(() => miniflare.dispose());
    // Miniflare would leave at once with a signal's exit code; being asked to end is no failure.
    for (const signal of ENDING_SIGNALS) process.removeAllListeners(signal);
    const stopping = Promise.race(ENDING_SIGNALS.map((signal) => once(process, signal)));

    const policy = parse(policyText);
    const { key, plan } = await openDemoAccount({
      url,
      adminToken: secrets.ADMIN_TOKEN,
      plan: options.plan ?? Object.keys(policy.plans ?? {})[0],
      changeTo: options.plan,
    });
    if (options.quiet) console.log(JSON.stringify({ url, admin_token: secrets.ADMIN_TOKEN, demo_key: key }));
    say(`
The gateway listens on ${url} and forwards to ${origin.url}.
The account "demo" has the plan "${plan}" and the key ${key}
Call it:

  ${curlLine({ url, key, policy })}

Operate it with ADMIN_TOKEN ${secrets.ADMIN_TOKEN}; state is kept in ${options.state}. Ctrl-C ends everything.
`);
    await stopping;
  } finally {
    for (const stop of running.reverse()) await stop();
  }
}

await main(async () => {
  const options = optionsFrom(process.argv.slice(2));
  if (options.help) return console.log(USAGE);
  if (options.quiet) keepQuiet();
  readPolicy(options.policy);
  await portMustBeFree(options.port);
  await setUp();
  await underProjectNode(() => runGateway(options));
});
