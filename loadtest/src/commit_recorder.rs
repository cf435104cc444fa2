//! The commits of one document that this process has received, recorded once for all its clients. A server sends all
//! readers the same bytes: a frame equal to the recorded one is not parsed again, and a frame with another meaning is a fault.

use std::collections::{HashMap, VecDeque};
use std::hash::{DefaultHasher, Hasher};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use copydesk::id::{ClientId, DocId};
use copydesk::log::{Entry, Revision};
use copydesk::ot::{Content, Kind};

use crate::wire::{self, ServerFrame};

/// The newest commits of one document, as they were received first.
#[derive(Debug)]
pub(crate) struct CommitRecorder {
    pub(crate) doc: DocId,
    pub(crate) kind: Kind,
    /// One element for each revision from `first` on; empty while only the author of the commit has received it.
    heard: VecDeque<Option<Kept>>,
    /// The revision of the first element.
    first: u64,
    /// Bytes of the recorded frames.
    bytes: usize,
    /// The newest submit of each client: its sequence number and when it was due.
    submitted: HashMap<ClientId, (u64, Instant)>,
    /// The data of the newest snapshot and its content: many clients receive the same one.
    shown: Option<(Box<str>, Content)>,
}

/// A commit as it was received first.
#[derive(Debug, Clone)]
pub(crate) struct Commit {
    pub(crate) entry: Arc<Entry>,
    /// When it was due, if its author is a client of this process.
    pub(crate) due: Option<Instant>,
    /// Hash of the frame's bytes.
    pub(crate) hash: u64,
}

#[derive(Debug)]
struct Kept {
    frame: Box<[u8]>,
    commit: Commit,
}

/// Commits that are recorded for clients that receive them later.
const KEPT_MAX: usize = 20_000;
const KEPT_BYTES_MAX: usize = 64 << 20;

/// A parsed frame, for a client that awaits a revision.
#[derive(Debug)]
pub(crate) enum Received<'a> {
    Commit(Commit),
    Other(ServerFrame<'a>),
}

impl CommitRecorder {
    pub(crate) fn new(doc: DocId, kind: Kind) -> Self {
        Self {
            doc,
            kind,
            heard: VecDeque::new(),
            first: 0,
            bytes: 0,
            submitted: HashMap::new(),
            shown: None,
        }
    }

    /// Records that a client submits. Deliveries of the commit are measured from `due`.
    pub(crate) fn submitted(&mut self, client: &ClientId, seq: u64, due: Instant) {
        if let Some(last) = self.submitted.get_mut(client) {
            *last = (seq, due);
        } else {
            self.submitted.insert(client.clone(), (seq, due));
        }
    }

    /// Parses a frame for a client that awaits revision `next`.
    pub(crate) fn read<'a>(&mut self, next: Revision, frame: &'a [u8]) -> Result<Received<'a>> {
        if let Some(kept) = self.kept(next)
            && *kept.frame == *frame
        {
            return Ok(Received::Commit(kept.commit.clone()));
        }
        match wire::read(self.kind, frame)? {
            ServerFrame::Commit(entry) => self.keep(frame, entry).map(Received::Commit),
            heard => Ok(Received::Other(heard)),
        }
    }

    /// The content of a snapshot's data.
    pub(crate) fn content(&mut self, data: Option<&str>) -> Result<Content> {
        if let Some((known, content)) = &self.shown
            && data == Some(known)
        {
            return Ok(content.clone());
        }
        let content = Content::create(self.kind, data).context("read a snapshot's data")?;
        self.shown = data.map(|data| (data.into(), content.clone()));
        Ok(content)
    }

    /// The newest recorded revision.
    pub(crate) fn head(&self) -> Option<Revision> {
        let len = self.heard.len() as u64;
        (len > 0).then(|| Revision(self.first + len - 1))
    }

    fn place(&self, revision: Revision) -> Option<usize> {
        usize::try_from(revision.0.checked_sub(self.first)?).ok()
    }

    fn kept(&self, revision: Revision) -> Option<&Kept> {
        self.heard.get(self.place(revision)?)?.as_ref()
    }

    fn keep(&mut self, frame: &[u8], entry: Entry) -> Result<Commit> {
        if let Some(kept) = self.kept(entry.revision) {
            let known = &kept.commit.entry;
            ensure!(
                known.id == entry.id && known.change == entry.change,
                "revision {} is told in two ways: {} and {}",
                entry.revision,
                String::from_utf8_lossy(&kept.frame),
                String::from_utf8_lossy(frame),
            );
            return Ok(kept.commit.clone());
        }
        let due = self.submitted.get(&entry.id.client);
        let mut hasher = DefaultHasher::new();
        hasher.write(frame);
        let commit = Commit {
            due: due
                .filter(|(seq, _)| *seq == entry.id.seq)
                .map(|(_, due)| *due),
            hash: hasher.finish(),
            entry: Arc::new(entry),
        };
        self.put(frame, commit.clone());
        Ok(commit)
    }

    fn put(&mut self, frame: &[u8], commit: Commit) {
        let revision = commit.entry.revision;
        if self.heard.is_empty() {
            self.first = revision.0;
        }
        // A commit before the first element is not recorded: a client that is so far behind parses it again.
        let Some(place) = self
            .place(revision)
            .filter(|place| *place < self.heard.len() + KEPT_MAX)
        else {
            return;
        };
        while self.heard.len() <= place {
            self.heard.push_back(None);
        }
        self.bytes += frame.len();
        self.heard[place] = Some(Kept {
            frame: frame.into(),
            commit,
        });
        while self.heard.len() > KEPT_MAX || self.bytes > KEPT_BYTES_MAX {
            let gone = self.heard.pop_front().flatten();
            self.bytes -= gone.map_or(0, |kept| kept.frame.len());
            self.first += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(v: u64, op: &str) -> Vec<u8> {
        format!(r#"{{"a":"op","c":"c","d":"d","v":{v},"src":"A","seq":{v},"op":{op}}}"#)
            .into_bytes()
    }

    #[test]
    fn revision_told_in_two_ways_is_a_fault() {
        let mut recorder = CommitRecorder::new(DocId::parse("c", "d").unwrap(), Kind::TextUnicode);
        let first = frame(4, r#"["a"]"#);
        assert!(matches!(
            recorder.read(Revision(5), &first),
            Ok(Received::Commit(_))
        ));
        let Ok(Received::Commit(again)) = recorder.read(Revision(5), &first) else {
            panic!("a commit")
        };
        assert_eq!(again.entry.revision, Revision(5));
        // The same in other words is the same.
        assert!(recorder.read(Revision(5), &frame(4, r#"[ "a" ]"#)).is_ok());
        assert!(recorder.read(Revision(5), &frame(4, r#"["b"]"#)).is_err());
    }
}
