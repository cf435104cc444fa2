//! What a person sees whose screen lags behind their own client: some of what others did is not shown to them yet, and
//! what they did may not have reached the client. Concurrent traces need it: their transactions say exactly what had been
//! seen, and a client that has one op in flight has sometimes been told more.

use std::collections::VecDeque;

use anyhow::Result;
use copydesk::ot::{Content, Op, Side};

/// Stands between a person and their client. Both lists start from one text.
#[derive(Debug)]
pub(crate) struct Lens {
    /// What the person sees.
    shown: Content,
    /// What the client was told and the person was not: whose it is, and what it does.
    held: VecDeque<(usize, Op)>,
    /// What the person did and the client was not given.
    own: VecDeque<Op>,
}

impl Lens {
    pub(crate) fn new(shown: Content) -> Self {
        Self {
            shown,
            held: VecDeque::new(),
            own: VecDeque::new(),
        }
    }

    /// The person edits what they see.
    pub(crate) fn edit(&mut self, op: Op) -> Result<()> {
        self.shown.apply(&op)?;
        self.own.push_back(op);
        Ok(())
    }

    /// The client was told what another did.
    pub(crate) fn told(&mut self, agent: usize, op: Op) {
        self.held.push_back((agent, op));
    }

    /// The next of the person's edits, as the client can make it.
    pub(crate) fn give(&mut self) -> Result<Option<Op>> {
        let Some(mut op) = self.own.pop_front() else {
            return Ok(None);
        };
        for (_, held) in &mut self.held {
            let past = held.transform(&op, Side::Right)?;
            op = op.transform(held, Side::Left)?;
            *held = past;
        }
        Ok(Some(op))
    }

    /// Whose op would be shown next.
    pub(crate) fn next(&self) -> Option<usize> {
        self.held.front().map(|(agent, _)| *agent)
    }

    /// Shows the person the next of what others did.
    pub(crate) fn show(&mut self) -> Result<()> {
        let Some((_, mut op)) = self.held.pop_front() else {
            return Ok(());
        };
        for own in &mut self.own {
            let past = own.transform(&op, Side::Left)?;
            op = op.transform(own, Side::Right)?;
            *own = past;
        }
        Ok(self.shown.apply(&op)?)
    }

    /// Whether the person and the client see the same.
    pub(crate) fn is_clear(&self) -> bool {
        self.held.is_empty() && self.own.is_empty()
    }

    /// Whether something of this agent's is held back.
    pub(crate) fn holds(&self, agent: usize) -> bool {
        self.held.iter().any(|(author, _)| *author == agent)
    }

    /// What the person sees.
    pub(crate) fn shown(&self) -> &Content {
        &self.shown
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use copydesk::ot::Kind;

    fn op(json: &str) -> Op {
        Op::parse(Kind::TextUnicode, json).unwrap()
    }

    #[test]
    fn both_sides_come_to_one_text() {
        let mut client = Content::create(Kind::TextUnicode, Some(r#""abc""#)).unwrap();
        let mut lens = Lens::new(client.clone());
        for theirs in [r#"[1,"X"]"#, r#"[3,{"d":1}]"#] {
            client.apply(&op(theirs)).unwrap();
            lens.told(1, op(theirs));
        }
        lens.edit(op(r#"[1,"y"]"#)).unwrap();
        lens.edit(op(r#"[2,"z"]"#)).unwrap();
        assert_eq!(lens.shown().to_text(), "ayzbc");
        client.apply(&lens.give().unwrap().unwrap()).unwrap();
        lens.show().unwrap();
        client.apply(&lens.give().unwrap().unwrap()).unwrap();
        lens.show().unwrap();
        assert!(lens.is_clear() && lens.next().is_none());
        assert_eq!(
            (lens.shown().to_text(), client.to_text()),
            ("ayzXb".to_owned(), "ayzXb".to_owned())
        );
    }
}
