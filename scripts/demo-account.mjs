// Opens the account `demo` over the operating API, as an operator would, and shows how to call with its key.
import { randomUUID } from "node:crypto";
import { Failure } from "./step.mjs";

// `plan` is for a new account, `changeTo` also for one that an earlier start on the same state opened.
// Resolves with the key and the plan that the account has.
export async function openDemoAccount({ url, adminToken, plan, changeTo }) {
  const ask = async (method, path, body) => {
    const response = await fetch(`${url}/_tollgate/v1${path}`, {
      method,
      headers: {
        authorization: `Bearer ${adminToken}`,
        "idempotency-key": randomUUID(),
        ...(body && { "content-type": "application/json" }),
      },
      body: body && JSON.stringify(body),
      signal: AbortSignal.timeout(30_000),
    });
    return { status: response.status, text: await response.text() };
  };
  const expect = (what, { status, text }, expected) => {
    if (status !== expected) {
      throw new Failure(`The gateway did not ${what}: it answered ${status} ${text}`);
    }
    return status === 204 ? null : JSON.parse(text);
  };

  async function open() {
    const opened = await ask("POST", "/accounts", { id: "demo", plan });
    // 409: it is there since an earlier start.
    if (opened.status !== 409) return expect("open the demo account", opened, 201);
    if (changeTo) {
      const changed = await ask("PATCH", "/accounts/demo", { plan: changeTo });
      return expect("change the demo account's plan", changed, 200);
    }
    return expect("show the demo account", await ask("GET", "/accounts/demo"), 200);
  }

  async function makeKey() {
    const made = await ask("POST", "/accounts/demo/keys", { name: "demo" });
    if (made.status !== 409) return expect("make a key", made, 201);
    // 409: it has as many keys as its plan allows; the oldest of earlier starts makes room.
    const { data } = expect("list the keys", await ask("GET", "/accounts/demo/keys"), 200);
    const oldest = data.find(({ name, status }) => name === "demo" && status === "active");
    if (oldest) {
      expect("revoke a key", await ask("DELETE", `/accounts/demo/keys/${oldest.id}`), 204);
    }
    return expect("make a key", await ask("POST", "/accounts/demo/keys", { name: "demo" }), 201);
  }

  const account = await open();
  const { key } = await makeKey();
  return { key, plan: account.plan };
}

// A line that works when pasted: the policy's first route that needs a key and no particular request.
export function curlLine({ url, key, policy }) {
  const simple = (policy.routes ?? []).find(
    ({ match, public: open, when, charge, host }) => match && !open && !when && !charge && !host,
  );
  const [method, template] = (simple?.match ?? "GET /").split(" ");
  const path = template.replaceAll(/\{[^}]*\}/g, "1").replace(/\*$/, "anything");
  const base = simple?.root ? "" : (policy.gateway?.base_path ?? "");
  const body = ["POST", "PUT", "PATCH"].includes(method)
    ? ` -H 'Content-Type: application/json' -d '{}'`
    : "";
  return `curl -i -X ${method} ${url}${base}${path} -H 'Authorization: Bearer ${key}'${body}`;
}
