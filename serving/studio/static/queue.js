// One picture at a time: the newest wish of each slot counts, the most urgent slot goes first.

/**
 * Runs what is wanted, one after the other. A wish replaces the one that waits in its slot. One that runs is left to
 * end, so that a slider that is dragged shows pictures on the way, unless it is of a slot that can wait and something
 * more urgent comes: then it is aborted and dropped.
 */
export class Queue {
  /** @param urgent slots, the most urgent first; all others can wait, in the order in which they were wanted. */
  constructor(urgent) {
    this.urgent = urgent;
    this.waiting = new Map();
    this.running = null;
  }

  rank(slot) {
    const place = this.urgent.indexOf(slot);
    return place < 0 ? this.urgent.length : place;
  }

  /** Wants `work(signal)` done in a slot; `done(error, result)` is called at its end, but not once it is dropped. */
  want(slot, work, done) {
    this.waiting.delete(slot);
    this.waiting.set(slot, { work, done });
    if (this.running && this.rank(slot) < this.rank(this.running.slot)) this.running.abort.abort();
    this.next();
  }

  /** Drops what waits or runs in the slots for which `which` holds. */
  drop(which) {
    for (const slot of [...this.waiting.keys()]) if (which(slot)) this.waiting.delete(slot);
    if (this.running && which(this.running.slot)) this.running.abort.abort();
  }

  get busy() {
    return this.running !== null || this.waiting.size > 0;
  }

  async next() {
    if (this.running || !this.waiting.size) return;
    const slot = [...this.waiting.keys()].reduce((a, b) => (this.rank(b) < this.rank(a) ? b : a));
    const { work, done } = this.waiting.get(slot);
    this.waiting.delete(slot);
    const abort = new AbortController();
    this.running = { slot, abort };
    let error = null;
    let result;
    try {
      result = await work(abort.signal);
    } catch (caught) {
      error = caught;
    }
    this.running = null;
    if (!abort.signal.aborted) done(error, result);
    this.next();
  }
}
