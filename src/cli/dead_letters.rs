//! Commands on dead letters and quarantine. They may be used while nodes are running: the commands write short transactions.

use std::io::{self, BufWriter, Write};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use copydesk::config::Config;
use copydesk::id::DocId;
use copydesk::store::{
    DEAD_LETTERS_PAGE, DeadLetterFilter, FaultStore, PostgresStore, SqliteFaults, StoredDeadLetter,
};
use serde::Serialize;

use super::arguments::{DeadLettersCommand, LetterSelection, QuarantineCommand};
use super::documents::parse_doc;
use super::open_store::{OpenStore, new_node_id};

/// Carries out a command on dead letters.
pub(crate) async fn dead_letters(command: &DeadLettersCommand, config: &Config) -> Result<()> {
    let now_ms = now_ms();
    // Wrong arguments are reported before the store is opened.
    let filter = match command {
        DeadLettersCommand::List(list) => list.selection.filter(now_ms)?,
        DeadLettersCommand::Show(show) => DeadLetterFilter {
            id: Some(show.id),
            ..DeadLetterFilter::default()
        },
        DeadLettersCommand::Export(export) => export.selection.filter(now_ms)?,
        DeadLettersCommand::Purge(purge) => {
            ensure!(
                purge.all || !purge.selection.is_empty(),
                "purge deletes what --doc, --newer-than and --older-than select; use --all to delete all dead letters"
            );
            purge.selection.filter(now_ms)?
        }
    };
    let store = Faults::open(config).await?;
    let done = match command {
        DeadLettersCommand::List(list) => {
            print_table(store.get(), &filter, list.limit, now_ms).await
        }
        DeadLettersCommand::Show(show) => print_letter(store.get(), show.id, filter).await,
        DeadLettersCommand::Export(_) => export(store.get(), &filter).await,
        DeadLettersCommand::Purge(_) => {
            let purged = store.get().purge_dead_letters(filter).await?;
            println!("{purged} dead letters were deleted");
            Ok(())
        }
    };
    store.close().await?;
    ignore_closed_output(done)
}

/// Carries out a command on the quarantine.
pub(crate) async fn quarantine(command: &QuarantineCommand, config: &Config) -> Result<()> {
    let doc = match command {
        QuarantineCommand::List(_) => None,
        QuarantineCommand::Release(release) => Some(parse_doc(&release.doc)?),
    };
    let store = Faults::open(config).await?;
    let done = match doc {
        None => list_quarantine(store.get()).await,
        Some(doc) => release(store.get(), &doc).await,
    };
    store.close().await?;
    ignore_closed_output(done)
}

async fn list_quarantine(store: &dyn FaultStore) -> Result<()> {
    let documents = store.quarantined().await?;
    if documents.is_empty() {
        println!("no document is in quarantine");
        return Ok(());
    }
    let now_ms = now_ms();
    for it in documents {
        let age = age(now_ms, it.since_ms);
        writeln!(
            io::stdout(),
            "{}  for {age}, since a panic on {}",
            it.doc,
            printable(&it.node_name)
        )?;
    }
    Ok(())
}

async fn release(store: &dyn FaultStore, doc: &DocId) -> Result<()> {
    if !store.release_quarantine(doc).await? {
        bail!("{doc} is not in quarantine");
    }
    println!("{doc} was released: running nodes serve it for writing within about a second");
    Ok(())
}

/// The dead letters and the quarantine of the store that the configuration names.
enum Faults {
    /// A data folder, which a server may be using.
    Folder(SqliteFaults),
    Postgres(Arc<PostgresStore>),
}

impl Faults {
    async fn open(config: &Config) -> Result<Self> {
        if !config.is_shared() {
            return Ok(Self::Folder(SqliteFaults::open(&config.server.data)?));
        }
        match OpenStore::open_existing(config, new_node_id()?).await? {
            OpenStore::Postgres(store) => Ok(Self::Postgres(store)),
            OpenStore::Sqlite(_) => bail!("the configuration names Postgres"),
        }
    }

