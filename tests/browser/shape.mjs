// The content of a page and of a stored document in one form: a list of lines, each with its format and its runs of text.

/** Line formats that exclude each other. If a line has several, the first in this list is shown. */
const KINDS = ['code-block', 'list', 'header', 'blockquote'];
const LINE_EXTRAS = ['indent', 'align', 'direction'];
const TEXT_FORMATS = ['bold', 'code', 'italic', 'link', 'strike', 'underline'];
const EMBED = '\ufffc';

/** The shape of a stored document. Formats that the tests do not use are left out. */
export function shapeOf(ops) {
  const lines = [];
  let runs = [];
  for (const { insert, attributes = {} } of ops) {
    const parts = typeof insert === 'string' ? insert.split('\n') : [EMBED];
    parts
      .map((part) => part.replaceAll('\r', EMBED))
      .forEach((part, index) => {
        if (index > 0) {
          lines.push(lineOf(attributes, runs));
          runs = [];
        }
        addRun(
          runs,
          part,
          TEXT_FORMATS.filter((name) => attributes[name]),
        );
      });
  }
  if (runs.length > 0) lines.push(lineOf({}, runs));
  return lines.map((line) => JSON.stringify(line));
}

function lineOf(attributes, runs) {
  const kind = KINDS.find((name) => attributes[name]);
  const extras = LINE_EXTRAS.filter((name) => attributes[name]).map((name) => `${name}:${attributes[name]}`);
  const isCode = kind === 'code-block';
  const plain = isCode ? runs.reduce((all, { text }) => addRun(all, text, []), []) : runs;
  return {
    kind: kind === undefined ? '' : isCode || kind === 'blockquote' ? kind : `${kind}:${attributes[kind]}`,
    extras,
    runs: plain,
  };
}

function addRun(runs, text, formats) {
  if (text === '') return runs;
  const last = runs.at(-1);
  const names = formats.join(' ');
  if (last?.formats === names) last.text += text;
  else runs.push({ text, formats: names });
  return runs;
}

/** The shape of the page's elements. Quill's own model is not used, because it may differ from them. */
export async function shapeShown(page) {
  const lines = await page.evaluate(() => {
    const BLOCKS = 'p, h1, h2, h3, h4, h5, h6, blockquote, li, .ql-code-block';
    const TAGS = {
      A: 'link',
      B: 'bold',
      STRONG: 'bold',
      CODE: 'code',
      EM: 'italic',
      I: 'italic',
      S: 'strike',
      U: 'underline',
    };
    const root = document.querySelector('.ql-editor');
    return [...root.querySelectorAll(BLOCKS)].map((block) => {
      const extra = (name) =>
        [...block.classList].find((each) => each.startsWith(`ql-${name}-`))?.slice(name.length + 4);
      const leaves = [];
      const walker = document.createTreeWalker(block, NodeFilter.SHOW_ELEMENT | NodeFilter.SHOW_TEXT, (node) => {
        if (node.nodeType === Node.TEXT_NODE) return NodeFilter.FILTER_ACCEPT;
        return node.matches('.ql-ui, .ql-cursor') ? NodeFilter.FILTER_REJECT : NodeFilter.FILTER_ACCEPT;
      });
      while (walker.nextNode()) {
        const node = walker.currentNode;
        const isObject = node.nodeType !== Node.TEXT_NODE && node.matches('img, .opaque');
        if (isObject ? false : node.nodeType !== Node.TEXT_NODE || node.parentElement.closest('.opaque')) continue;
        const formats = new Set();
        for (let at = node.parentElement; at !== block; at = at.parentElement)
          if (TAGS[at.tagName]) formats.add(TAGS[at.tagName]);
        leaves.push({ text: node.nodeType === Node.TEXT_NODE ? node.data : '\ufffc', formats: [...formats].sort() });
      }
      const kind =
        block.tagName === 'LI'
          ? `list:${block.dataset.list}`
          : /^H\d$/.test(block.tagName)
            ? `header:${block.tagName[1]}`
            : block.tagName === 'BLOCKQUOTE'
              ? 'blockquote'
              : block.tagName === 'DIV'
                ? 'code-block'
                : '';
      const extras = ['indent', 'align', 'direction'].filter(extra).map((name) => `${name}:${extra(name)}`);
      return { kind, extras, leaves };
    });
  });
  return lines.map(({ kind, extras, leaves }) => {
    const runs = leaves.reduce((all, { text, formats }) => addRun(all, text, formats), []);
    return JSON.stringify({ kind, extras, runs });
  });
}
