/** Asks whether pictures on other servers may be loaded, for each server by its name. */

import type Quill from 'quill/core';
import { pictures } from '../editor/pictures';
import { fill, h } from '../lib/dom';

/** Servers that are named; the others are counted. */
const NAMED_MAX = 4;

export function remotePictures(quill: Quill): HTMLElement {
  const element = h('div', {
    class: 'remote-pictures',
    role: 'region',
    'aria-label': 'Pictures on other servers',
    hidden: true,
  });
  const draw = (): void => {
    const hosts = pictures.waiting;
    element.hidden = hosts.length === 0;
    const show = (words: string, allowed: string[]): HTMLElement =>
      h('button', { type: 'button', class: 'quiet', onclick: () => pictures.allow(allowed) }, words);
    const servers = hosts.length === 1 ? 'another server' : 'other servers';
    fill(
      element,
      h(
        'p',
        {},
        `This document has pictures on ${servers}. They are not loaded, since that would tell who reads it, and when.`,
      ),
      ...hosts.slice(0, NAMED_MAX).map((host) => show(`Show pictures from ${host}`, [host])),
      hosts.length > 1 && show(`Show pictures from all ${hosts.length} servers`, hosts),
    );
  };
  pictures.watch(draw);
  // A deleted picture need not be asked about.
  quill.on('text-change', () => {
    if (!element.hidden) pictures.changed();
  });
  draw();
  return element;
}
