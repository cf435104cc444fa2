//! Encryption of connections to Postgres, according to `sslmode`.

use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    ClientConfig, ConfigBuilder, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    WantsVerifier,
};
use tokio_postgres::Config;
use tokio_postgres::config::SslMode;
use tokio_postgres_rustls::MakeRustlsConnect;

use super::address::Verification;
use crate::store::StoreError;

/// The TLS configuration for `config`.
///
/// `require` and `verify-full` verify the name and the certificate of the server, against `ca_file` or the system's
/// roots if that is empty. `verify-ca` verifies the certificate only. `prefer` without a `ca_file` verifies nothing, as
/// in every Postgres client: an attacker who can forge a certificate can also claim that the server does not encrypt.
pub(super) fn connector(
    config: &Config,
    verification: Verification,
    ca_file: &Path,
) -> Result<MakeRustlsConnect, StoreError> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| StoreError::new("set TLS up", error))?;
    let named = !ca_file.as_os_str().is_empty();
    let client = if named || config.get_ssl_mode() == SslMode::Require {
        let roots = if named {
            from_file(ca_file)?
        } else {
            of_the_system()?
        };
        match verification {
            Verification::Authority => {
                let authority = AnyNameVerifier {
                    roots: Some(roots),
                    provider,
                };
                unnamed(builder, authority)
            }
            Verification::ByMode | Verification::Full => {
                builder.with_root_certificates(roots).with_no_client_auth()
            }
        }
    } else {
        let roots = None;
        unnamed(builder, AnyNameVerifier { roots, provider })
    };
    Ok(MakeRustlsConnect::new(client))
}

fn from_file(ca_file: &Path) -> Result<RootCertStore, StoreError> {
    let error = |error: &dyn std::fmt::Display| {
        StoreError::new("read ca_file", format!("{}: {error}", ca_file.display()))
    };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(ca_file).map_err(|it| error(&it))? {
        let certificate = certificate.map_err(|it| error(&it))?;
        roots.add(certificate).map_err(|it| error(&it))?;
    }
    if roots.is_empty() {
        return Err(error(&"the file has no certificate"));
    }
    Ok(roots)
}

fn of_the_system() -> Result<RootCertStore, StoreError> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let why = "this system has no root certificates: set ca_file to the authority's";
        return Err(StoreError::new("set TLS up", why));
    }
    Ok(roots)
}

fn unnamed(
    builder: ConfigBuilder<ClientConfig, WantsVerifier>,
    verifier: AnyNameVerifier,
) -> ClientConfig {
    builder
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth()
}

/// Verifies that the server has the key of its certificate, whatever name the certificate is for.
#[derive(Debug)]
struct AnyNameVerifier {
    /// The authorities, one of which must have signed it; `None`: the signature is not verified.
    roots: Option<RootCertStore>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for AnyNameVerifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if let Some(roots) = &self.roots {
            verify_server_cert_signed_by_trust_anchor(
                &ParsedCertificate::try_from(certificate)?,
                roots,
                intermediates,
                now,
                self.provider.signature_verification_algorithms.all,
            )?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
