//! What is known of a leg's media when it ends.

use std::net::SocketAddr;

use crate::jitter;
use crate::noise::NoiseReport;
use crate::stats::Quality;
use crate::worker::Drops;

/// The last word of a session.
#[derive(Clone, Default, Debug)]
pub struct LegReport {
    /// Packets, loss, jitter, round trip, estimated opinion score.
    pub quality: Quality,
    /// What noise cancellation did, if it was on.
    pub noise: Option<NoiseReport>,
    /// The peer's source when the session ended, if it was ever proven.
    pub latched: Option<SocketAddr>,
    /// Packets dropped because of their source.
    pub strangers: u64,
    /// Times that such packets were told as an intrusion.
    pub intrusions: u32,
    /// Packets that failed SRTP authentication, or were replayed.
    pub auth_failures: u64,
    /// Whether media was encrypted at the end.
    pub secured: bool,
    /// Datagrams and frames not used, by cause.
    pub drops: Drops,
    /// What the playout buffer did.
    pub playout: jitter::Counters,
    /// Frames of the far end that went to the wire.
    pub frames_played: u64,
    /// Digits the caller pressed.
    pub digits_received: u32,
    /// Digits sent to the caller.
    pub digits_sent: u32,
}
