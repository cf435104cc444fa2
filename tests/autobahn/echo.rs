//! The server's WebSockets as an echo, for the conformance suite: `make autobahn`.

use std::net::TcpListener;

#[actix_web::main]
async fn main() -> std::io::Result<()> {
    let address = std::env::args().nth(1);
    let address = address.unwrap_or_else(|| "127.0.0.1:9001".to_owned());
    copydesk::gateway::echo(TcpListener::bind(address)?).await
}
