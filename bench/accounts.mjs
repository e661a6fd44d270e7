// Accounts to call with, opened as an operator would.
import { secrets } from "./servers.mjs";

export async function operate(port, method, path, body, headers) {
  const answer = await fetch(`http://127.0.0.1:${port}/_tollgate/v1${path}`, {
    method,
    headers: { authorization: `Bearer ${secrets.ADMIN_TOKEN}`, "content-type": "application/json", ...headers },
    body: JSON.stringify(body),
  });
  if (!answer.ok) throw new Error(`${method} ${path}: ${answer.status} ${await answer.text()}`);
  return answer.json();
}

// Opens an account of Tollgate; its key.
export async function openAccount(port, id, plan = "pro") {
  await operate(port, "POST", "/accounts", { id, plan }, { "idempotency-key": `open-${id}` });
  return (await operate(port, "POST", `/accounts/${id}/keys`, {})).key;
}

// Opens an account of the twin; its key.
export async function openTwin(port, id) {
  const answer = await fetch(`http://127.0.0.1:${port}/open?account=${id}&credits=1000000000`);
  if (!answer.ok) throw new Error(`/open: ${answer.status}`);
  return answer.text();
}

// `count` of them, one after the other.
export async function keysFor(open, port, count, name) {
  const keys = [];
  for (let index = 0; index < count; index++) keys.push(await open(port, `${name}-${index}`));
  return keys;
}
