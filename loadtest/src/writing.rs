//! What the writers write: small edits, as people make them, from a seed.

use copydesk::log::Change;
use copydesk::ot::{Content, Kind, Op};
use fastrand::Rng;

/// One writer's hand.
#[derive(Debug)]
pub(crate) struct Writer {
    rng: Rng,
    /// The length around which the document is kept.
    chars: u64,
    habit: Habit,
}

/// Where a writer writes.
#[derive(Debug)]
pub(crate) enum Habit {
    /// A letter here, a letter there.
    Anywhere,
    /// One letter after the other, now and then one back.
    Typing {
        /// Where the next letter goes.
        cursor: u64,
    },
}

const LETTERS: [&str; 16] = [
    "e",
    "t",
    "a",
    "o",
    "i",
    "n",
    " ",
    "s",
    "h",
    "r",
    "d",
    "l",
    "u",
    "é",
    "漢",
    "\u{1f600}",
];
/// Rich text counts UTF-16 units: without the last letter no edit can cut one in half.
const PLAIN: usize = LETTERS.len() - 1;

impl Writer {
    pub(crate) fn new(rng: Rng, chars: u64, habit: Habit) -> Self {
        Self { rng, chars, habit }
    }

    /// The next edit of this content.
    pub(crate) fn edit(&mut self, content: &Content) -> Op {
        let kind = content.kind();
        // A rich text's final newline stays.
        let len = content.len() - u64::from(kind == Kind::RichText);
        let crowded = len > self.chars + self.chars / 8 + 16;
        let deletes = len > 0 && self.rng.u8(..8) < if crowded { 7 } else { 2 };
        let position = match &mut self.habit {
            Habit::Anywhere => self.rng.u64(..=len - u64::from(deletes)),
            Habit::Typing { cursor } => {
                *cursor = (*cursor).min(len);
                if deletes {
                    *cursor = cursor.saturating_sub(1);
                    *cursor
                } else {
                    *cursor += 1;
                    *cursor - 1
                }
            }
        };
        if deletes {
            return splice(kind, position, 1, "");
        }
        let letters = if kind == Kind::RichText {
            PLAIN
        } else {
            LETTERS.len()
        };
        splice(kind, position, 0, LETTERS[self.rng.usize(..letters)])
    }

    /// Another has changed the document: the cursor moves with its text.
    pub(crate) fn moved(&mut self, change: &Change) {
        if let (Habit::Typing { cursor }, Change::Edit(op)) = (&mut self.habit, change) {
            *cursor = op.transform_position(*cursor, false);
        }
    }
}

/// An op that replaces `delete` units at `position` by `insert`.
pub(crate) fn splice(kind: Kind, position: u64, delete: u64, insert: &str) -> Op {
    let mut parts = Vec::with_capacity(3);
    let rich = kind == Kind::RichText;
    let insert = serde_json::to_string(insert).expect("a string is JSON");
    match position {
        0 => {}
        keep if rich => parts.push(format!("{{\"retain\":{keep}}}")),
        keep => parts.push(keep.to_string()),
    }
    match (insert.as_str(), rich) {
        ("\"\"", _) => {}
        (text, true) => parts.push(format!("{{\"insert\":{text}}}")),
        (text, false) => parts.push(text.to_owned()),
    }
    match delete {
        0 => {}
        len if rich => parts.push(format!("{{\"delete\":{len}}}")),
        len => parts.push(format!("{{\"d\":{len}}}")),
    }
    Op::parse(kind, &format!("[{}]", parts.join(",")))
        .expect("a splice that does something is an op")
}

/// A text to begin with.
pub(crate) fn content(kind: Kind, chars: u64, rng: &mut Rng) -> Content {
    let mut text = String::new();
    for at in 0..chars {
        text.push_str(if at % 80 == 79 {
            "\n"
        } else {
            LETTERS[rng.usize(..PLAIN)]
        });
    }
    let json = serde_json::to_string(&text).expect("a string is JSON");
    let data = match kind {
        Kind::TextUnicode => json,
        Kind::RichText => format!("[{{\"insert\":{}\\n\"}}]", &json[..json.len() - 1]),
    };
    Content::create(kind, Some(&data)).expect("a text is a document")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_fit_and_keep_the_length_about_where_it_was() {
        for kind in Kind::ALL {
            for habit in [Habit::Anywhere, Habit::Typing { cursor: 30 }] {
                let mut rng = Rng::with_seed(1);
                let mut content = content(kind, 100, &mut rng);
                let mut writer = Writer::new(rng, 100, habit);
                for _ in 0..5_000 {
                    content.apply(&writer.edit(&content)).unwrap();
                }
                assert!((60..200).contains(&content.len()), "{}", content.len());
            }
        }
    }

    #[test]
    fn typing_writes_one_letter_after_the_other() {
        let mut content = Content::create(Kind::TextUnicode, None).unwrap();
        let mut writer = Writer::new(Rng::with_seed(3), 9, Habit::Typing { cursor: 0 });
        let mut lens = Vec::new();
        for _ in 0..200 {
            content.apply(&writer.edit(&content)).unwrap();
            lens.push(content.len());
        }
        assert!(lens.iter().any(|len| *len > 9));
    }
}
