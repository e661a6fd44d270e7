// HTTP as it goes over the wire: every header is kept, nothing is followed, decoded or retried, the path
// is sent as it is written, and a client can hang up at any stage.
import http from "node:http";
import { once } from "node:events";

// Sends a request and resolves with the whole answer:
// { status, headers, rawHeaders, body: Buffer, text(), json() }.
export async function send(url, options) {
  const answer = await open(url, options).end(options?.body);
  return Object.assign(answer, { body: await answer.rest() });
}

// Opens a request without ending it:
//   exchange.flushHeaders(), exchange.write(bytes)   send headers and body, piece by piece
//   exchange.end(bytes)                              ends the body; resolves as `answer` does
//   exchange.answer                                  resolves at the answer's headers
//   exchange.hangUp()                                closes the connection, whatever is still to come
//   exchange.reset()                                 breaks it, which the other side hears of at once
// The answer: { status, headers, rawHeaders, text(), json() (after rest()), next(), rest(), hangUp(), reset() }.
export function open(url, { method = "GET", headers = {}, path } = {}) {
  const { hostname, port, pathname, search } = new URL(url);
  const request = http.request({
    host: hostname,
    port,
    method,
    headers,
    // new URL() would tidy "/a/../b" away before the gateway sees it.
    path: path ?? pathname + search,
    // A connection of its own: hanging up must not touch another exchange, nor a kept one be found dead.
    agent: false,
  });
  const answer = once(request, "response").then(([response]) => answerOf(response));
  // Whoever hangs up need not look at the answer, and a connection may break after it has begun.
  answer.catch(() => {});
  request.on("error", () => {});
  return {
    answer,
    write: (bytes) =>
      new Promise((resolve, reject) => request.write(bytes, (error) => (error ? reject(error) : resolve()))),
    end(bytes) {
      request.end(bytes);
      return answer;
    },
    flushHeaders: () => request.flushHeaders(),
    hangUp: () => request.destroy(),
    reset: () => request.socket.resetAndDestroy(),
  };
}

function answerOf(response) {
  const chunks = response.iterator({ destroyOnReturn: false });
  const answer = {
    status: response.statusCode,
    headers: response.headers,
    rawHeaders: response.rawHeaders,
    // The next piece of the body, or null at its end. Rejects when the connection breaks off.
    next: async () => (await chunks.next()).value ?? null,
    rest: async () => {
      const pieces = [];
      for (let piece; (piece = await answer.next()) !== null;) pieces.push(piece);
      return Buffer.concat(pieces);
    },
    hangUp: () => response.destroy(),
    reset: () => response.socket.resetAndDestroy(),
    text: () => answer.body.toString("utf8"),
    json: () => JSON.parse(answer.text()),
  };
  return answer;
}
