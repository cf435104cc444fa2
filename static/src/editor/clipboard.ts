/**
 * Paste and copy. What is pasted keeps only what this page shows; what is copied is written by our own exporter, because
 * Quill 2.0.3 writes embeds into its html unescaped (CVE-2025-15056).
 */

import type Delta from "quill-delta";
import Clipboard from "quill/modules/clipboard";
import type { Range } from "quill/core";
import { toHtml } from "./html";
import { cleanPaste, isTooLarge } from "./sanitise";

export class CleanClipboard extends Clipboard {
  override convert(
    content: { html?: string; text?: string },
    formats: Record<string, unknown> = {},
  ): Delta {
    const pasted = super.convert(content, formats);
    const clean = cleanPaste(pasted);
    if (pasted.ops.some(isTooLarge)) (this.options as unknown as { onTooLarge(): void }).onTooLarge();
    return clean;
  }

  override onCopy(range: Range, _isCut: boolean): { html: string; text: string } {
    return {
      text: this.quill.getText(range.index, range.length),
      html: toHtml(this.quill.getContents(range.index, range.length)),
    };
  }
}
