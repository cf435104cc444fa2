//! TLS with rustls. The certificate files are read again when they change, without a restart.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use thiserror::Error;
use tokio::signal::unix::Signal;
use tokio::time::timeout;

use super::settings::TlsSettings;

/// Why TLS cannot be used.
#[derive(Debug, Error)]
pub enum TlsError {
    /// Only one of the two files is set.
    #[error("tls.cert and tls.key: set both or neither")]
    Half,
    /// A file cannot be read or parsed.
    #[error("read {}: {reason}", .file.display())]
    File {
        /// The file.
        file: PathBuf,
        /// The reason.
        reason: String,
    },
    /// The key does not belong to the certificate, or its kind is not supported.
    #[error("the certificate and the key do not match: {0}")]
    Pair(#[from] rustls::Error),
}

/// The certificate for new connections.
#[derive(Debug)]
pub struct Certificate {
    settings: TlsSettings,
    current: ArcSwap<CertifiedKey>,
}

/// How often the modification times of the files are checked.
const LOOK_INTERVAL: Duration = Duration::from_secs(10);

impl Certificate {
    /// Reads the certificate; `None` if the settings have none.
    ///
    /// # Errors
    /// If the files do not hold a certificate and its key.
    pub fn open(settings: &TlsSettings) -> Result<Option<Arc<Self>>, TlsError> {
        match (
            settings.cert.as_os_str().is_empty(),
            settings.key.as_os_str().is_empty(),
        ) {
            (true, true) => Ok(None),
            (false, false) => Ok(Some(Arc::new(Self {
                current: ArcSwap::from_pointee(read(settings)?),
                settings: settings.clone(),
            }))),
            _ => Err(TlsError::Half),
        }
    }

    /// The configuration of TLS 1.2 and 1.3.
    ///
    /// # Errors
    /// Never with the protocol versions of rustls.
    pub fn config(self: &Arc<Self>) -> Result<ServerConfig, TlsError> {
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(self.clone());
        Ok(config)
    }

    /// Reads the files again when they change and on `hangup`. If they are unusable, that is logged and the previous
    /// certificate stays in use. Never ends.
    pub async fn keep_fresh(&self, mut hangup: Signal) {
        let mut seen = self.changed_at();
        loop {
            let is_hangup = timeout(LOOK_INTERVAL, hangup.recv()).await.is_ok();
            let changed_at = self.changed_at();
            if !is_hangup && changed_at == seen {
                continue;
            }
            match read(&self.settings) {
                Ok(pair) => {
                    self.current.store(Arc::new(pair));
                    seen = changed_at;
                    tracing::info!("TLS certificate reloaded");
                }
                Err(error) => {
                    tracing::error!(%error, "TLS certificate was not reloaded: using the previous one")
                }
            }
        }
    }

    fn changed_at(&self) -> [Option<SystemTime>; 2] {
        [&self.settings.cert, &self.settings.key].map(|file| {
            std::fs::metadata(file)
                .and_then(|about| about.modified())
                .ok()
        })
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.load_full())
    }
}

fn read(settings: &TlsSettings) -> Result<CertifiedKey, TlsError> {
    let wrong = |file: &PathBuf, error: rustls::pki_types::pem::Error| TlsError::File {
        file: file.clone(),
        reason: error.to_string(),
    };
    let chain = CertificateDer::pem_file_iter(&settings.cert)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| wrong(&settings.cert, error))?;
    let key =
        PrivateKeyDer::from_pem_file(&settings.key).map_err(|error| wrong(&settings.key, error))?;
    Ok(CertifiedKey::from_der(
        chain,
        key,
        &ring::default_provider(),
    )?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificate_and_key_must_match() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, text: String| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let make = || rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let (one, other) = (make(), make());
        let cert = file("cert.pem", one.cert.pem());
        let key = file("key.pem", one.signing_key.serialize_pem());
        let wrong = file("wrong.pem", other.signing_key.serialize_pem());
        let open = |cert: &PathBuf, key: &PathBuf| {
            Certificate::open(&TlsSettings {
                cert: cert.clone(),
                key: key.clone(),
            })
        };
        let none = PathBuf::new();
        assert!(open(&none, &none).unwrap().is_none());
        let certificate = open(&cert, &key).unwrap().unwrap();
        assert!(certificate.config().is_ok());
        assert!(matches!(open(&cert, &none), Err(TlsError::Half)));
        assert!(matches!(open(&cert, &wrong), Err(TlsError::Pair(_))));
        assert!(matches!(
            open(&key, &key),
            Err(TlsError::File { .. }) | Err(TlsError::Pair(_))
        ));
        let missing = folder.path().join("missing");
        assert!(matches!(open(&missing, &key), Err(TlsError::File { .. })));
    }
}
