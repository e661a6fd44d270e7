// Opens the account `demo` over the operating API, as an operator would, and shows how to call with its key.
import { Failure } from "./step.mjs";

export async function openDemoAccount({ url, adminToken, plan }) {
  const post = async (path, body, headers = {}) => {
    const response = await fetch(`${url}/_tollgate/v1${path}`, {
      method: "POST",
      headers: { authorization: `Bearer ${adminToken}`, "content-type": "application/json", ...headers },
      body: JSON.stringify(body),
      signal: AbortSignal.timeout(30_000),
    });
    return { status: response.status, text: await response.text() };
  };
  const expect = (what, { status, text }, ...expected) => {
    if (!expected.includes(status)) {
      throw new Failure(`The gateway did not ${what}: it answered ${status} ${text}`);
    }
    return text;
  };

  // 409: it is there since an earlier start on the same state.
  expect(
    "open the demo account",
    await post("/accounts", { id: "demo", plan }, { "idempotency-key": "demo" }),
    201,
    409,
  );
  return JSON.parse(expect("make a key", await post("/accounts/demo/keys", { name: "demo" }), 201)).key;
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