    fn get(&self) -> &dyn FaultStore {
        match self {
            Self::Folder(store) => store,
            Self::Postgres(store) => &**store,
        }
    }

    async fn close(&self) -> Result<()> {
        match self {
            Self::Folder(_) => Ok(()),
            Self::Postgres(store) => Ok(store.close().await?),
        }
    }
}

impl LetterSelection {
    fn is_empty(&self) -> bool {
        self.doc.is_none() && self.newer_than.is_none() && self.older_than.is_none()
    }

    fn filter(&self, now_ms: u64) -> Result<DeadLetterFilter> {
        let at_ms = |age: Duration| {
            now_ms.saturating_sub(u64::try_from(age.as_millis()).unwrap_or(u64::MAX))
        };
        if let (Some(newer), Some(older)) = (self.newer_than, self.older_than) {
            ensure!(
                newer > older,
                "nothing is both newer than --newer-than and older than --older-than"
            );
        }
        Ok(DeadLetterFilter {
            id: None,
            doc: self.doc.as_deref().map(parse_doc).transpose()?,
            from_ms: self.newer_than.map(at_ms),
            until_ms: self.older_than.map(at_ms),
        })
    }
}

/// Prints the newest letters as a table, without their payloads.
async fn print_table(
    store: &dyn FaultStore,
    filter: &DeadLetterFilter,
    limit: usize,
    now_ms: u64,
) -> Result<()> {
    let mut out = BufWriter::new(io::stdout());
    let mut rows = vec![
        [
            "ID",
            "AGE",
            "REASON",
            "BYTES",
            "DOCUMENT",
            "USER",
            "CLIENT/SEQ",
            "NODE",
        ]
        .map(str::to_owned),
    ];
    let mut before = None;
    // One more than is printed shows whether there are more.
    while rows.len() <= limit + 1 {
        let page = store
            .dead_letters(filter.clone(), before, DEAD_LETTERS_PAGE)
            .await?;
        let Some(last) = page.last() else { break };
        before = Some(last.id);
        rows.extend(page.iter().map(|it| row(it, now_ms)));
    }
    if rows.len() == 1 {
        writeln!(out, "no dead letters")?;
        return Ok(out.flush()?);
    }
    let is_cut = rows.len() > limit + 1;
    rows.truncate(limit + 1);
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: Vec<usize> = (0..rows[0].len()).filter_map(width).collect();
    for row in &rows {
        let cells = row.iter().zip(&widths);
        let line: Vec<String> = cells
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        writeln!(out, "{}", line.join("  ").trim_end())?;
    }
    if is_cut {
        writeln!(
            out,
            "There are more: use --limit, --doc, --newer-than or --older-than."
        )?;
    }
    Ok(out.flush()?)
}

fn row(stored: &StoredDeadLetter, now_ms: u64) -> [String; 8] {
    let letter = &stored.letter;
    [
        stored.id.to_string(),
        age(now_ms, letter.at_ms),
        letter.reason.as_str().to_owned(),
        letter.payload_bytes.to_string(),
        letter.doc.to_string(),
        printable(letter.submit.author.as_str()),
        format!("{}/{}", letter.submit.client.as_str(), letter.submit.seq),
        printable(&letter.node_name),
    ]
}

/// Prints one letter with its payload.
async fn print_letter(store: &dyn FaultStore, id: u64, filter: DeadLetterFilter) -> Result<()> {
    let found = store.dead_letters(filter, None, 1).await?;
    let stored = found
        .first()
        .with_context(|| format!("there is no dead letter {id}"))?;
    let mut out = BufWriter::new(io::stdout());
    serde_json::to_writer_pretty(&mut out, &LetterJson::of(stored))?;
    writeln!(out)?;
    Ok(out.flush()?)
}

