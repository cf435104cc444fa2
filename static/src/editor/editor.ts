/** The Quill editor as this page configures it. */

import Quill, { type Range } from 'quill/core';
import { formatAsTyped } from './autoformat';
import { hastenBulk, hastenLists } from './bulk';
import { hastenFormats } from './bulk-format';
import { deleteThroughQuill } from './deletion';
import { acceptForeign } from './foreign';
import { registerFormats } from './formats';
import { StepHistory } from './history';
import { diffWholeCharacters } from './pairs';
import { FORMATS, IMAGE_BYTES_MAX } from './sanitise';
import { trackSavedSelection } from './tracked-range';

hastenLists();
diffWholeCharacters();
registerFormats();
Quill.register('modules/history', StepHistory, true);

const TABLE = 'Tables are not part of documents yet. What you pasted is kept as text, with a tab between the cells.';
const TOO_LARGE = 'Pictures over 256 kB are not kept in the text. Put them on the web and insert their address.';

export function createEditor(container: HTMLElement, onNotice: (message: string) => void): Quill {
  const quill = new Quill(container, {
    formats: FORMATS,
    placeholder: 'Start writing…',
    modules: {
      history: { userOnly: true, delay: 800, maxStack: 500 },
      clipboard: { onTooLarge: () => onNotice(TOO_LARGE), onTable: () => onNotice(TABLE) },
      uploader: {
        mimetypes: ['image/png', 'image/jpeg', 'image/gif', 'image/webp'],
        handler: insertFiles(() => onNotice(TOO_LARGE)),
      },
    },
  });
  hastenBulk(quill);
  hastenFormats(quill);
  deleteThroughQuill(quill);
  acceptForeign(quill);
  formatAsTyped(quill);
  trackSavedSelection(quill);
  quill.root.setAttribute('role', 'textbox');
  quill.root.setAttribute('aria-multiline', 'true');
  quill.root.setAttribute('aria-label', 'Document text');
  quill.root.setAttribute('aria-describedby', 'editor-keys');
  quill.root.spellcheck = true;
  return quill;
}

function insertFiles(onTooLarge: () => void) {
  return function (this: { quill: Quill }, range: Range, files: File[]): void {
    const small = files.filter((file) => file.size <= IMAGE_BYTES_MAX);
    if (small.length < files.length) onTooLarge();
    void Promise.all(small.map(readAsDataUrl)).then((images) => {
      let at = range.index;
      for (const image of images) this.quill.insertEmbed(at++, 'image', image, 'user');
      this.quill.setSelection(at, 0, 'silent');
    });
  };
}

function readAsDataUrl(file: File): Promise<string> {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result as string);
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(file);
  });
}
