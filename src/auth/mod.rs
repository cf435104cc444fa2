//! Who may come in, as whom, and what they may do. [`Door`] is what the gateway asks; passwords, sealed tokens, another
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
    Caller, Credentials, Denied, Door, DoorError, NewAccount, PASSWORD_CHARS_MIN, RateLimitKey,
    SESSION_LASTS, Tokens,
};
pub use client_id::{Mint, NONCE_BYTES};
pub use identity::{Known, Person, is_name};
pub use login_throttle::network;
pub use origin::is_loopback;
pub use revocation_hub::{News, Scope, Watch, Watchers};
pub use settings::{AuthSettings, Mode, Registration, Secret};
pub use token_verifier::KeyError;