/// Prints letters as lines of JSON, newest first.
async fn export(store: &dyn FaultStore, filter: &DeadLetterFilter) -> Result<()> {
    let mut out = BufWriter::new(io::stdout());
    let mut before = None;
    loop {
        let page = store
            .dead_letters(filter.clone(), before, DEAD_LETTERS_PAGE)
            .await?;
        let Some(last) = page.last() else { break };
        before = Some(last.id);
        for stored in &page {
            serde_json::to_writer(&mut out, &LetterJson::of(stored))?;
            writeln!(out)?;
        }
    }
    Ok(out.flush()?)
}

/// A dead letter as `show` and `export` print it.
#[derive(Serialize)]
struct LetterJson<'a> {
    id: u64,
    reason: &'static str,
    detail: &'a str,
    collection: &'a str,
    doc: &'a str,
    base: Option<u64>,
    head: u64,
    user: &'a str,
    client: &'a str,
    seq: u64,
    at_ms: u64,
    node: String,
    node_name: &'a str,
    payload: &'a str,
    payload_bytes: u64,
    is_payload_cut: bool,
}

impl<'a> LetterJson<'a> {
    fn of(StoredDeadLetter { id, letter }: &'a StoredDeadLetter) -> Self {
        Self {
            id: *id,
            reason: letter.reason.as_str(),
            detail: &letter.detail,
            collection: letter.doc.collection.as_str(),
            doc: letter.doc.id.as_str(),
            base: letter.base.map(|base| base.0),
            head: letter.head.0,
            user: letter.submit.author.as_str(),
            client: letter.submit.client.as_str(),
            seq: letter.submit.seq,
            at_ms: letter.at_ms,
            node: letter.node.to_string(),
            node_name: &letter.node_name,
            payload: &letter.payload,
            payload_bytes: letter.payload_bytes,
            is_payload_cut: letter.is_cut(),
        }
    }
}

/// A text of a user or a node on a terminal, where control characters could hide or forge lines.
fn printable(text: &str) -> String {
    text.chars()
        .map(|it| if it.is_control() { '?' } else { it })
        .collect()
}

/// The time since `at_ms`, in one unit.
fn age(now_ms: u64, at_ms: u64) -> String {
    let seconds = now_ms.saturating_sub(at_ms) / 1_000;
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7_200 => format!("{}m", seconds / 60),
        7_200..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    u64::try_from(since.unwrap_or_default().as_millis()).unwrap_or(u64::MAX)
}

/// A reader that closes the pipe early, as `head` does, is no failure.
fn ignore_closed_output(done: Result<()>) -> Result<()> {
    match done {
        Err(error)
            if error
                .downcast_ref::<io::Error>()
                .is_some_and(|it| it.kind() == io::ErrorKind::BrokenPipe) =>
        {
            Ok(())
        }
        done => done,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_printed_in_one_unit() {
        let day = 86_400_000;
        for (ms, expected) in [
            (500, "0s"),
            (119_999, "119s"),
            (120_000, "2m"),
            (7_200_000, "2h"),
            (2 * day, "2d"),
        ] {
            assert_eq!(age(10 * day + ms, 10 * day), expected);
        }
        assert_eq!(age(0, 5_000), "0s", "a clock that differs");
    }

    #[test]
    fn selection_becomes_a_filter() {
        let selection = LetterSelection {
            doc: Some("c/a/b".to_owned()),
            newer_than: Some(Duration::from_secs(60)),
            older_than: Some(Duration::from_secs(10)),
        };
        let filter = selection.filter(100_000).unwrap();
        assert_eq!(filter.doc, Some(DocId::parse("c", "a/b").unwrap()));
        assert_eq!(
            (filter.from_ms, filter.until_ms),
            (Some(40_000), Some(90_000))
        );
        let empty = LetterSelection {
            newer_than: Some(Duration::from_secs(10)),
            older_than: Some(Duration::from_secs(60)),
            doc: None,
        };
        assert!(empty.filter(100_000).is_err());
        let wrong = LetterSelection {
            doc: Some("nothing".to_owned()),
            newer_than: None,
            older_than: None,
        };
        assert!(wrong.filter(0).is_err());
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(printable("a\u{1b}[2Jé\n"), "a?[2Jé?");
    }
}
