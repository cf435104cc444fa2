//! Whether a run came out right: one log, in which every acknowledged submit is once and nothing is that nobody sent, and
//! the same document for everybody.

use std::collections::HashMap;

use copydesk::id::ClientId;
use copydesk::log::{Entry, Revision, Snapshot};
use copydesk::ot::Content;

/// What one client says that it did.
#[derive(Debug, Clone)]
pub(crate) struct Claim {
    /// It submitted the counts 1 to this.
    pub(crate) submits: u64,
    /// What was acknowledged, in order: the count, and the revision that it led to.
    pub(crate) acknowledged: Vec<(u64, Revision)>,
}

/// Reads a log beside the claims of those who wrote it.
#[derive(Debug)]
pub(crate) struct Checker {
    claims: HashMap<ClientId, Reading>,
    /// The log so far, folded.
    folded: Snapshot,
    faults: Faults,
}

#[derive(Debug)]
struct Reading {
    claim: Claim,
    /// How many of the acks have been found in the log.
    found: usize,
    /// The last count that was found.
    last: u64,
}

/// What is wrong: the first few, and how many more.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    pub(crate) told: Vec<String>,
    pub(crate) count: u64,
}

const FAULTS_TOLD: usize = 8;

impl Faults {
    pub(crate) fn add(&mut self, fault: String) {
        self.count += 1;
        if self.told.len() < FAULTS_TOLD {
            self.told.push(fault);
        }
    }

    pub(crate) fn extend(&mut self, other: Self) {
        self.count += other.count;
        let room = FAULTS_TOLD.saturating_sub(self.told.len());
        self.told.extend(other.told.into_iter().take(room));
    }
}

impl Checker {
    pub(crate) fn new(claims: HashMap<ClientId, Claim>) -> Self {
        let reading = |claim| Reading {
            claim,
            found: 0,
            last: 0,
        };
        Self {
            claims: claims
                .into_iter()
                .map(|(client, claim)| (client, reading(claim)))
                .collect(),
            folded: Snapshot::default(),
            faults: Faults::default(),
        }
    }

    /// Reads the next entry of the log.
    pub(crate) fn entry(&mut self, entry: &Entry) {
        if let Err(error) = self.folded.fold(entry) {
            self.faults.add(format!("the log does not fold: {error}"));
            self.folded.revision = entry.revision;
        }
        let (client, seq, revision) = (entry.id.client.as_str(), entry.id.seq, entry.revision);
        let Some(reading) = self.claims.get_mut(&entry.id.client) else {
            let fault = format!("revision {revision} is of {client}, who is none of ours");
            return self.faults.add(fault);
        };
        if seq == 0 || seq > reading.claim.submits {
            self.faults.add(format!(
                "revision {revision} holds submit {seq} of {client}, who never sent it"
            ));
            return;
        }
        if seq <= reading.last {
            self.faults.add(format!(
                "revision {revision} holds submit {seq} of {client} again"
            ));
            return;
        }
        reading.last = seq;
        while let Some((acked, at)) = reading.claim.acknowledged.get(reading.found) {
            if *acked > seq {
                break;
            }
            reading.found += 1;
            if *acked < seq {
                self.faults.add(format!(
                    "submit {acked} of {client} was acknowledged at {at} and is lost"
                ));
            } else if *at != revision {
                self.faults.add(format!(
                    "submit {seq} of {client} was acknowledged at {at} and is at {revision}"
                ));
            }
        }
    }

