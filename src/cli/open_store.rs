//! The store that the configuration names.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use copydesk::config::Config;
use copydesk::id::NodeId;
use copydesk::store::{
    AccessStore, PostgresStore, SqliteSettings, SqliteStore, Store, StoreMetrics,
};

/// An open store.
pub(super) enum OpenStore {
    Sqlite(Arc<SqliteStore>),
    Postgres(Arc<PostgresStore>),
}

impl OpenStore {
    /// Opens a store whose database exists. An operator's command in the wrong folder, or with the wrong address, must not
    /// create an empty database and report success.
    pub(super) async fn open_existing(config: &Config, me: NodeId) -> Result<Self> {
        let status = match config.is_shared() {
            true => PostgresStore::migrate(&config.postgres, None).await?,
            false => SqliteStore::migration_status(&config.server.data)?,
        };
        ensure!(
            !status.applied.is_empty(),
            "the database has no tables of Copydesk: check its address"
        );
        Self::open(config, me).await
    }

    pub(super) async fn open(config: &Config, me: NodeId) -> Result<Self> {
        Self::open_measured(config, me, StoreMetrics::default()).await
    }

    /// Opens the store, which measures into `metrics`.
    pub(super) async fn open_measured(
        config: &Config,
        me: NodeId,
        metrics: StoreMetrics,
    ) -> Result<Self> {
        if config.is_shared() {
            let (settings, name) = (&config.postgres, node_name(config));
            let store = PostgresStore::open_measured(settings, me, &name, metrics).await?;
            return Ok(Self::Postgres(Arc::new(store)));
        }
        let settings = SqliteSettings {
            folder: config.server.data.clone(),
            size_max_mib: config.server.data_mib_max,
            ..SqliteSettings::default()
        };
        Ok(Self::Sqlite(Arc::new(SqliteStore::open_measured(
            &settings, metrics,
        )?)))
    }

    pub(super) fn get(&self) -> Arc<dyn Store> {
        match self {
            Self::Sqlite(store) => store.clone(),
            Self::Postgres(store) => store.clone(),
        }
    }

    /// The store as the store of accounts.
    pub(super) fn accounts(&self) -> Arc<dyn AccessStore> {
        match self {
            Self::Sqlite(store) => store.clone(),
            Self::Postgres(store) => store.clone(),
        }
    }

    pub(super) async fn close(&self) -> Result<()> {
        match self {
            Self::Sqlite(store) => store.close().await?,
            Self::Postgres(store) => store.close().await?,
        }
        Ok(())
    }
}

/// Draws the id of a node. It is new at every start, so that messages to an earlier process are not taken for this one.
pub(super) fn new_node_id() -> Result<NodeId> {
    let mut id = [0; 8];
    getrandom::fill(&mut id).context("draw the node's id")?;
    Ok(NodeId(u64::from_le_bytes(id)))
}

/// The name of this node in logs and responses.
pub(super) fn node_name(config: &Config) -> String {
    if !config.server.node.is_empty() {
        return config.server.node.clone();
    }
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    match name.trim() {
        "" => "node".to_owned(),
        name => name.to_owned(),
    }
}
