//! What the parts of a node share.

use std::sync::Arc;

use tokio::runtime::Handle;

use super::clock::NodeClock;
use super::cluster::log_history::LogHistory;
use super::cluster::peers::Peers;
use super::cluster::save_check::SaveChecks;
use super::cluster::store_status::StoreStatus;
use super::delivery::encoder::FrameEncoder;
use super::delivery::snapshot_budget::SnapshotBudget;
use super::document::loader::DocumentLoader;
use super::document::mailbox::Mailboxes;
use super::document::slices::SlicePool;
use super::faults::FaultService;
use super::metrics::NodeMetrics;
use super::presence::service::PresenceService;
use super::settings::NodeSettings;
use crate::cluster::Transport;
use crate::id::NodeId;
use crate::store::Store;

/// What a node is connected to.
#[derive(Debug)]
pub struct NodeEnvironment {
    /// The store of all documents.
    pub store: Arc<dyn Store>,
    /// The way to the other nodes; `None` for a node that is alone.
    pub transport: Option<Arc<dyn Transport>>,
    /// Encodes what sockets are sent.
    pub encoder: &'static dyn FrameEncoder,
    /// Where the tasks of documents run: not on the single-threaded runtime of a socket.
    pub runtime: Handle,
    /// Where the node measures.
    pub metrics: NodeMetrics,
}

/// What the parts of a node share: the documents' tasks, the background tasks and the requests of the gateway.
#[derive(Debug)]
pub(super) struct NodeServices {
    pub(super) id: NodeId,
    pub(super) settings: NodeSettings,
    pub(super) clock: NodeClock,
    pub(super) runtime: Handle,
    pub(super) store: Arc<dyn Store>,
    pub(super) store_status: Arc<StoreStatus>,
    pub(super) save_checks: SaveChecks,
    pub(super) log_history: LogHistory,
    pub(super) peers: Arc<Peers>,
    pub(super) documents: Arc<Mailboxes>,
    pub(super) loader: DocumentLoader,
    pub(super) faults: Arc<FaultService>,
    pub(super) slices: SlicePool,
    pub(super) snapshots: Arc<SnapshotBudget>,
    pub(super) presence: Arc<PresenceService>,
    pub(super) encoder: &'static dyn FrameEncoder,
    pub(super) metrics: Arc<NodeMetrics>,
}

impl NodeServices {
    pub(super) fn new(
        (id, name): (NodeId, &str),
        settings: NodeSettings,
        environment: NodeEnvironment,
    ) -> Self {
        let NodeEnvironment {
            store,
            transport,
            encoder,
            runtime,
            metrics,
        } = environment;
        let metrics = Arc::new(metrics);
        let me = (id, settings.version.clone());
        let peers = Arc::new(Peers::new(
            me,
            transport,
            settings.dead_after(),
            metrics.clone(),
        ));
        let documents = Arc::new(Mailboxes::new());
        let snapshots = Arc::new(SnapshotBudget::new(settings.snapshots_bytes_max));
        let store_status = Arc::new(StoreStatus::default());
        let faults = Arc::new(FaultService::start(
            (id, name.into()),
            settings.dead_letters.clone(),
            (store.clone(), documents.clone()),
            (metrics.clone(), &runtime),
        ));
        let loader = DocumentLoader::new(
            (id, faults.clone()),
            (store.clone(), store_status.clone()),
            documents.clone(),
            (snapshots.clone(), encoder),
            settings.claims_max,
            metrics.clone(),
        );
        let presence = PresenceService::new(peers.clone(), documents.clone(), encoder);
        Self {
            id,
            clock: NodeClock::new(settings.clock_offset_ms),
            settings,
            runtime,
            store,
            store_status,
            save_checks: SaveChecks::default(),
            log_history: LogHistory::default(),
            peers,
            documents,
            loader,
            faults,
            slices: SlicePool::new(),
            snapshots,
            presence: Arc::new(presence),
            encoder,
            metrics,
        }
    }
}
