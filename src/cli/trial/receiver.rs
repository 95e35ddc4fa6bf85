//! A receiver on loopback, on a thread of its own: what the rest of the process does keeps no answer waiting.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use axum::Router;

/// Serves these routes until the process ends; answers where.
pub(in crate::cli) fn serve(routes: Router) -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::spawn(move || {
        runtime.block_on(async move {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            axum::serve(listener, routes).await
        })
    });
    Ok(address)
}
