/**
 * Copy, cut and paste. Beside html and text the clipboard holds the content as the document has it, for this editor: html
 * has no checklists, no runs of spaces, and nothing of what this page does not draw. The html is written by our own
 * exporter, because Quill 2.0.3 writes embeds into it unescaped (CVE-2025-15056).
 */

import type { Range } from 'quill/core';
import Clipboard from 'quill/modules/clipboard';
import Delta, { AttributeMap } from 'quill-delta';
import { restoreAttributes, sanitiseAttributes } from './attributes';
import { canonicalContent } from './canonical';
import { type Copied, DELTA_TYPE, readDelta, writeDelta } from './clipboard-delta';
import { toHtml } from './html';
import { linkAddresses, soleAddress } from './links';
import { flattenTables, LIST_MATCHERS } from './pasted-html';
import { cleanPaste, isTooLarge, restoreHidden } from './sanitise';

/** What the clipboard tells the page about. */
export interface ClipboardOptions {
  onTooLarge(): void;
  onTable(): void;
}

export class CleanClipboard extends Clipboard {
  #copied: Copied | null = null;

  constructor(quill: Clipboard['quill'], options: Clipboard['options']) {
    super(quill, options);
    for (const [selector, matcher] of LIST_MATCHERS) this.addMatcher(selector, matcher);
  }

  override convert(content: { html?: string; text?: string }, formats: Record<string, unknown> = {}): Delta {
    const text = content.text?.replace(/\r\n?/g, '\n');
    const pasted = super.convert({ ...content, ...(text !== undefined && { text }) }, formats);
    const clean = cleanPaste(pasted);
    if (pasted.ops.some(isTooLarge)) this.#events.onTooLarge();
    return linkAddresses(clean);
  }

  override onCaptureCopy(event: ClipboardEvent, isCut = false): void {
    const selection = this.quill.getSelection();
    // Without a selection there is nothing to copy, and what the clipboard holds stays.
    if (event.defaultPrevented || !selection || selection.length === 0) return;
    this.quill.history.cutoff();
    super.onCaptureCopy(event, isCut);
    if (this.#copied) event.clipboardData?.setData(DELTA_TYPE, writeDelta(this.#copied));
    this.#copied = null;
  }

  override onCopy(range: Range, _isCut: boolean): { html: string; text: string } {
    const content = this.quill.getContents(range.index, range.length);
    const line = this.#lastLineOf(range);
    this.#copied = { content: restoreHidden(content), line: line && restoreAttributes(line) };
    return {
      text: this.quill.getText(range.index, range.length),
      html: toHtml(line ? content.concat(new Delta().insert('\n', line)) : content),
    };
  }

  override onCapturePaste(event: ClipboardEvent): void {
    if (event.defaultPrevented || !this.quill.isEnabled()) return;
    const range = this.quill.getSelection(true);
    const formats = this.quill.getFormat(range);
    const copied = formats['code-block'] || formats.code ? null : readDelta(event.clipboardData?.getData(DELTA_TYPE));
    this.quill.history.cutoff();
    if (copied) {
      event.preventDefault();
      this.#insert(range, copied);
    } else {
      super.onCapturePaste(event);
    }
    this.quill.history.cutoff();
  }

  override onPaste(range: Range, content: { text?: string; html?: string }): void {
    const address = range.length > 0 ? soleAddress(content) : null;
    const isCode = Boolean(this.quill.getFormat(range)['code-block']);
    if (address === null || isCode || this.quill.getText(range.index, range.length).trim() === '')
      return super.onPaste(range, content);
    this.quill.formatText(range.index, range.length, 'link', address, 'user');
    this.quill.setSelection(range.index + range.length, 0, 'silent');
  }

  override normalizeHTML(page: Document): void {
    super.normalizeHTML(page);
    if (flattenTables(page.body)) this.#events.onTable();
  }

  get #events(): ClipboardOptions {
    return this.options as unknown as ClipboardOptions;
  }

  /** The formats of the last line if the range is made of lines: what makes an item of its text is beyond the range. */
  #lastLineOf({ index, length }: Range): AttributeMap | null {
    const [first, start] = this.quill.getLine(index);
    const [last, end] = this.quill.getLine(index + length);
    if (!last || (first === last && (start > 0 || end < last.length() - 1)) || end === 0) return null;
    return last.formats();
  }

  #insert(range: Range, { content, line }: Copied): void {
    const shown = canonicalContent(content);
    const [, start] = this.quill.getLine(range.index);
    const [last, end] = this.quill.getLine(range.index + range.length);
    const change = new Delta().retain(range.index).delete(range.length).concat(shown);
    // The line that the content ends in takes its formats where nothing else is in it.
    const isWhole = hasNewline(shown) || (start === 0 && Object.keys(line ?? {}).length > 0);
    if (line && last && end === last.length() - 1 && isWhole) {
      change.retain(1, AttributeMap.diff(last.formats(), sanitiseAttributes(line, 'line')));
    }
    this.quill.updateContents(change, 'user');
    this.quill.setSelection(range.index + shown.length(), 0, 'silent');
    this.quill.scrollSelectionIntoView();
  }
}

function hasNewline(content: Delta): boolean {
  return content.ops.some(({ insert }) => typeof insert === 'string' && insert.includes('\n'));
}
