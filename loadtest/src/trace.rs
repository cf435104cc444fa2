//! Recorded editing sessions in the JSON form of the `editing-traces` collection, plain or gzipped.

use std::fs;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use flate2::read::GzDecoder;
use serde::Deserialize;

/// A recorded session.
#[derive(Debug)]
pub(crate) struct Trace {
    /// The text before the first transaction.
    pub(crate) start: String,
    /// The text after the last one.
    pub(crate) end: String,
    pub(crate) agents: usize,
    /// In an order in which each stands behind its parents.
    pub(crate) transactions: Vec<Transaction>,
}

/// What one agent did at once.
#[derive(Debug)]
pub(crate) struct Transaction {
    pub(crate) agent: usize,
    /// How many transactions of each agent it had seen: exactly these, and nothing else.
    pub(crate) seen: Vec<u32>,
    /// Applied one after the other. Positions and lengths are in code points.
    pub(crate) patches: Vec<Patch>,
}

/// A position, how much is deleted there, and what is inserted then.
pub(crate) type Patch = (u64, u64, String);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Stored {
    #[serde(default)]
    kind: String,
    #[serde(default)]
    start_content: String,
    end_content: String,
    num_agents: Option<usize>,
    txns: Vec<StoredTransaction>,
}

#[derive(Deserialize)]
struct StoredTransaction {
    parents: Option<Vec<usize>>,
    #[serde(default)]
    agent: usize,
    patches: Vec<Patch>,
}

const BYTES_MAX: u64 = 1 << 30;
const AGENTS_MAX: usize = 1_000;

impl Trace {
    /// Reads a file.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let file = fs::read(path).with_context(|| format!("read {}", path.display()))?;
        let mut json = Vec::new();
        if file.starts_with(&[0x1f, 0x8b]) {
            let mut unzip = GzDecoder::new(&file[..]).take(BYTES_MAX);
            unzip
                .read_to_end(&mut json)
                .with_context(|| format!("unzip {}", path.display()))?;
        } else {
            json = file;
        }
        Self::parse(&json).with_context(|| format!("read {}", path.display()))
    }

    fn parse(json: &[u8]) -> Result<Self> {
        let stored: Stored = serde_json::from_slice(json).context("this is no editing trace")?;
        let concurrent = match stored.kind.as_str() {
            "concurrent" => true,
            "" | "flattened" | "sequential" => false,
            kind => bail!("traces of the kind {kind} are not known"),
        };
        let agents = stored.num_agents.unwrap_or(1);
        ensure!(
            (1..=AGENTS_MAX).contains(&agents),
            "a trace has 1 to {AGENTS_MAX} agents, not {agents}"
        );
        let mut transactions: Vec<Transaction> = Vec::with_capacity(stored.txns.len());
        let mut done = vec![0; agents];
        for (index, stored) in stored.txns.into_iter().enumerate() {
            ensure!(
                stored.agent < agents,
                "transaction {index} is of agent {}",
                stored.agent
            );
            let parents = match stored.parents {
                Some(parents) if concurrent => parents,
                _ => index.checked_sub(1).into_iter().collect(),
            };
            let seen = closure(&transactions, &parents, agents)
                .with_context(|| format!("transaction {index}"))?;
            ensure!(
                seen[stored.agent] == done[stored.agent],
                "transaction {index} was made without seeing its own agent's last one: that agent is really several"
            );
            done[stored.agent] += 1;
            transactions.push(Transaction {
                agent: stored.agent,
                seen,
                patches: stored.patches,
            });
        }
        Ok(Self {
            start: stored.start_content,
            end: stored.end_content,
            agents,
            transactions,
        })
    }
}

/// The transactions that an agent has seen if it has seen `parents`, as a count for each agent.
fn closure(transactions: &[Transaction], parents: &[usize], agents: usize) -> Result<Vec<u32>> {
    let mut seen = vec![0; agents];
    for parent in parents {
        let transaction = transactions.get(*parent).context("a parent comes later")?;
        for (mine, theirs) in seen.iter_mut().zip(&transaction.seen) {
            *mine = (*mine).max(*theirs);
        }
        // Its own agent has seen what it saw, and itself.
        let own = &mut seen[transaction.agent];
        *own = (*own).max(transaction.seen[transaction.agent] + 1);
    }
    Ok(seen)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequential_trace_is_one_agents() {
        let json = br#"{"startContent":"a","endContent":"ab","txns":[{"time":"x","patches":[[1,0,"c"]]},{"patches":[[1,1,"b"]]}]}"#;
        let trace = Trace::parse(json).unwrap();
        assert_eq!(
            (trace.start.as_str(), trace.end.as_str(), trace.agents),
            ("a", "ab", 1)
        );
        assert_eq!(trace.transactions[1].seen, [1]);
        assert_eq!(trace.transactions[1].patches, [(1, 1, "b".to_owned())]);
    }

    #[test]
    fn parents_say_what_was_seen() {
        let json = br#"{"kind":"concurrent","endContent":"","numAgents":2,"txns":[
            {"parents":[],"agent":0,"patches":[]},
            {"parents":[0],"agent":1,"patches":[]},
            {"parents":[0],"agent":0,"patches":[]},
            {"parents":[1,2],"agent":1,"patches":[]}]}"#;
        let trace = Trace::parse(json).unwrap();
        let seen: Vec<_> = trace
            .transactions
            .iter()
            .map(|it| it.seen.clone())
            .collect();
        assert_eq!(seen, [[0, 0], [1, 0], [1, 0], [2, 1]]);
    }

    #[test]
    fn what_is_no_trace_is_refused() {
        for json in [
            r#"{}"#,
            r#"{"endContent":"","txns":[{"agent":1,"patches":[]}]}"#,
            r#"{"kind":"concurrent","endContent":"","txns":[{"parents":[0],"patches":[]}]}"#,
            r#"{"kind":"other","endContent":"","txns":[]}"#,
        ] {
            assert!(Trace::parse(json.as_bytes()).is_err(), "{json}");
        }
    }
}
