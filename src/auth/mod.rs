//! Authentication and permissions: passwords, sessions, signed tokens, tokens of another application, share links, the login
//! throttle and the delivery of revocations. [`AuthService`] is the interface for the gateway; the store holds the data.

mod auth_service;
mod client_id;
mod credentials;
mod device;
mod error;
mod identity;
mod login_throttle;
mod origin;
mod password;
mod priority_queue;
mod revocation_hub;
mod settings;
mod token_signer;
mod token_verifier;
mod usage_quota;

pub use auth_service::{AuthService, SESSION_LIFETIME};
pub use client_id::{ClientIdIssuer, NONCE_BYTES};
pub use credentials::{
    Credentials, NewAccount, PASSWORD_CHARS_MIN, RateLimitKey, RequestSource, SessionTokens,
};
pub use error::{AuthError, AuthSetupError, InvalidInput, QuotaReached, RejectedCredentials};
pub use identity::{Identity, Profile, is_name};
pub use login_throttle::network;
pub use origin::is_loopback;
pub use revocation_hub::{AccessChange, PermissionScope, RevocationHub, RevocationSubscription};
pub use settings::{AuthMode, AuthSettings, Registration, Secret};
pub use token_verifier::TokenKeyError;
