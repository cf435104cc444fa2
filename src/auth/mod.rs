//! Who may come in, as whom, and what they may do. [`Door`] is what the gateway asks; passwords, sealed tokens, another
//! application's tokens and the login throttle are its parts. What is kept, the store keeps.

mod device;
mod door;
mod host;
mod login_throttle;
mod meter;
mod mint;
mod origin;
mod password;
mod person;
mod seal;
mod settings;
mod watch;
mod work_queue;

pub use door::{
    Caller, Credentials, Denied, Door, DoorError, NewAccount, PASSWORD_CHARS_MIN, RateLimitKey,
    SESSION_LASTS, Tokens,
};
pub use host::KeyError;
pub use login_throttle::network;
pub use mint::{Mint, NONCE_BYTES};
pub use origin::is_loopback;
pub use person::{Known, Person, is_name};
pub use settings::{AuthSettings, Mode, Registration, Secret};
pub use watch::{News, Scope, Watch, Watchers};
