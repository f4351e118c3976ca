//! Names to addresses.

use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;

/// Asks for the addresses of one name.
pub(super) type Lookup = Arc<dyn Fn(String) -> LookingUp + Send + Sync>;

/// The addresses of a name, to come.
pub(super) type LookingUp = Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send>>;

/// The system's resolver.
pub(super) fn system() -> Lookup {
    Arc::new(|name| {
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            Ok(found.map(|address| address.ip()).collect())
        })
    })
}
