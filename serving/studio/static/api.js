// The gateway's HTTP interface: every call gives its answer and how long each step took.

const KEY = "edgedit-key";

/** An answer that is an error, in the words of its problem details; `kind` is the end of its type. */
export class Refusal extends Error {
  constructor(status, kind, detail, seconds) {
    super(detail);
    this.status = status;
    this.kind = kind;
    this.seconds = seconds;
  }
}

/** The server did not answer at all. */
export class Away extends Error {}

const pause = (ms, signal) =>
  new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, ms);
    signal?.addEventListener("abort", () => (clearTimeout(timer), reject(signal.reason)), { once: true });
  });

/** Milliseconds by step, from the header Server-Timing. */
export function steps(header) {
  const matches = [...(header ?? "").matchAll(/([\w-]+);dur=([\d.]+)/g)];
  return Object.fromEntries(matches.map(([, name, ms]) => [name, Number(ms)]));
}

export class Api {
  /** @param askKey async () => string: asks the person for an API key. */
  constructor(askKey) {
    this.askKey = askKey;
    this.secured = false;
  }

  async call(path, { method = "GET", body, type, signal } = {}) {
    for (;;) {
      const headers = type ? { "Content-Type": type } : {};
      const key = sessionStorage.getItem(KEY);
      if (key) headers.Authorization = `Bearer ${key}`;
      const began = performance.now();
      let answer;
      let data;
      try {
        answer = await fetch(path, { method, body, headers, signal });
        data = await answer.blob();
      } catch (error) {
        if (error.name === "AbortError") throw error;
        throw new Away(error.message);
      }
      if (answer.ok) {
        const timing = { ...steps(answer.headers.get("Server-Timing")), total: performance.now() - began };
        return { data, timing };
      }
      let problem = {};
      try {
        problem = JSON.parse(await data.text());
      } catch {
        // A proxy's own page.
      }
      const kind = String(problem.type ?? "").split(":").pop();
      const seconds = Number(answer.headers.get("Retry-After"));
      if (answer.status === 401) {
        this.secured = true;
        sessionStorage.setItem(KEY, await this.askKey(kind === "unknown-key"));
      } else if (answer.status === 429 && seconds) {
        await pause(1000 * seconds, signal);
      } else if (answer.status === 503) {
        throw new Away(problem.detail ?? "busy");
      } else {
        throw new Refusal(answer.status, kind, problem.detail ?? `the server answered ${answer.status}`, seconds);
      }
    }
  }

  async json(path, options) {
    const { data, timing } = await this.call(path, options);
    return { ...JSON.parse(await data.text()), timing };
  }

  model = () => this.json("/v1/model");
  directions = async () => (await this.json("/v1/directions")).directions;
  health = () => this.call("/healthz");

  faces = (photo, signal) => this.json("/v1/faces", { method: "POST", body: photo, type: photo.type, signal });

  invert(photo, { face = 0, aligned = false }, signal) {
    const query = aligned ? "aligned=true" : `face=${face}`;
    return this.json(`/v1/inversions?${query}`, { method: "POST", body: photo, type: photo.type, signal });
  }

  /**
   * A picture: {data: Blob, timing}. An inversion or photo that the server has forgotten is sent again, once.
   *
   * @param session {photo, face, aligned, handle, keeps}: `keeps` says that the server keeps photos beside inversions.
   * @param wanted {edits, paste, rendering, format, quality, side}
   */
  async edit(session, wanted, signal) {
    const { edits, paste = false, rendering = "edit", format = "jpeg", quality = 88, side } = wanted;
    if (paste && !session.keeps) {
      const form = new FormData();
      form.set("photo", session.photo);
      const fields = { edits: JSON.stringify(edits), format, quality, aligned: session.aligned };
      if (!session.aligned) fields.face = session.face;
      if (side) fields.side = side;
      for (const [name, value] of Object.entries(fields)) form.set(name, String(value));
      return this.call("/v1/edits", { method: "POST", body: form, signal });
    }
    const ask = () => {
      const body = { handle: session.handle, edits, paste_back: paste, rendering, format, quality };
      if (side) body.side = side;
      return this.call("/v1/edits", { method: "POST", body: JSON.stringify(body), type: "application/json", signal });
    };
    try {
      return await ask();
    } catch (error) {
      if (!(error instanceof Refusal) || !["resend-image", "photo-needed"].includes(error.kind)) throw error;
      session.handle = (await this.invert(session.photo, session, signal)).handle;
      return ask();
    }
  }
}
