//! Who may come in, as whom, and what they may do. [`AuthService`] is what the gateway asks; passwords, sealed tokens, another
//! application's tokens and the login throttle are its parts. What is kept, the store keeps.

mod auth_service;
mod client_id;
mod device;
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

pub use auth_service::{
    AuthError, AuthService, AuthSetupError, Credentials, NewAccount, PASSWORD_CHARS_MIN,
    RateLimitKey, RequestSource, SESSION_LASTS, SessionTokens,
};
pub use client_id::{ClientIdIssuer, NONCE_BYTES};
pub use identity::{Identity, Profile, is_name};
pub use login_throttle::network;
pub use origin::is_loopback;
pub use revocation_hub::{AccessChange, PermissionScope, RevocationHub, RevocationSubscription};
pub use settings::{AuthMode, AuthSettings, Registration, Secret};
pub use token_verifier::TokenKeyError;
