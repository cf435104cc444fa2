//! The parameters of a run: its documents, its clients and their groups.

use std::time::Duration;

use copydesk::ot::Kind;

use super::Tempo;

/// The documents and clients of a run.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) scenario: &'static str,
    pub(crate) kind: Kind,
    pub(crate) chars: u64,
    pub(crate) docs: usize,
    pub(crate) clients: Vec<ClientPlan>,
    /// The names of the groups in which latencies are counted apart.
    pub(crate) groups: Vec<&'static str>,
    /// Whether the editors type, rather than write anywhere.
    pub(crate) typing: bool,
    /// Whether refused submits are only counted.
    pub(crate) tolerates_refusals: bool,
    /// What the report says besides of the run.
    pub(crate) parameters: Vec<(&'static str, serde_json::Value)>,
}

/// One client.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ClientPlan {
    pub(crate) doc: usize,
    pub(crate) group: usize,
    /// Which of the server's addresses it connects to.
    pub(crate) endpoint: usize,
    pub(crate) role: ClientRole,
}

/// What a client does.
#[derive(Debug, Clone, Copy)]
pub(crate) enum ClientRole {
    /// Edits so often in a second at speed 1; none: as fast as it is acknowledged.
    Editor(Option<f64>),
    Reader,
    /// A reader that connects again whenever its connection is cut.
    ReturningReader,
}

impl Plan {
    /// A plan without clients.
    pub(crate) fn new(scenario: &'static str, kind: Kind, chars: u64, docs: usize) -> Self {
        Self {
            scenario,
            kind,
            chars,
            docs,
            clients: Vec::new(),
            groups: vec!["all"],
            typing: true,
            tolerates_refusals: false,
            parameters: Vec::new(),
        }
    }

    /// As many editors and readers for each document, over all addresses in turn.
    pub(crate) fn uniform(mut self, editors: usize, readers: usize, rate: Option<f64>) -> Self {
        for number in 0..editors + readers {
            let role = if number < editors {
                ClientRole::Editor(rate)
            } else {
                ClientRole::Reader
            };
            for doc in 0..self.docs {
                self.client(doc, 0, role);
            }
        }
        self.parameter("editors", editors);
        self.parameter("readers", readers);
        if let Some(rate) = rate {
            self.parameter("rate", rate);
        }
        self
    }

    /// Adds a client, which connects to the next address.
    pub(crate) fn client(&mut self, doc: usize, group: usize, role: ClientRole) {
        let endpoint = self.clients.len();
        self.clients.push(ClientPlan {
            doc,
            group,
            endpoint,
            role,
        });
    }

    pub(crate) fn parameter(&mut self, name: &'static str, value: impl Into<serde_json::Value>) {
        self.parameters.push((name, value.into()));
    }

    /// Number of editors.
    pub(crate) fn editors(&self) -> usize {
        let editors = self.clients.iter();
        editors
            .filter(|client| matches!(client.role, ClientRole::Editor(_)))
            .count()
    }
}

/// A part of the measured time.
#[derive(Debug, Clone)]
pub(crate) struct SegmentPlan {
    /// What the report calls it.
    pub(crate) name: String,
    pub(crate) tempo: Tempo,
    /// How long to load the server before measuring.
    pub(crate) settle: Duration,
    pub(crate) measure: Duration,
}
