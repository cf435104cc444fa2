//! The address of the admin listener, and its token.

use std::net::SocketAddr;

use crate::setting::settings;

settings! {
    /// The listener for operators.
    pub struct AdminSettings {
        /// The address of the metrics; empty: no listener. An address other than a loopback address needs a token.
        pub listen: String = DEFAULT_ADDRESS.to_owned();
        /// The token that requests must have in `Authorization: Bearer …`; empty: none is needed, and only this machine is
        /// answered.
        pub token: String = String::new() => secret;
    }
}

/// The default address. If it is in use, another port is taken, so that several servers run on one machine.
const DEFAULT_ADDRESS: &str = "127.0.0.1:9464";

/// The fewest characters of a token: what a request may guess must not be short.
const TOKEN_CHARACTERS_MIN: usize = 16;

impl AdminSettings {
    /// The address to listen on; `None` if there is to be no listener.
    ///
    /// # Errors
    /// If the text is not an address.
    pub fn address(&self) -> Result<Option<SocketAddr>, std::net::AddrParseError> {
        if self.listen.is_empty() {
            return Ok(None);
        }
        self.listen.parse().map(Some)
    }

    /// Returns true if another port of the address may be taken.
    pub(super) fn may_take_another_port(&self) -> bool {
        self.listen == DEFAULT_ADDRESS
    }

    /// Returns why the settings cannot be used together; `None` if they can.
    #[must_use]
    pub fn fault(&self) -> Option<String> {
        let address = match self.address() {
            Ok(address) => address?,
            Err(_) => {
                return Some(format!(
                    "admin.listen {:?} is not an address such as \"127.0.0.1:9464\", nor empty",
                    self.listen
                ));
            }
        };
        let characters = self.token.chars().count();
        if characters > 0 && characters < TOKEN_CHARACTERS_MIN {
            return Some(format!(
                "admin.token has {characters} characters: use at least {TOKEN_CHARACTERS_MIN}"
            ));
        }
        if !address.ip().to_canonical().is_loopback() && self.token.is_empty() {
            return Some(format!(
                "admin.listen {address} is reached from other machines: set admin.token, or listen on 127.0.0.1"
            ));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_addresses_need_no_token() {
        let long = "0123456789abcdef";
        for (listen, token, is_sound) in [
            ("127.0.0.1:9464", "", true),
            ("[::1]:9464", "", true),
            ("[::ffff:127.0.0.1]:9464", "", true),
            ("", "", true),
            ("0.0.0.0:9464", "", false),
            ("[::]:9464", "", false),
            ("10.0.0.7:9464", "", false),
            ("10.0.0.7:9464", long, true),
            ("0.0.0.0:9464", "short", false),
            ("127.0.0.1:9464", "short", false),
            ("localhost:9464", "", false),
            ("127.0.0.1", "", false),
        ] {
            let settings = AdminSettings {
                listen: listen.to_owned(),
                token: token.to_owned(),
            };
            assert_eq!(settings.fault().is_none(), is_sound, "{listen} {token}");
        }
    }
}
