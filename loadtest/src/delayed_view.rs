//! A view that lags behind its client: commits of others that are not shown yet, and own edits that the client has not
//! received. Concurrent traces need it: each transaction records exactly what its agent had seen, and a client with an op in
//! flight has sometimes received more.

use std::collections::VecDeque;

use anyhow::Result;
use copydesk::ot::{Content, Op, Side};

/// The view of one agent. Both lists apply to the same text.
#[derive(Debug)]
pub(crate) struct DelayedView {
    /// The text that the agent sees.
    shown: Content,
    /// Commits that the client has and the view does not: the author and the op.
    held: VecDeque<(usize, Op)>,
    /// Edits of the agent that the client does not have.
    own: VecDeque<Op>,
}

impl DelayedView {
    pub(crate) fn new(shown: Content) -> Self {
        Self {
            shown,
            held: VecDeque::new(),
            own: VecDeque::new(),
        }
    }

    /// The agent edits the text that it sees.
    pub(crate) fn edit(&mut self, op: Op) -> Result<()> {
        self.shown.apply(&op)?;
        self.own.push_back(op);
        Ok(())
    }

    /// The client received a commit of another agent.
    pub(crate) fn told(&mut self, agent: usize, op: Op) {
        self.held.push_back((agent, op));
    }

    /// Takes the agent's next edit, transformed to the client's text.
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

    /// The author of the commit that would be shown next.
    pub(crate) fn next(&self) -> Option<usize> {
        self.held.front().map(|(agent, _)| *agent)
    }

    /// Shows the next commit of another agent.
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

    /// Returns true if the view and the client have the same text.
    pub(crate) fn is_clear(&self) -> bool {
        self.held.is_empty() && self.own.is_empty()
    }

    /// Returns true if a commit of this agent is not shown yet.
    pub(crate) fn holds(&self, agent: usize) -> bool {
        self.held.iter().any(|(author, _)| *author == agent)
    }

    /// The text that the agent sees.
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
        let mut view = DelayedView::new(client.clone());
        for theirs in [r#"[1,"X"]"#, r#"[3,{"d":1}]"#] {
            client.apply(&op(theirs)).unwrap();
            view.told(1, op(theirs));
        }
        view.edit(op(r#"[1,"y"]"#)).unwrap();
        view.edit(op(r#"[2,"z"]"#)).unwrap();
        assert_eq!(view.shown().to_text(), "ayzbc");
        client.apply(&view.give().unwrap().unwrap()).unwrap();
        view.show().unwrap();
        client.apply(&view.give().unwrap().unwrap()).unwrap();
        view.show().unwrap();
        assert!(view.is_clear() && view.next().is_none());
        assert_eq!(
            (view.shown().to_text(), client.to_text()),
            ("ayzXb".to_owned(), "ayzXb".to_owned())
        );
    }
}
