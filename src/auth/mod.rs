//! Who may come in, as whom, and what they may do. [`Door`] is what the gateway asks; passwords, sealed tokens, another
//! application's tokens and the slowing down of guessers are its parts. What is kept, the store keeps.

mod backoff;
mod door;
mod host;
mod meter;
mod mint;
mod origin;
mod password;
mod person;
mod seal;
mod settings;
mod watch;

pub use backoff::network;
pub use door::{Credentials, Denied, Door, DoorError, PASSWORD_CHARS_MIN, SESSION_LASTS, Tokens};
pub use host::KeyError;
pub use mint::{Mint, NONCE_BYTES};
pub use person::{Known, Person, is_name};
pub use settings::{AuthSettings, Mode, Registration, Secret};
pub use watch::{News, Watch, Watchers};