    /// The log is read; the server shows `shown`. Returns the document's length in entries, its content and the faults.
    pub(crate) fn finish(mut self, shown: &(Revision, Option<Content>)) -> (Snapshot, Faults) {
        // In the order of names: the same faults are told in the same order.
        let mut claims: Vec<_> = self.claims.into_iter().collect();
        claims.sort_by(|one, other| one.0.cmp(&other.0));
        for (client, reading) in claims {
            for (seq, at) in &reading.claim.acknowledged[reading.found..] {
                let client = client.as_str();
                self.faults.add(format!(
                    "submit {seq} of {client} was acknowledged at {at} and is lost"
                ));
            }
        }
        if self.folded.revision != shown.0 {
            let fault = format!(
                "the log ends at {}, the document is at {}",
                self.folded.revision, shown.0
            );
            self.faults.add(fault);
        } else if self.folded.content != shown.1 {
            self.faults
                .add("the log folds to another document than the server shows".to_owned());
        }
        (self.folded, self.faults)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire;
    use copydesk::log::Change;
    use copydesk::ot::{Kind, Op};

    fn name(client: &str) -> ClientId {
        ClientId::parse(client).unwrap()
    }

    fn entry(revision: u64, client: &str, seq: u64, op: &str) -> Entry {
        let change = match op {
            "create" => Change::Create(Content::create(Kind::TextUnicode, None).unwrap()),
            op => Change::Edit(Op::parse(Kind::TextUnicode, op).unwrap()),
        };
        wire::entry(name(client), seq, Revision(revision), change)
    }

    fn log() -> Vec<Entry> {
        vec![
            entry(1, "clerk", 1, "create"),
            entry(2, "ann", 1, r#"["a"]"#),
            entry(3, "bob", 1, r#"[1,"b"]"#),
            entry(4, "ann", 2, r#"[2,"c"]"#),
        ]
    }

    fn faults(log: &[Entry], text: &str) -> Vec<String> {
        let claim = |acks: &[(u64, u64)]| Claim {
            submits: acks.len() as u64,
            acknowledged: acks.iter().map(|(seq, at)| (*seq, Revision(*at))).collect(),
        };
        let claims = [
            ("clerk", claim(&[(1, 1)])),
            ("ann", claim(&[(1, 2), (2, 4)])),
            ("bob", claim(&[(1, 3)])),
        ];
        let claims = claims
            .into_iter()
            .map(|(client, claim)| (name(client), claim))
            .collect();
        let mut checker = Checker::new(claims);
        log.iter().for_each(|entry| checker.entry(entry));
        let json = serde_json::to_string(text).unwrap();
        let content = Content::create(Kind::TextUnicode, Some(&json)).unwrap();
        checker.finish(&(Revision(4), Some(content))).1.told
    }

    #[test]
    fn sound_log_has_no_faults() {
        assert_eq!(faults(&log(), "abc"), Vec::<String>::new());
    }

    #[test]
    fn doctored_log_is_noticed() {
        let doctored = |doctor: fn(&mut Vec<Entry>)| {
            let mut log = log();
            doctor(&mut log);
            faults(&log, "abc")
        };
        let lost = doctored(|log| drop(log.pop()));
        assert!(
            lost.iter()
                .any(|fault| fault.contains("submit 2 of ann was acknowledged at 4 and is lost"))
        );
        let gap = doctored(|log| drop(log.remove(2)));
        assert!(gap.iter().any(|fault| fault.contains("does not fold")));
        let twice = doctored(|log| log[3].id.seq = 1);
        assert!(
            twice
                .iter()
                .any(|fault| fault.contains("submit 1 of ann again"))
        );
        let foreign = doctored(|log| log[2].id.client = name("eve"));
        assert!(
            foreign
                .iter()
                .any(|fault| fault.contains("eve, who is none of ours"))
        );
        let invented = doctored(|log| log[2].id.seq = 9);
        assert!(
            invented
                .iter()
                .any(|fault| fault.contains("submit 9 of bob, who never sent it"))
        );
        let swapped = doctored(|log| {
            let id = log[1].id.clone();
            log[1].id = std::mem::replace(&mut log[2].id, id);
        });
        assert!(
            swapped
                .iter()
                .any(|fault| fault.contains("was acknowledged at 2 and is at 3"))
        );
        let edited = doctored(|log| {
            *log = {
                let mut it = log.clone();
                it[2] = entry(3, "bob", 1, r#"[1,"x"]"#);
                it
            }
        });
        assert_eq!(
            edited,
            ["the log folds to another document than the server shows"]
        );
    }
}
