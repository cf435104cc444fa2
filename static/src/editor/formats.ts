/** The blots and attributors that Quill may use on this page, with addresses checked once more at the DOM. */

import Block from 'quill/blots/block';
import Quill, { Parchment } from 'quill/core';
import { AlignClass } from 'quill/formats/align';
import { BackgroundStyle } from 'quill/formats/background';
import Blockquote from 'quill/formats/blockquote';
import Bold from 'quill/formats/bold';
import CodeBlock, { Code } from 'quill/formats/code';
import { ColorStyle } from 'quill/formats/color';
import { DirectionClass } from 'quill/formats/direction';
import { FontClass } from 'quill/formats/font';
import Header from 'quill/formats/header';
import Image from 'quill/formats/image';
import Indent from 'quill/formats/indent';
import Italic from 'quill/formats/italic';
import Link from 'quill/formats/link';
import List from 'quill/formats/list';
import Script from 'quill/formats/script';
import { SizeClass } from 'quill/formats/size';
import Strike from 'quill/formats/strike';
import Underline from 'quill/formats/underline';
import { CleanClipboard } from './clipboard';
import { ForeignInCode } from './foreign';
import { pictures } from './pictures';
import { CARRIAGE_RETURN, OPAQUE, safeImage, safeLink } from './sanitise';

/** Lets each line find its direction of writing in its own text, but for code. A direction that is set wins by style. */
function detectDirection(): void {
  const create = Block.create;
  Block.create = function (this: typeof Block, value) {
    const node = create.call(this, value);
    if (this.blotName !== CodeBlock.blotName) node.setAttribute('dir', 'auto');
    return node;
  };
}

class CheckedLink extends Link {
  static override sanitize(url: string): string {
    return safeLink(url) ?? 'about:blank';
  }
}

class CheckedImage extends Image {
  static override create(value: string): HTMLElement {
    const node = super.create(null as never) as HTMLElement;
    pictures.draw(node, this.sanitize(value));
    node.setAttribute('loading', 'lazy');
    node.setAttribute('referrerpolicy', 'no-referrer');
    if (!node.hasAttribute('alt')) node.setAttribute('alt', '');
    return node;
  }

  static override sanitize(url: string): string {
    return safeImage(url) ?? 'about:blank';
  }

  static override value(node: HTMLElement): string | null {
    return pictures.addressOf(node);
  }

  static override formats(node: HTMLElement): Record<string, string | null> {
    const formats = super.formats(node) as Record<string, string | null>;
    // Quill must not report the empty alt that `create` sets: it is not in the document.
    if (formats.alt === '') delete formats.alt;
    return formats;
  }
}

/** Stands for an embed of a kind that this page does not show. One character long, never alive. */
class Opaque extends Parchment.EmbedBlot {
  static override blotName = OPAQUE;
  static override tagName = 'SPAN';
  static override className = 'opaque';

  static override create(value: unknown): HTMLElement {
    const node = super.create() as HTMLElement;
    node.setAttribute('contenteditable', 'false');
    if (value === CARRIAGE_RETURN) node.classList.add('carriage-return');
    else node.textContent = 'unsupported object';
    values.set(node, String(value));
    return node;
  }

  static override value(node: HTMLElement): string {
    return values.get(node) ?? 'null';
  }
}

const values = new WeakMap<Node, string>();

export function registerFormats(): void {
  detectDirection();
  // Quill would delete pictures and unknown objects from a line that becomes code, and foreign attributes.
  CodeBlock.allowedChildren = [...CodeBlock.allowedChildren!, Parchment.EmbedBlot, ForeignInCode as never];
  const formats = [
    AlignClass,
    BackgroundStyle,
    Blockquote,
    Bold,
    CheckedImage,
    CheckedLink,
    Code,
    CodeBlock,
    ColorStyle,
    DirectionClass,
    FontClass,
    Header,
    Indent,
    Italic,
    List,
    Opaque,
    Script,
    SizeClass,
    Strike,
    Underline,
  ];
  for (const format of formats) Quill.register(format as never, true);
  Quill.register('modules/clipboard', CleanClipboard, true);
}
