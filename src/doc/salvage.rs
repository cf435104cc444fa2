//! Saves what is possible of a document that is larger than what is held in memory.

use std::sync::Arc;

use crate::log::{Change, Entry, FoldError, Revision, Snapshot};

/// The result of salvaging a document.
#[derive(Debug)]
pub struct Salvaged {
    /// The document without the omissions listed below.
    pub snapshot: Snapshot,
    /// The entries that were applied without the attributes that they set.
    pub without_attributes: Vec<Revision>,
    /// The first entry that could not be applied at all. It and all later ones are left out.
    pub left_out_from: Option<Revision>,
}

impl Salvaged {
    /// A document without omissions.
    #[must_use]
    pub fn whole(snapshot: Snapshot) -> Self {
        Self {
            snapshot,
            without_attributes: Vec::new(),
            left_out_from: None,
        }
    }

    /// Returns true if the log folds without omissions.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.without_attributes.is_empty() && self.left_out_from.is_none()
    }
}

/// Folds a log of which some entries make the document larger than
/// [`CONTENT_BYTES_MAX`](crate::ot::CONTENT_BYTES_MAX). Such an entry is applied without its attributes. The text and all
/// lengths stay the same, so that later entries still fit.
#[must_use]
pub fn salvage(snapshot: Snapshot, entries: &[Arc<Entry>]) -> Salvaged {
    let mut salvaged = Salvaged::whole(snapshot);
    for entry in entries {
        let folded = salvaged.snapshot.fold(entry);
        if folded.as_ref().is_err_and(FoldError::is_too_large)
            && let Change::Edit(op) = &entry.change
        {
            let plain = Entry {
                change: Change::Edit(op.without_attributes()),
                ..Entry::clone(entry)
            };
            if salvaged.snapshot.fold(&plain).is_ok() {
                salvaged.without_attributes.push(entry.revision);
                continue;
            }
        }
        if folded.is_err() {
            salvaged.left_out_from = Some(entry.revision);
            break;
        }
    }
    salvaged
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{ClientId, UserId};
    use crate::log::{Epoch, SubmitId};
    use crate::ot::{Content, Kind, Op};

    fn entry(revision: u64, change: Change) -> Arc<Entry> {
        let client = ClientId::parse("ann").unwrap();
        let id = SubmitId {
            author: UserId::anyone(),
            client,
            seq: revision,
        };
        Arc::new(Entry {
            revision: Revision(revision),
            epoch: Epoch(1),
            id,
            at_ms: revision,
            change,
        })
    }

    fn edit(revision: u64, json: &str) -> Arc<Entry> {
        let op = Op::parse_logged(Kind::RichText, json).unwrap();
        entry(revision, Change::Edit(op))
    }

    /// 2,000 runs of one letter, a megabyte of attributes for each, and a letter after them.
    fn poisoned() -> Vec<Arc<Entry>> {
        let runs: Vec<String> = (0..2_000)
            .map(|at| format!(r#"{{"insert":"{}","attributes":{{"n":{at}}}}}"#, at % 10))
            .collect();
        let content = Content::create(Kind::RichText, Some(&format!("[{}]", runs.join(","))));
        let big = "x".repeat(1 << 20);
        vec![
            entry(1, Change::Create(content.unwrap())),
            edit(
                2,
                &format!(r#"[{{"retain":2000,"attributes":{{"a":"{big}","bold":true}}}}]"#),
            ),
            edit(3, r#"[{"retain":2000},{"insert":"end"}]"#),
        ]
    }

    #[test]
    fn oversized_entry_is_salvaged_without_its_attributes() {
        let entries = poisoned();
        let mut snapshot = Snapshot::default();
        let error = snapshot.fold_all(&entries).unwrap_err();
        assert!(error.is_too_large(), "{error}");
        assert_eq!(snapshot.revision, Revision(1), "what can be read is kept");
        let salvaged = salvage(Snapshot::default(), &entries);
        assert_eq!(salvaged.without_attributes, [Revision(2)]);
        assert_eq!(salvaged.left_out_from, None);
        let content = salvaged.snapshot.content.unwrap();
        let text = content.to_text();
        assert!(
            text.starts_with("0123") && text.ends_with("789end"),
            "{}",
            &text[..10]
        );
        assert_eq!(
            (content.len(), salvaged.snapshot.revision),
            (2_003, Revision(3))
        );
    }

    #[test]
    fn recreated_document_folds_regardless_of_its_past() {
        let mut entries = poisoned();
        let content = Content::create(Kind::RichText, Some(r#"[{"insert":"a"}]"#)).unwrap();
        entries.push(entry(4, Change::Delete));
        entries.push(entry(5, Change::Create(content.clone())));
        let mut snapshot = Snapshot::default();
        snapshot.fold_all(&entries).unwrap();
        assert_eq!(
            (snapshot.revision, snapshot.content),
            (Revision(5), Some(content))
        );
        entries.remove(2);
        let gap = Snapshot::default().fold_all(&entries).unwrap_err();
        assert!(matches!(gap, FoldError::Gap { .. }), "{gap}");
    }

    #[test]
    fn entries_after_one_that_does_not_fit_are_left_out() {
        let entries = [edit(1, r#"[{"insert":"a"}]"#)];
        let salvaged = salvage(Snapshot::default(), &entries);
        assert_eq!(salvaged.left_out_from, Some(Revision(1)));
        assert!(!salvaged.is_whole());
    }
}
