// The idea of the rate limiter in the examples of Cloudflare's Durable Objects documentation: an object
// for each caller, in memory alone, that says how many milliseconds to wait; a burst is allowed for.
import { DurableObject } from "cloudflare:workers";

const MILLIS_PER_REQUEST = 0.01;
const GRACE_MILLIS = 5_000;

export class Limiter extends DurableObject {
  #freeAt = 0;

  millisToWait() {
    const now = Date.now();
    this.#freeAt = Math.max(now, this.#freeAt) + MILLIS_PER_REQUEST;
    return Math.max(0, this.#freeAt - now - GRACE_MILLIS);
  }
}

export default {
  async fetch(request, env) {
    const caller = request.headers.get("authorization");
    if (caller === null) return new Response("Who are you?", { status: 401 });
    const wait = await env.LIMITER.getByName(caller).millisToWait();
    if (wait > 0) return new Response("Too many requests", { status: 429 });
    const url = new URL(request.url);
    return fetch(env.ORIGIN + url.pathname + url.search, request);
  },
};
