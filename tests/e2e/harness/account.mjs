// An account with a key, opened over the operating API, and what its operator and its customer do with it.
import assert from "node:assert/strict";

// A policy of one origin, with the tables that the test names; `gateway` is the text of [gateway].
export const policyFor = (origin, tables, gateway = "") => `
[gateway]
key_prefix = "tk_live"
${gateway}
[origins]
default = "${origin.url}"
${tables}`;

let made = 0;

// `fields` go to POST /accounts as they are: plan ("free" if not told), subscription, …
export async function openAccount(gateway, fields = {}) {
  const id = fields.id ?? `account-${++made}`;
  await operate("POST", "/accounts", 201, { id, plan: "free", ...fields }, { "idempotency-key": `open-${id}` });
  const issued = await operate("POST", `/accounts/${id}/keys`, 201, {});

  async function operate(method, path, status, body, headers) {
    const answer = await gateway.admin(method, path, body, headers);
    assert.equal(answer.status, status, answer.text());
    return status === 204 ? null : answer.json();
  }

  // With the key of `key`, or the account's first.
  const customer = (key) => ({
    key: key.key,
    keyId: key.id,
    // One request with the key.
    call: (method, path, options) => gateway.call(key.key, method, path, options),
    // One request, and its end: when this resolves, the account's object has been told how it ended.
    async finished(method, path, options) {
      const answer = await gateway.call(key.key, method, path, options);
      answer.line = await lineOf(gateway, answer);
      return answer;
    },
    // A self-service page.
    async page(path, status = 200) {
      const answer = await gateway.call(key.key, "GET", path);
      assert.equal(answer.status, status, answer.text());
      return answer.json();
    },
  });

  return {
    id,
    ...customer(issued),
    // Another key of the same account.
    anotherKey: async (body = {}) => customer(await operate("POST", `/accounts/${id}/keys`, 201, body)),
    patch: (body) => operate("PATCH", `/accounts/${id}`, 200, body),
    show: () => operate("GET", `/accounts/${id}`, 200),
    balance: async (pool = "credits") => (await operate("GET", `/accounts/${id}/balance`, 200)).pools[pool],
    usage: (query = "") => operate("GET", `/accounts/${id}/usage${query}`, 200),
    grant: (amount, source = "extra", more = {}) =>
      operate(
        "POST",
        `/accounts/${id}/grants`,
        201,
        { pool: "credits", amount, source, ...more },
        { "idempotency-key": `grant-${++made}` },
      ),
  };
}

// The log line of an answer: a call's is written when it has been settled.
export const lineOf = (gateway, answer) =>
  gateway.log((line) => line.request_id === answer.headers["x-request-id"]);

// Asks `count` times at once; the statuses, sorted.
export async function statuses(count, ask) {
  const answers = await Promise.all(Array.from({ length: count }, ask));
  return answers.map(({ status }) => status).sort();
}
