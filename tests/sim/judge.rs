//! What must hold at the end of every story.

use std::collections::BTreeMap;
use std::sync::Arc;

use copydesk::log::{Entry, Epoch, Snapshot};

use super::world::{Lives, SimVisitor, World};

/// Judges a story that has ended.
pub(crate) fn judge(world: &World) -> Result<(), String> {
    if let Some(fault) = &world.fault {
        return Err(fault.clone());
    }
    let log = world.log();
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
    for (index, client) in world.clients.iter().enumerate() {
        let machine = &client.machine;
        if !machine.is_settled() {
            return Err(format!("client {index} still waits: {machine:?}"));
        }
        if machine.revision() != Some(head.revision) {
            return Err(format!(
                "client {index} is at {:?}, the log at {}",
                machine.revision(),
                head.revision
            ));
        }
        if machine.content() != head.content.as_ref() {
            return Err(format!(
                "client {index} differs: {:?}, the log: {:?}",
                machine.content(),
                head.content
            ));
        }
        if machine.troubles().rollbacks > 0 && world.lives == Lives::One {
            return Err(format!("client {index} had work thrown away"));
        }
        for (seq, revision) in machine.acknowledged() {
            if places.get(&(machine.id().clone(), *seq)) != Some(revision) {
                return Err(format!(
                    "client {index}: the ack of {seq} at {revision} is not in the log"
                ));
            }
        }
    }
    for (index, visitor) in world.visitors.iter().enumerate() {
        if !visitor.machine.rests(head.revision) {
            return Err(format!(
                "visitor {index} still waits: {:?}",
                visitor.machine
            ));
        }
    }
    for entry in &log {
        let visits = |visitor: &SimVisitor| {
            visitor.machine.client == entry.id.client && entry.id.seq <= visitor.machine.submits()
        };
        if world.visitors.iter().any(visits) {
            continue;
        }
        let known = world
            .clients
            .iter()
            .find(|client| *client.machine.id() == entry.id.client);
        if known.is_none_or(|client| entry.id.seq > client.machine.submits()) {
            return Err(format!("nobody submitted {:?}", entry.id));
        }
    }
    Ok(())
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
