// Results of the npm packages for given cases: JSON lines in, JSON lines out, in order.
//
//   in   [case, ..]     case = {kind, doc, a, b, c, at, length}: `a` and `b` are made on `doc`, `c` on what `a` makes;
//                       all as a client sends them, not as the server normalises them. Or {kind: "json", value}
//   out  [answer, ..]   answer = the verbs below by name; {"error": message} if the package threw
//
// rich-text runs on quill-delta 4; Quill itself on 5. The answer says whether both agree.

import { createRequire } from 'node:module';
import { createInterface } from 'node:readline';

const require = createRequire(import.meta.url);
const text = require('ot-text-unicode').type;
const { type: rich } = require('rich-text');
const Delta5 = require('quill-delta');

const copy = (value) => structuredClone(value);

function textAnswer({ doc, a, b, c, at }) {
  const [next, other, then] = [a, b, c].map((op) => text.normalize(copy(op)));
  const [left, right] = ['left', 'right'].map((side) => text.transform(copy(a), copy(b), side));
  const [after, inverse] = [text.apply(text.create(doc), copy(a)), text.invertWithDoc(copy(a), doc)];
  return {
    create: text.create(doc),
    a: next,
    b: other,
    c: then,
    apply: after,
    then: text.apply(after, copy(c)),
    left,
    right,
    late: text.apply(text.apply(doc, copy(b)), copy(left)),
    compose: text.compose(copy(a), copy(c)),
    invert: inverse,
    undone: text.apply(after, copy(inverse)),
    own: text.transformPosition(at, a),
    other: text.transformPosition(at, a),
  };
}

// Equal texts for equal values, regardless of the order of their keys.
const canonical = (value) =>
  JSON.stringify(value, (_, part) =>
    part && typeof part === 'object' && !Array.isArray(part)
      ? Object.fromEntries(
          Object.keys(part)
            .sort()
            .map((key) => [key, part[key]]),
        )
      : part,
  );

// The normal form of the server: neighbours that can be merged are merged, no attributes are empty, no plain retain is at the
// end. Implemented independently here, so that any other change by the server is a difference.
function normal(delta) {
  const out = [];
  for (const { attributes, ...component } of delta.ops ?? delta) {
    if (attributes && Object.keys(attributes).length > 0) component.attributes = attributes;
    const last = out.at(-1);
    const like = (kind, type) => typeof component[kind] === type && typeof last?.[kind] === type;
    const one =
      last &&
      canonical(last.attributes) === canonical(component.attributes) &&
      (like('insert', 'string')
        ? 'insert'
        : like('retain', 'number')
          ? 'retain'
          : like('delete', 'number') && 'delete');
    if (one) last[one] += component[one];
    else out.push(component);
  }
  if (out.at(-1)?.retain && !out.at(-1).attributes) out.pop();
  return out;
}

function richAnswer({ doc, a, b, c, at, length }) {
  const Delta4 = rich.create().constructor;
  const [left, right] = ['left', 'right'].map((side) => rich.transform(copy(a), copy(b), side));
  const after = rich.apply(rich.create(copy(doc)), copy(a));
  const inverse = new Delta4(copy(a)).invert(new Delta4(copy(doc)));
  const range = { index: at, length, by: 'x' };
  const answer = {
    create: rich.create(copy(doc)),
    a,
    b,
    c,
    apply: after,
    then: rich.apply(copy(after), copy(c)),
    left,
    right,
    late: rich.apply(rich.apply(copy(doc), copy(b)), copy(left)),
    // Where an insert is placed in a composition depends on how the texts are cut; so these are in the server's form.
    compose: rich.compose(normal(copy(a)), normal(copy(c))),
    invert: inverse,
    undone: rich.apply(copy(after), copy(inverse)),
  };
  const [d, x, y] = [doc, a, b].map((ops) => new Delta5(copy(ops)));
  const five = {
    apply: d.compose(x),
    left: y.transform(x, true),
    right: y.transform(x, false),
    compose: new Delta5(normal(copy(a))).compose(new Delta5(normal(copy(c)))),
    invert: new Delta5(copy(a)).invert(new Delta5(copy(doc))),
  };
  const positions = {
    own: rich.transformCursor(at, new Delta4(copy(a)), true),
    other: rich.transformCursor(at, new Delta4(copy(a)), false),
  };
  const quill5 =
    Object.keys(five).every((verb) => JSON.stringify(five[verb]) === JSON.stringify(answer[verb])) &&
    positions.own === x.transformPosition(at, false) &&
    positions.other === x.transformPosition(at, true);
  for (const verb of Object.keys(answer)) answer[verb] = normal(answer[verb]);
  return {
    ...answer,
    ...positions,
    quill5,
    ownRange: rich.transformPresence(range, copy(a), true),
    otherRange: rich.transformPresence(range, copy(a), false),
  };
}

const verbs = {
  'text-unicode': textAnswer,
  'rich-text': richAnswer,
  // A value as JavaScript prints it after reading it.
  json: ({ value }) => value,
};

function answer(question) {
  try {
    return verbs[question.kind](question);
  } catch (error) {
    return { error: String(error?.message) };
  }
}

for await (const line of createInterface({ input: process.stdin, crlfDelay: Infinity })) {
  process.stdout.write(`${JSON.stringify(JSON.parse(line).map(answer))}\n`);
}
