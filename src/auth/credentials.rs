//! What requests present, what they receive, and the checks of logins, names and passwords.

use std::net::IpAddr;

use super::error::{InvalidInput, RejectedCredentials};

/// The shortest password, in characters.
pub const PASSWORD_CHARS_MIN: usize = 8;

/// The longest password, in bytes.
pub(super) const PASSWORD_BYTES_MAX: usize = 1_000;

/// The longest login or name, in characters.
pub(super) const LOGIN_CHARS_MAX: usize = 100;

/// Identifies the rate limit that a request counts towards before the store is asked: a session, a user of another
/// application, or the browsers of one user.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RateLimitKey(pub String);

/// The tokens and cookies of a request.
#[derive(Debug, Clone, Default)]
pub struct Credentials {
    /// An access token of this server or a token of another application.
    pub access: Option<String>,
    /// The signed list of opened share links.
    pub links: Option<String>,
    /// The random value that distinguishes guests.
    pub guest: Option<String>,
    /// The signed list of accounts that have signed in with this browser.
    pub device: Option<String>,
}

/// An account to register.
#[derive(Debug, Clone)]
pub struct NewAccount {
    /// The name for signing in.
    pub login: String,
    /// The name that other users see.
    pub name: String,
    /// The password.
    pub password: String,
    /// The code of an invitation, or the set-up code.
    pub invitation: Option<String>,
}

/// Where a request comes from.
#[derive(Debug, Clone, Copy)]
pub struct RequestSource {
    /// The client's address.
    pub address: IpAddr,
    /// True if the client is a program on the server's machine that uses a loopback name.
    pub is_own_machine: bool,
}

/// The tokens of a session that began or was renewed.
#[derive(Debug, Clone)]
pub struct SessionTokens {
    /// Valid for [`AuthService::access_lifetime`](super::AuthService::access_lifetime).
    pub access: String,
    /// Valid once; `None` if another tab of the browser holds the next one.
    pub refresh: Option<String>,
    /// The cookie of the device: failed attempts from other devices do not delay its next sign-in. `None` if unchanged.
    pub device: Option<String>,
}

/// Trims a login and converts it to lower case.
pub(super) fn clean_login(login: &str) -> Result<String, InvalidInput> {
    let login = clean_name(login)?.to_lowercase();
    if login.contains(char::is_whitespace) {
        return Err(InvalidInput::LoginWithSpaces);
    }
    Ok(login)
}

/// Trims a name.
pub(super) fn clean_name(name: &str) -> Result<String, InvalidInput> {
    let name = name.trim();
    let is_valid = (1..=LOGIN_CHARS_MAX).contains(&name.chars().count())
        && !name.chars().any(char::is_control);
    if is_valid {
        Ok(name.to_owned())
    } else {
        Err(InvalidInput::Name)
    }
}

/// Checks the length of a new password.
pub(super) fn check_new_password(password: &str) -> Result<(), InvalidInput> {
    let is_valid =
        password.chars().count() >= PASSWORD_CHARS_MIN && password.len() <= PASSWORD_BYTES_MAX;
    if is_valid {
        Ok(())
    } else {
        Err(InvalidInput::PasswordLength)
    }
}

/// Rejects a password that is too long to be the right one, before it is hashed.
pub(super) fn check_length(
    password: &str,
    rejection: RejectedCredentials,
) -> Result<(), RejectedCredentials> {
    if password.len() > PASSWORD_BYTES_MAX {
        Err(rejection)
    } else {
        Ok(())
    }
}
