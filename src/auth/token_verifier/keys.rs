//! Public keys of tokens: loading, parsing and the requirements on them.

use std::ops::RangeInclusive;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{
    AlgorithmParameters, EllipticCurve, Jwk, JwkSet, KeyOperations, PublicKeyUse,
};
use jsonwebtoken::{Algorithm, DecodingKey};

use super::TokenKeyError;

/// A key with the one algorithm that it verifies: a token cannot choose the algorithm.
#[derive(Clone)]
pub(super) struct VerificationKey {
    /// Its `kid`.
    pub(super) id: Option<String>,
    pub(super) algorithm: Algorithm,
    pub(super) key: DecodingKey,
}

/// The largest answer with keys, in bytes.
const KEYS_BYTES_MAX: u64 = 1 << 20;

/// Reads the keys of a file.
pub(super) fn read(file: &str) -> Result<Vec<VerificationKey>, TokenKeyError> {
    let text = std::fs::read_to_string(file)
        .map_err(|error| TokenKeyError::File(file.to_owned(), error))?;
    parse(&text, file)
}

/// Fetches the keys of a URL. Blocks.
pub(super) fn fetch(address: &str) -> Result<Vec<VerificationKey>, TokenKeyError> {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .timeout_global(Some(Duration::from_secs(5)))
        // Keys come only from the host that the settings name.
        .max_redirects(0)
        .build()
        .into();
    let error = |error: ureq::Error| TokenKeyError::Fetch(address.to_owned(), error.to_string());
    let mut response = agent.get(address).call().map_err(error)?;
    let body = response.body_mut().with_config().limit(KEYS_BYTES_MAX);
    parse(&body.read_to_string().map_err(error)?, address)
}

/// Parses a JWK set, a JWK or a public key in PEM.
pub(super) fn parse(text: &str, source: &str) -> Result<Vec<VerificationKey>, TokenKeyError> {
    let keys: Vec<VerificationKey> = if text.trim_start().starts_with('{') {
        let set = serde_json::from_str::<JwkSet>(text)
            .map(|set| set.keys)
            .or_else(|_| serde_json::from_str::<Jwk>(text).map(|key| vec![key]))
            .unwrap_or_default();
        set.iter().filter_map(of_jwk).collect()
    } else {
        of_pem(text.as_bytes()).into_iter().collect()
    };
    if keys.is_empty() {
        return Err(TokenKeyError::Nothing(source.to_owned()));
    }
    Ok(keys)
}

/// The key of a JWK if it can verify tokens; otherwise the reason is logged.
fn of_jwk(jwk: &Jwk) -> Option<VerificationKey> {
    let id = jwk.common.key_id.clone();
    let refuse = |reason: &str| {
        tracing::warn!(
            key = id.as_deref().unwrap_or("without kid"),
            reason,
            "JWK ignored"
        );
        None
    };
    if matches!(&jwk.common.public_key_use, Some(it) if *it != PublicKeyUse::Signature) {
        return refuse("its \"use\" is not \"sig\"");
    }
    let operations = jwk.common.key_operations.as_ref();
    if operations.is_some_and(|all| !all.contains(&KeyOperations::Verify)) {
        return refuse("its \"key_ops\" have no \"verify\"");
    }
    let algorithm = match &jwk.algorithm {
        AlgorithmParameters::RSA(rsa) => {
            let modulus = URL_SAFE_NO_PAD.decode(&rsa.n).unwrap_or_default();
            if !RSA_BITS.contains(&bits(&modulus)) {
                return refuse("an RSA key has 2,048 to 8,192 bits");
            }
            Algorithm::RS256
        }
        AlgorithmParameters::EllipticCurve(curve) if curve.curve == EllipticCurve::P256 => {
            Algorithm::ES256
        }
        AlgorithmParameters::OctetKeyPair(pair) if pair.curve == EllipticCurve::Ed25519 => {
            Algorithm::EdDSA
        }
        // Symmetric keys included: a secret in a public set is not secret.
        _ => return refuse("it is not RSA, P-256 or Ed25519"),
    };
    let named = jwk.common.key_algorithm.map(|named| named.to_string());
    if named.is_some_and(|named| named != format!("{algorithm:?}")) {
        return refuse("its \"alg\" does not match the kind of the key");
    }
    match DecodingKey::from_jwk(jwk) {
        Ok(key) => Some(VerificationKey { id, algorithm, key }),
        Err(_) => refuse("it cannot be read"),
    }
}

/// The accepted sizes of RSA keys, in bits: smaller ones are insecure, larger ones slow down every token.
const RSA_BITS: RangeInclusive<usize> = 2_048..=8_192;

/// The length of a number in bits.
fn bits(number: &[u8]) -> usize {
    let leading = number.iter().take_while(|byte| **byte == 0).count();
    let first = number
        .get(leading)
        .map_or(8, |byte| byte.leading_zeros() as usize);
    (number.len() - leading)
        .saturating_mul(8)
        .saturating_sub(first % 8)
}

/// The key of a PEM text; the kind is tried out.
pub(super) fn of_pem(pem: &[u8]) -> Option<VerificationKey> {
    let found = DecodingKey::from_ed_pem(pem)
        .map(|key| (Algorithm::EdDSA, key))
        .or_else(|_| DecodingKey::from_ec_pem(pem).map(|key| (Algorithm::ES256, key)))
        .or_else(|_| DecodingKey::from_rsa_pem(pem).map(|key| (Algorithm::RS256, key)));
    let (algorithm, key) = found.ok()?;
    if algorithm == Algorithm::RS256
        && !key
            .try_get_as_bytes()
            .ok()
            .and_then(rsa_bits)
            .is_some_and(|it| RSA_BITS.contains(&it))
    {
        tracing::warn!("RSA key of auth.token_keys ignored: it must have 2,048 to 8,192 bits");
        return None;
    }
    Some(VerificationKey {
        id: None,
        algorithm,
        key,
    })
}

/// The bits of the modulus of a public key in PKCS #1: a sequence that starts with that number.
pub(super) fn rsa_bits(der: &[u8]) -> Option<usize> {
    let (0x30, sequence, _) = der_part(der)? else {
        return None;
    };
    let (0x02, modulus, _) = der_part(sequence)? else {
        return None;
    };
    Some(bits(modulus))
}

/// The tag and the content of the first DER element, and the bytes after it.
fn der_part(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[kind, length], rest) = der.split_first_chunk()?;
    let (length, rest) = match length {
        0..0x80 => (usize::from(length), rest),
        // The length itself follows in that many bytes.
        _ => {
            let (length, rest) = rest.split_at_checked(usize::from(length & 0x7f))?;
            let length = length.iter().try_fold(0_usize, |sum, byte| {
                sum.checked_mul(256)?.checked_add(usize::from(*byte))
            })?;
            (length, rest)
        }
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((kind, content, rest))
}
