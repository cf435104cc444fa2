//! TLS to Redis: rustls with ring, with the CA certificates of the system or of a file.

use std::path::Path;
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

use super::RedisError;

/// The client's TLS configuration.
pub(super) fn client(ca_file: &Path) -> Result<ClientConfig, RedisError> {
    let roots = if ca_file.as_os_str().is_empty() {
        of_system()?
    } else {
        of_file(ca_file)?
    };
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| RedisError::Client(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(config)
}

fn of_file(file: &Path) -> Result<RootCertStore, RedisError> {
    let trouble = |reason: &dyn ToString| RedisError::Certificates {
        place: file.display().to_string(),
        reason: reason.to_string(),
    };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(file).map_err(|error| trouble(&error))? {
        let certificate = certificate.map_err(|error| trouble(&error))?;
        roots.add(certificate).map_err(|error| trouble(&error))?;
    }
    match roots.is_empty() {
        true => Err(trouble(&"it holds no certificate")),
        false => Ok(roots),
    }
}

fn of_system() -> Result<RootCertStore, RedisError> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    // Some system stores hold certificates that cannot be parsed; those are skipped.
    roots.add_parsable_certificates(found.certs);
    match roots.is_empty() {
        true => Err(RedisError::Certificates {
            place: "the system".to_owned(),
            reason: found
                .errors
                .first()
                .map_or_else(|| "no certificate found".to_owned(), ToString::to_string),
        }),
        false => Ok(roots),
    }
}
