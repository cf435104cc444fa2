//! Checks the result of a run: the log has every acknowledged submit exactly once and no op that was not sent, and all
//! clients have the same document.

use std::collections::HashMap;

use copydesk::id::ClientId;
use copydesk::log::{Entry, Revision, Snapshot};
use copydesk::ot::Content;

/// The submits and acks of one client.
#[derive(Debug, Clone)]
pub(crate) struct Claim {
    /// Number of its submits: their sequence numbers are 1 to this.
    pub(crate) submits: u64,
    /// The acknowledged submits in order: sequence number and revision.
    pub(crate) acknowledged: Vec<(u64, Revision)>,
}

/// Compares a log with the claims of its authors.
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
    /// Number of acks that were found in the log.
    found: usize,
    /// The last sequence number that was found.
    last: u64,
}

/// The faults that were found: the first few, and their number.
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

    /// Checks the next entry of the log.
    pub(crate) fn entry(&mut self, entry: &Entry) {
        if let Err(error) = self.folded.fold(entry) {
            self.faults.add(format!("the log does not fold: {error}"));
            self.folded.revision = entry.revision;
        }
        let (client, seq, revision) = (entry.id.client.as_str(), entry.id.seq, entry.revision);
        let Some(reading) = self.claims.get_mut(&entry.id.client) else {
            let fault =
                format!("revision {revision} is of {client}, which is not a client of this run");
            return self.faults.add(fault);
        };
        if seq == 0 || seq > reading.claim.submits {
            self.faults.add(format!(
                "revision {revision} holds submit {seq} of {client}, which never sent it"
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

    /// Ends the check: the server's snapshot is `shown`. Returns the folded log and the faults.
    pub(crate) fn finish(mut self, shown: &(Revision, Option<Content>)) -> (Snapshot, Faults) {
        // Sorted by client id, so that the report has a stable order.
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
                .any(|fault| fault.contains("eve, which is not a client of this run"))
        );
        let invented = doctored(|log| log[2].id.seq = 9);
        assert!(
            invented
                .iter()
                .any(|fault| fault.contains("submit 9 of bob, which never sent it"))
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
