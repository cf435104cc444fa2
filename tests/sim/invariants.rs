//! What must hold at the end of every story.

use std::collections::BTreeMap;
use std::sync::Arc;

use copydesk::id::ClientId;
use copydesk::log::{Entry, Epoch, Revision, Snapshot};

use super::clients::SimClient;
use super::probe_client::Visitor;
use super::world::{Lives, World};

/// Judges a story that has ended.
pub(crate) fn judge(world: &World) -> Result<(), String> {
    if let Some(fault) = &world.fault {
        return Err(fault.clone());
    }
    (0..world.docs.len()).try_for_each(|doc| judge_document(world, doc))
}

fn judge_document(world: &World, doc: usize) -> Result<(), String> {
    let log = world.depot.log(&world.docs[doc]);
    let head = fold(&log)?;
    let mut places = BTreeMap::new();
    for entry in &log {
        let key = (entry.id.client.clone(), entry.id.seq);
        if let Some(other) = places.insert(key, entry.revision) {
            return Err(format!(
                "{:?} is in the log twice: at {other} and {}",
                entry.id, entry.revision
            ));
        }
    }
    for client in world.clients.iter().filter(|client| client.doc == doc) {
        judge_client(world, client, &head, &places)?;
    }
    for visitor in world.visitors.iter().filter(|visitor| visitor.doc == doc) {
        judge_visitor(&visitor.machine, &head, &places)?;
    }
    log.iter()
        .try_for_each(|entry| judge_author(world, doc, entry))
}

/// Where in the log each submit is.
type Places = BTreeMap<(ClientId, u64), Revision>;

fn judge_client(
    world: &World,
    SimClient { machine, .. }: &SimClient,
    head: &Snapshot,
    places: &Places,
) -> Result<(), String> {
    let client = machine.id();
    let id = client.as_str();
    if !machine.is_settled() {
        return Err(format!("{id} still waits: {machine:?}"));
    }
    if machine.revision() != Some(head.revision) {
        let (at, head) = (machine.revision(), head.revision);
        return Err(format!("{id} is at {at:?}, the log at {head}"));
    }
    if machine.content() != head.content.as_ref() {
        let (has, head) = (machine.content(), &head.content);
        return Err(format!("{id} differs: {has:?}, the log: {head:?}"));
    }
    if machine.anomalies().rollbacks > 0 && world.lives == Lives::One {
        return Err(format!("{id} had work thrown away"));
    }
    for (seq, revision) in machine.acknowledged() {
        if places.get(&(client.clone(), *seq)) != Some(revision) {
            return Err(format!(
                "the ack of {id}/{seq} at {revision} is not in the log"
            ));
        }
    }
    let mut refused = world.refused.iter().filter(|(other, _)| other == client);
    if let Some(place) = refused.find_map(|refused| places.get(refused)) {
        return Err(format!("{id} was told no, and its submit is at {place}"));
    }
    Ok(())
}

fn judge_visitor(visitor: &Visitor, head: &Snapshot, places: &Places) -> Result<(), String> {
    if !visitor.rests(head.revision) {
        return Err(format!("it still waits: {visitor:?}"));
    }
    for seq in &visitor.refused {
        if let Some(place) = places.get(&(visitor.client.clone(), *seq)) {
            return Err(format!("{seq} was refused and is at {place}: {visitor:?}"));
        }
    }
    Ok(())
}

/// Whether somebody submitted the entry, to this document.
fn judge_author(world: &World, doc: usize, entry: &Entry) -> Result<(), String> {
    let id = &entry.id;
    let clients = world.clients.iter().filter(|client| client.doc == doc);
    let clients = clients.map(|client| (client.machine.id(), client.machine.submits()));
    let visitors = world.visitors.iter().filter(|visitor| visitor.doc == doc);
    let visitors = visitors.map(|visitor| (&visitor.machine.client, visitor.machine.submits()));
    let known = clients
        .chain(visitors)
        .any(|(client, submits)| *client == id.client && id.seq <= submits);
    known
        .then_some(())
        .ok_or_else(|| format!("nobody submitted {id:?}"))
}

fn fold(log: &[Arc<Entry>]) -> Result<Snapshot, String> {
    let mut head = Snapshot::default();
    let mut epoch = Epoch(0);
    for entry in log {
        head.fold(entry).map_err(|error| error.to_string())?;
        if entry.epoch < epoch {
            return Err(format!("the epoch falls at {}", entry.revision));
        }
        epoch = entry.epoch;
    }
    Ok(head)
}
