//! Plays a recorded editing session.

use std::cell::RefCell;
use std::collections::HashMap;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Instant;

use anyhow::{Context, Result};
use copydesk::log::Revision;
use copydesk::ot::{Content, Kind};

use super::session::Session;
use crate::admin_client::AdminClient;
use crate::check::{Checker, Claim, Faults};
use crate::commit_recorder::CommitRecorder;
use crate::options::Common;
use crate::process::{bar, interrupted, raise_file_limit};
use crate::report::{Report, Unit};
use crate::server::Cost;
use crate::socket::Target;
use crate::stats::Stats;
use crate::trace::Trace;

/// Plays a recorded editing session of the editing-traces collection (.json or .json.gz), and compares the end text.
///
/// A sequential trace is one client's: each transaction is one op, sent when the one before is acknowledged, and the end
/// text must be the trace's to the letter.
///
/// In a concurrent trace each agent is a client of its own. A transaction says exactly which others its agent had seen,
/// and is made on exactly that text: commits are held back from an agent's client until the agent is to see them, and
/// where the protocol forces the client to know more (it has one op in flight, and its ack stands behind the others'
/// commits), what it was told is held back from the agent behind it. So every transaction is played as recorded wherever
/// what an agent had seen of the others stands at the beginning of what the server put in order; the report counts the
/// transactions for which that is not so. The order in which concurrent inserts at one place end up is the server's, not
/// the recorder's: where the trace has such inserts, its end text and ours may differ by them. The report says by how
/// much; only the same text for all clients is demanded then.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// The trace.
    file: PathBuf,
    /// Play only so many transactions. The end text is then not compared with the trace's.
    #[arg(long)]
    first: Option<usize>,
}

pub(crate) async fn run(common: &Common, options: &Options) -> Result<Report> {
    let mut trace = Trace::open(&options.file)?;
    let whole = options
        .first
        .is_none_or(|first| first >= trace.transactions.len());
    trace
        .transactions
        .truncate(options.first.unwrap_or(usize::MAX));
    raise_file_limit(trace.agents as u64)?;
    let target = Target::resolve(common).await?;
    let doc = common.doc("replay", 0)?;
    let mut admin = AdminClient::new(&target).await?;
    let start = serde_json::to_string(&trace.start)?;
    admin
        .create(&doc, Content::create(Kind::TextUnicode, Some(&start))?)
        .await?;
    let admin_id = admin.id.clone();
    drop(admin);

    let recorder = Rc::new(RefCell::new(CommitRecorder::new(
        doc.clone(),
        Kind::TextUnicode,
    )));
    let mut session = Session::new(&target, &trace, recorder).await?;
    let mut stats = Stats {
        open: true,
        ..Stats::default()
    };
    let pids = target.server_pids(common);
    let before = Cost::of_all(&pids)?;
    let began = Instant::now();
    let played = play(&mut session, &trace, &mut stats).await?;
    let took = began.elapsed();
    let after = Cost::of_all(&pids)?;

    let mut report = Report::new("replay", took);
    report.parameter(
        "trace",
        options
            .file
            .file_name()
            .map_or_else(String::new, |it| it.to_string_lossy().into_owned()),
    );
    report.parameter("agents", trace.agents);
    report.parameter("transactions", played);
    let counts = stats.take_window();
    report.counts(&counts);
    report.cost(&before, &after, &counts);
    report.figure(
        "concurrent_submits",
        "submits on an older revision",
        session.concurrent as f64,
        Unit::Count,
    );
    report.figure(
        "inexact_transactions",
        "not played as recorded",
        session.inexact as f64,
        Unit::Count,
    );

    let mut faults = Faults::default();
    let mut admin = AdminClient::new(&target)
        .await
        .context("come back to check")?;
    let shown = admin.fetch(&doc, Kind::TextUnicode).await?;
    let made = Claim {
        submits: 1,
        acknowledged: vec![(1, Revision(1))],
    };
    let mut claims = HashMap::from([(admin_id, made)]);
    claims.extend(session.claims());
    let mut checker = Checker::new(claims);
    admin
        .log(&doc, Kind::TextUnicode, |entry| checker.entry(entry))
        .await?;
    faults.extend(checker.finish(&shown).1);
    let text = shown.1.as_ref().map(Content::to_text).unwrap_or_default();
    for (agent, seen) in session.texts().enumerate() {
        if seen != text {
            faults.add(format!(
                "agent {agent} sees another document than the server shows"
            ));
        }
    }
    report.checked = format!("{} agents, a fresh fetch and the whole log", trace.agents);
    if whole && played == trace.transactions.len() {
        compare(&trace, &text, &mut report, &mut faults);
    }
    report.faulty(faults);
    Ok(report)
}

/// Plays until the end or Ctrl-C; returns how many transactions were played.
async fn play(session: &mut Session, trace: &Trace, stats: &mut Stats) -> Result<usize> {
    let bar = bar();
    let interrupted = interrupted();
    let mut played = 0_usize;
    for transaction in &trace.transactions {
        if interrupted.get() {
            break;
        }
        session
            .play(trace, transaction, stats)
            .await
            .with_context(|| format!("play transaction {played}"))?;
        played += 1;
        if played.is_multiple_of(100) {
            bar.set_message(format!(
                "{played} of {} transactions",
                trace.transactions.len()
            ));
            bar.tick();
        }
    }
    session
        .finish(stats)
        .await
        .context("wait until all is quiet")?;
    bar.finish_and_clear();
    Ok(played)
}

/// Compares the end text with the trace's.
fn compare(trace: &Trace, text: &str, report: &mut Report, faults: &mut Faults) {
    let (ours, theirs) = difference(text, &trace.end);
    report.figure(
        "end_differs_chars",
        "letters unlike the trace's end",
        ours.max(theirs) as f64,
        Unit::Count,
    );
    if ours + theirs == 0 {
        report.checked.push_str("; the end text is the trace's");
    } else if trace.agents == 1 {
        faults.add(format!(
            "the end text is not the trace's: {ours} letters stand for {theirs}"
        ));
    } else {
        report.checked.push_str(&format!(
            "; the end text is not the trace's: outside their common beginning and end {ours} letters stand for {theirs}"
        ));
    }
}

/// What is left of two texts without their common beginning and end.
fn difference(one: &str, other: &str) -> (usize, usize) {
    let (one, other): (Vec<char>, Vec<char>) = (one.chars().collect(), other.chars().collect());
    let head = one.iter().zip(&other).take_while(|(a, b)| a == b).count();
    let tails = one[head..].iter().rev().zip(other[head..].iter().rev());
    let tail = tails.take_while(|(a, b)| a == b).count();
    (one.len() - head - tail, other.len() - head - tail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn difference_is_what_is_neither_beginning_nor_end() {
        for (one, other, left) in [
            ("", "", (0, 0)),
            ("abc", "abc", (0, 0)),
            ("aXc", "aYYc", (1, 2)),
            ("aa", "aaa", (0, 1)),
        ] {
            assert_eq!(difference(one, other), left, "{one} {other}");
        }
    }
}
