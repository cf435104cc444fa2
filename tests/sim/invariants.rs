//! The invariants that hold at the end of every scenario.

use std::collections::BTreeMap;
use std::sync::Arc;

use copydesk::id::ClientId;
use copydesk::log::{Entry, Epoch, Revision, Snapshot};

use super::clients::SimClient;
use super::probe_client::ProbeClient;
use super::world::{Creation, World};

/// Checks a scenario that has ended.
pub(crate) fn check(world: &World) -> Result<(), String> {
    if let Some(violation) = &world.violation {
        return Err(violation.clone());
    }
    (0..world.docs.len()).try_for_each(|doc| check_document(world, doc))
}

fn check_document(world: &World, doc: usize) -> Result<(), String> {
    let log = world.store.log(&world.docs[doc]);
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
        check_client(world, client, &head, &places)?;
    }
    for probe in world.probes.iter().filter(|probe| probe.doc == doc) {
        check_probe(&probe.machine, &head, &places)?;
    }
    log.iter()
        .try_for_each(|entry| check_author(world, doc, entry))
}

/// The revision of each submit in the log.
type Places = BTreeMap<(ClientId, u64), Revision>;

fn check_client(
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
    if machine.anomalies().rollbacks > 0 && world.creation == Creation::Once {
        return Err(format!("{id} rolled changes back"));
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
        return Err(format!(
            "{id} was sent a rejection, and its submit is at {place}"
        ));
    }
    Ok(())
}

fn check_probe(probe: &ProbeClient, head: &Snapshot, places: &Places) -> Result<(), String> {
    if !probe.is_at_rest(head.revision) {
        return Err(format!("the probe still waits: {probe:?}"));
    }
    for seq in &probe.refused {
        if let Some(place) = places.get(&(probe.client.clone(), *seq)) {
            return Err(format!("{seq} was refused and is at {place}: {probe:?}"));
        }
    }
    Ok(())
}

/// Checks that a client or probe submitted the entry to this document.
fn check_author(world: &World, doc: usize, entry: &Entry) -> Result<(), String> {
    let id = &entry.id;
    let clients = world.clients.iter().filter(|client| client.doc == doc);
    let clients = clients.map(|client| (client.machine.id(), client.machine.submits()));
    let probes = world.probes.iter().filter(|probe| probe.doc == doc);
    let probes = probes.map(|probe| (&probe.machine.client, probe.machine.submits()));
    let known = clients
        .chain(probes)
        .any(|(client, submits)| *client == id.client && id.seq <= submits);
    known
        .then_some(())
        .ok_or_else(|| format!("no client submitted {id:?}"))
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
