//! TLS by rustls: the certificate comes from files, and is read again when they change, without a restart.

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

/// Why there is no TLS.
#[derive(Debug, Error)]
pub enum TlsError {
    /// One of the two files is not named.
    #[error("tls.cert and tls.key belong together: both or neither")]
    Half,
    /// A file does not hold what it should.
    #[error("read {}: {reason}", .file.display())]
    File {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The key is not the certificate's, or of a kind that is not known.
    #[error("the certificate and its key do not go together: {0}")]
    Pair(#[from] rustls::Error),
}

/// The certificate that new connections are shown.
#[derive(Debug)]
pub struct Certificate {
    settings: TlsSettings,
    current: ArcSwap<CertifiedKey>,
}

/// How often the files are looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(10);

impl Certificate {
    /// Reads the certificate; none where the settings name none.
    ///
    /// # Errors
    /// When the files do not hold a certificate and its key.
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

    /// How connections are to be encrypted: TLS 1.2 and 1.3.
    ///
    /// # Errors
    /// Never with the protocols that rustls comes with.
    pub fn config(self: &Arc<Self>) -> Result<ServerConfig, TlsError> {
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(self.clone());
        Ok(config)
    }

    /// Reads the files again when they change and when `hangup` says so. What is wrong with them is logged, and the
    /// certificate stays what it was. Never ends.
    pub async fn keep_fresh(&self, mut hangup: Signal) {
        let mut seen = self.changed_at();
        loop {
            let told = timeout(LOOK_INTERVAL, hangup.recv()).await.is_ok();
            let changed_at = self.changed_at();
            if !told && changed_at == seen {
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
    fn a_certificate_and_its_key_belong_together() {
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
