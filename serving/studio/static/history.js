// Undo and redo of edits, {direction: strength} without zeros.

const LONGEST = 200;
const same = (a, b) => JSON.stringify(Object.entries(a).sort()) === JSON.stringify(Object.entries(b).sort());

export class History {
  constructor() {
    this.past = [{}];
    this.place = 0;
    this.slider = null;
    this.then = 0;
  }

  get now() {
    return this.past[this.place];
  }

  get canUndo() {
    return this.place > 0;
  }

  get canRedo() {
    return this.place < this.past.length - 1;
  }

  /**
   * Adds a step, if it is one; what had been undone is gone. Steps of one slider within a second are one, as of an arrow
   * key that is held.
   */
  add(edits, slider = null, now = performance.now()) {
    if (same(edits, this.now)) return;
    const goesOn = slider !== null && slider === this.slider && now - this.then < 1000 && this.canUndo && !this.canRedo;
    [this.slider, this.then] = [slider, now];
    this.past = [...this.past.slice(0, this.place + (goesOn ? 0 : 1)), edits].slice(-LONGEST);
    this.place = this.past.length - 1;
  }

  undo() {
    this.slider = null;
    this.place = Math.max(0, this.place - 1);
    return this.now;
  }

  redo() {
    this.slider = null;
    this.place = Math.min(this.past.length - 1, this.place + 1);
    return this.now;
  }
}
