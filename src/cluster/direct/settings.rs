//! How the direct links between nodes are set up, and which address a node advertises.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;

use serde::Deserialize;
use tokio::net::{UdpSocket, lookup_host};

use crate::setting::settings;

settings! {
    /// Addresses of the direct links between nodes. Used only if `redis.url` is set.
    pub struct ClusterSettings {
        /// Where to listen.
        pub listen: ListenAddress = ListenAddress::Auto;
        /// The address that other nodes connect to: `HOST:PORT`, or `HOST` with the port of `listen`; empty: the address that
        /// this node listens on.
        pub advertise: String = String::new();
    }
}

/// Where a node listens for direct links.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum ListenAddress {
    /// A free port of the address by which this machine reaches Redis.
    #[default]
    Auto,
    /// Nowhere: this node has no direct links.
    Off,
    /// This address. Port 0 is a free port.
    At(SocketAddr),
}

impl FromStr for ListenAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "off" => Ok(Self::Off),
            text => text.parse().map(Self::At).map_err(|_| {
                format!("{text:?} is not \"auto\", \"off\" or ADDRESS:PORT, as in \"0.0.0.0:7410\"")
            }),
        }
    }
}

impl TryFrom<String> for ListenAddress {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Off => f.write_str("off"),
            Self::At(address) => address.fmt(f),
        }
    }
}

/// An address that no packet is sent to (RFC 5737): the route to it is the default route.
const ANYWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 9);

impl ClusterSettings {
    /// The address to listen on; `None` if direct links are off. `towards` is where the shared servers are: the interface
    /// by which they are reached is the one that the other nodes can most likely reach.
    ///
    /// # Errors
    /// If this machine has no route to `towards`, and no default route.
    pub(super) async fn listen_address(
        &self,
        towards: &[(String, u16)],
    ) -> io::Result<Option<SocketAddr>> {
        match self.listen {
            ListenAddress::Off => Ok(None),
            ListenAddress::At(address) => Ok(Some(address)),
            ListenAddress::Auto => Ok(Some(SocketAddr::new(local_ip(towards).await?, 0))),
        }
    }

    /// The address to advertise, given the one that is listened on.
    ///
    /// # Errors
    /// As [`listen_address`](Self::listen_address), if an unspecified address is listened on and none is to be advertised.
    pub(super) async fn advertised(
        &self,
        listening: SocketAddr,
        towards: &[(String, u16)],
    ) -> io::Result<String> {
        let port = listening.port();
        if !self.advertise.is_empty() {
            return Ok(with_port(&self.advertise, port));
        }
        let ip = if listening.ip().is_unspecified() {
            local_ip(towards).await?
        } else {
            listening.ip()
        };
        Ok(SocketAddr::new(ip, port).to_string())
    }
}

/// Adds the port to a host that has none. An IPv6 address may have brackets or not.
fn with_port(host: &str, port: u16) -> String {
    if let Ok(ip) = host.trim_matches(['[', ']']).parse::<IpAddr>() {
        return SocketAddr::new(ip, port).to_string();
    }
    let has_port = host
        .rsplit_once(':')
        .is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    if has_port {
        host.to_owned()
    } else {
        format!("{host}:{port}")
    }
}

/// The address of this machine by which it reaches the first of `towards` that it has a route to. No packet is sent but
/// for the look-up of names.
async fn local_ip(towards: &[(String, u16)]) -> io::Result<IpAddr> {
    for (host, port) in towards {
        let Ok(addresses) = lookup_host((host.as_str(), *port)).await else {
            continue;
        };
        for address in addresses {
            if let Ok(ip) = source_of(address).await {
                return Ok(ip);
            }
        }
    }
    source_of(ANYWHERE).await
}

async fn source_of(address: SocketAddr) -> io::Result<IpAddr> {
    let any: SocketAddr = if address.is_ipv4() {
        ([0, 0, 0, 0], 0).into()
    } else {
        ([0_u16; 8], 0).into()
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(address).await?;
    Ok(socket.local_addr()?.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listen_address_is_auto_off_or_an_address() {
        let at = |text: &str| ListenAddress::At(text.parse().unwrap());
        for (text, expected) in [
            ("auto", Some(ListenAddress::Auto)),
            ("off", Some(ListenAddress::Off)),
            ("0.0.0.0:7410", Some(at("0.0.0.0:7410"))),
            ("[::]:0", Some(at("[::]:0"))),
            ("", None),
            ("localhost:1", None),
            ("10.0.0.1", None),
        ] {
            assert_eq!(text.parse::<ListenAddress>().ok(), expected, "{text}");
            if let Some(expected) = expected {
                assert_eq!(expected.to_string(), text);
            }
        }
    }

    #[tokio::test]
    async fn advertised_address_has_the_port_that_is_listened_on() {
        let local = [("127.0.0.1".to_owned(), 6379)];
        for (listening, advertise, expected) in [
            ("127.0.0.1:7", "", "127.0.0.1:7"),
            ("0.0.0.0:7", "", "127.0.0.1:7"),
            ("0.0.0.0:7", "10.1.2.3", "10.1.2.3:7"),
            ("0.0.0.0:7", "10.1.2.3:8", "10.1.2.3:8"),
            ("[::]:7", "fd00::5", "[fd00::5]:7"),
            ("[::]:7", "[fd00::5]", "[fd00::5]:7"),
            ("[::]:7", "[fd00::5]:8", "[fd00::5]:8"),
            ("0.0.0.0:7", "node-1.internal", "node-1.internal:7"),
            ("0.0.0.0:7", "node-1.internal:8", "node-1.internal:8"),
        ] {
            let settings = ClusterSettings {
                advertise: advertise.to_owned(),
                ..ClusterSettings::default()
            };
            let advertised = settings.advertised(listening.parse().unwrap(), &local);
            assert_eq!(
                advertised.await.unwrap(),
                expected,
                "{listening} {advertise}"
            );
        }
    }

    #[tokio::test]
    async fn auto_listens_on_the_interface_that_leads_to_redis() {
        let settings = ClusterSettings::default();
        let local = [("127.0.0.1".to_owned(), 6379)];
        let address = settings.listen_address(&local).await.unwrap().unwrap();
        assert_eq!(address, "127.0.0.1:0".parse().unwrap());
        let off = ClusterSettings {
            listen: ListenAddress::Off,
            ..settings
        };
        assert_eq!(off.listen_address(&local).await.unwrap(), None);
    }
}
