//! Documents spread over the nodes of a cluster.

use anyhow::{Context, Result, bail, ensure};
use copydesk::id::DocId;
use copydesk::ot::Kind;
use copydesk::store::{PostgresSettings, PostgresStore};

use crate::options::{self, Common};
use crate::report::Report;
use crate::run::{self, ClientRole, Plan, Run};

/// Documents spread over the nodes of a cluster: acks on the owner of a document, and acks by way of another node, apart.
///
/// --url has the address of each node. Every document has as many editors on each node, so one node is the document's owner
/// and the others forward. The owners are read from Postgres before the editors connect.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// The Postgres of the cluster: `postgres://user@host/database`.
    #[arg(long, env = "COPYDESK_STORE", hide_env_values = true)]
    store: String,
    /// The names of the nodes, in the order of --url; by default node-1, node-2 and so on.
    #[arg(long, value_delimiter = ',')]
    nodes: Vec<String>,
    /// How many documents.
    #[arg(long, default_value_t = 60, value_parser = options::count)]
    docs: usize,
    /// Editors of each document on each node.
    #[arg(long, default_value_t = 1, value_parser = options::count)]
    clients: usize,
    /// Edits a second of each editor.
    #[arg(long, default_value_t = 2.0, value_parser = options::above_zero)]
    rate: f64,
    /// How long each document is, about.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u64).range(..=1_000_000))]
    chars: u64,
    /// What kind of documents they are: text-unicode or rich-text.
    #[arg(long = "type", default_value = "text-unicode", value_parser = options::kind)]
    kind: Kind,
}

const OWNER: usize = 0;
const FORWARDED: usize = 1;

pub(crate) async fn run(common: &Common, options: &Options) -> Result<Report> {
    let urls = common.url.split(',').count();
    let names = node_names(urls, &options.nodes)?;
    let mut run = Run::with_documents(common, options.plan(urls)).await?;
    let mut owners = Vec::with_capacity(options.docs);
    for doc in run.doc_ids() {
        owners.push(owner(&options.store, &doc, &names).await?);
    }
    for client in run.planned_clients() {
        let is_owner = owners[client.doc] == client.endpoint;
        client.group = if is_owner { OWNER } else { FORWARDED };
    }
    run.connect_all().await?;
    let segment = run.segment(run::whole(common)).await?;
    let mut report = run.report(&segment);
    run.finish(&mut report).await?;
    Ok(report)
}

impl Options {
    fn plan(&self, urls: usize) -> Plan {
        let mut plan = Plan::new("cluster", self.kind, self.chars, self.docs);
        plan.groups = vec!["owner", "forwarded"];
        for _ in 0..self.clients {
            for doc in 0..self.docs {
                for endpoint in 0..urls {
                    plan.clients.push(run::ClientPlan {
                        doc,
                        group: FORWARDED,
                        endpoint,
                        role: ClientRole::Editor(Some(self.rate)),
                    });
                }
            }
        }
        plan.parameter("editors_per_node", self.clients);
        plan.parameter("rate", self.rate);
        plan
    }
}

/// The name of the node behind each address.
fn node_names(urls: usize, given: &[String]) -> Result<Vec<String>> {
    ensure!(
        urls >= 2,
        "a cluster has several nodes: --url needs the address of each, with commas between them"
    );
    if given.is_empty() {
        return Ok((1..=urls).map(|number| format!("node-{number}")).collect());
    }
    ensure!(
        given.len() == urls,
        "--nodes has {} names and --url {urls} addresses",
        given.len()
    );
    Ok(given.to_vec())
}

/// Which of the nodes owns a document.
async fn owner(store: &str, doc: &DocId, names: &[String]) -> Result<usize> {
    let settings = PostgresSettings {
        url: store.to_owned(),
        ..PostgresSettings::default()
    };
    let found = PostgresStore::locate(&settings, doc)
        .await
        .with_context(|| format!("look up the owner of {doc} in --store"))?;
    let Some(name) = found.and_then(|location| location.owner_name) else {
        bail!("no node owns {doc}: is --store the Postgres of the nodes in --url?");
    };
    let index = names.iter().position(|known| *known == name);
    index.with_context(|| {
        format!(
            "{doc} is owned by the node {name}, which is not among {}: see --nodes",
            names.join(", ")
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_address_needs_a_node() {
        assert!(node_names(1, &[]).is_err());
        assert_eq!(node_names(2, &[]).unwrap(), ["node-1", "node-2"]);
        let names = ["a".to_owned(), "b".to_owned()];
        assert_eq!(node_names(2, &names).unwrap(), names);
        let error = node_names(3, &names).unwrap_err().to_string();
        assert_eq!(error, "--nodes has 2 names and --url 3 addresses");
    }
}
