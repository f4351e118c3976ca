//! Messages on the wire: other people's torture, our own malformed ones, and a second opinion.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test's helpers may fail it"
)]

#[path = "../hostile/common.rs"]
#[expect(dead_code, reason = "these tests need no media and no attackers")]
mod common;
mod golden;
#[path = "../hostile/http.rs"]
#[expect(dead_code, reason = "these tests read no replies")]
mod http;
mod oracle;
mod torture;
