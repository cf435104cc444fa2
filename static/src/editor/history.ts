/**
 * Steps back. Quill takes all that was changed within a moment for one step: of what was pasted or written and deleted
 * right after, nothing would be left to go back to.
 */

import type Delta from "quill-delta";
import { Op } from "quill-delta";
import History from "quill/modules/history";

/** Whatever is longer is no keystroke: what was pasted, a selection that was deleted or written over. */
const KEYSTROKE_LENGTH_MAX = 2;

/** Lets keystrokes in a row be one step, and whatever else changes the text be a step of its own. */
export class StepHistory extends History {
  override record(change: Delta, before: Delta): void {
    const isStep = change.ops.some((op) => op.retain === undefined && Op.length(op) > KEYSTROKE_LENGTH_MAX);
    if (isStep) this.cutoff();
    super.record(change, before);
    if (isStep) this.cutoff();
  }
}
