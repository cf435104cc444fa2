// What the npm packages make of a case: JSON lines in, JSON lines out, in order.
//
//   in   [case, ..]     case = {kind, doc, a, b, c, normal, at, length}: `a` and `b` are made on `doc`, `c` on what `a`
//                       makes; `normal` is `a` in the builder's form. Or {kind: "json", value}
//   out  [answer, ..]   answer = the verbs below by name; {"error": message} where the package threw
//
// rich-text runs on quill-delta 4; Quill itself on 5. The answer says whether both agree.
import {createInterface} from 'node:readline';
import {createRequire} from 'node:module';

const require = createRequire(import.meta.url);
const text = require('ot-text-unicode').type;
const {type: rich} = require('rich-text');
const Delta5 = require('quill-delta');

const copy = (value) => structuredClone(value);

function textAnswer({doc, a, b, c, at}) {
  return {
    apply: text.apply(doc, copy(a)),
    left: text.transform(copy(a), copy(b), 'left'),
    right: text.transform(copy(a), copy(b), 'right'),
    compose: text.compose(copy(a), copy(c)),
    invert: text.invertWithDoc(copy(a), doc),
    own: text.transformPosition(at, a),
    other: text.transformPosition(at, a),
  };
}

function richAnswer({doc, a, b, c, normal, at, length}) {
  const Delta4 = rich.create().constructor;
  const [next, first] = [copy(c), copy(normal)];
  const answer = {
    apply: rich.apply(copy(doc), copy(a)),
    left: rich.transform(copy(a), copy(b), 'left'),
    right: rich.transform(copy(a), copy(b), 'right'),
    compose: rich.compose(first, next),
    invert: new Delta4(copy(a)).invert(new Delta4(copy(doc))),
    own: rich.transformCursor(at, new Delta4(copy(a)), true),
    other: rich.transformCursor(at, new Delta4(copy(a)), false),
    ownRange: rich.transformPresence({index: at, length, by: 'x'}, copy(a), true),
    otherRange: rich.transformPresence({index: at, length, by: 'x'}, copy(a), false),
  };
  const [d, x, y] = [doc, a, b].map((ops) => new Delta5(copy(ops)));
  const five = {
    apply: d.compose(x),
    left: y.transform(x, true),
    right: y.transform(x, false),
    compose: new Delta5(copy(normal)).compose(new Delta5(copy(c))),
    invert: new Delta5(copy(a)).invert(new Delta5(copy(doc))),
    own: x.transformPosition(at, false),
    other: x.transformPosition(at, true),
  };
  answer.quill5 = Object.keys(five).every((verb) => JSON.stringify(five[verb]) === JSON.stringify(answer[verb]));
  return answer;
}

const verbs = {
  'text-unicode': textAnswer,
  'rich-text': richAnswer,
  // A value as JavaScript writes it after having read it.
  json: ({value}) => value,
};

function answer(question) {
  try {
    return verbs[question.kind](question);
  } catch (error) {
    return {error: String(error && error.message)};
  }
}

for await (const line of createInterface({input: process.stdin, crlfDelay: Infinity})) {
  process.stdout.write(JSON.stringify(JSON.parse(line).map(answer)) + '\n');
}
