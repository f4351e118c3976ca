//! What signalling may ask of a worker, and what the worker tells it.
//!
//! ```text
//!   signalling ── Command, bounded mailbox ──► worker ── Event, LegReport ──► signalling
//! ```

use std::net::IpAddr;
use std::sync::Arc;

use crate::port::{PortNews, WorkerPort};
use crate::ports::PortPair;
use crate::report::LegReport;
use crate::sdp::Plan;
use crate::session::{FarSide, Session};

/// Names a session for as long as it lives; signalling picks it and never uses it twice.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct SessionKey(pub u64);

/// Names a worker thread: 0 up to the number of workers.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct WorkerId(pub usize);

/// What stands at the far end of a leg. Another leg comes there by
/// [`crate::worker::Workers::bridge`].
pub enum Far {
    /// Nobody: the caller hears silence and is heard by no one. For a leg that waits for its other
    /// leg.
    Nobody,
    /// An agent, by the port whose other end the agent link holds.
    Agent(WorkerPort),
    /// The caller hears themselves, 20 ms later.
    Echo,
    /// The caller hears a clip of 8 kHz mono PCM.
    Playback {
        /// The samples; a last part of less than 20 ms is filled up with silence.
        clip: Arc<[i16]>,
        /// Whether it starts over at its end; otherwise there is silence and
        /// [`Event::PlaybackEnded`].
        repeat: bool,
    },
}

impl Far {
    /// Tells when an agent at the far end was given something; `None` for any other far end.
    #[must_use]
    pub fn news(&self) -> Option<PortNews> {
        match self {
            Self::Agent(port) => Some(port.news()),
            Self::Nobody | Self::Echo | Self::Playback { .. } => None,
        }
    }
}

/// What is known about one leg besides its plan.
#[derive(Clone, Debug)]
pub struct LegOptions {
    /// Whether what the caller says is cleaned of noise before the agent hears it.
    pub noise_cancellation: bool,
    /// How long no RTP may arrive before [`Event::MediaTimeout`], in milliseconds; zero for ever.
    pub media_timeout_ms: u32,
    /// Where the peer's signalling comes from: the best evidence of where it really is.
    pub peer_signalling_ip: IpAddr,
    /// The trunk lists the signalled media address, so that it needs no proof.
    pub listed: bool,
    /// Least depth the playout buffer aims at, in milliseconds.
    pub jitter_min_ms: u16,
    /// Greatest depth the playout buffer keeps, in milliseconds; at most 400.
    pub jitter_max_ms: u16,
    /// Learn a source nobody has named; see [`crate::latch::Policy::learn_anywhere`].
    pub learn_anywhere: bool,
    /// Fresh random bytes: SSRC, first sequence number and timestamp, CNAME, RTCP intervals.
    pub entropy: [u8; 32],
}

impl LegOptions {
    /// Media time-out unless asked otherwise: 30 s.
    pub const MEDIA_TIMEOUT_MS: u32 = 30_000;

    /// The defaults for a peer that signals from `peer_signalling_ip`: no noise cancellation,
    /// strict learning, 30 s media time-out.
    #[must_use]
    pub fn new(peer_signalling_ip: IpAddr, entropy: [u8; 32]) -> Self {
        Self {
            noise_cancellation: false,
            media_timeout_ms: Self::MEDIA_TIMEOUT_MS,
            peer_signalling_ip,
            listed: false,
            jitter_min_ms: 20,
            jitter_max_ms: 200,
            learn_anywhere: false,
            entropy,
        }
    }
}

/// All it takes to open a session.
pub struct Open {
    /// The leg's sockets; they go back to their pool when the session ends.
    pub ports: PortPair,
    /// The outcome of offer and answer.
    pub plan: Plan,
    /// What stands at the far end.
    pub far: Far,
    /// What else is known.
    pub options: LegOptions,
}

/// What a worker tells on its own account. It is told on the worker's thread: the receiver hands it
/// on without waiting for anything.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// The first RTP packet of the peer was heard.
    FirstPacket {
        /// The session.
        key: SessionKey,
    },
    /// The peer's source is known from now on, or has changed by rule.
    Latched {
        /// The session.
        key: SessionKey,
        /// Where media goes now.
        address: std::net::SocketAddr,
    },
    /// No RTP for [`LegOptions::media_timeout_ms`] although the leg is not on hold. Told once, and
    /// again only after media had come back.
    MediaTimeout {
        /// The session.
        key: SessionKey,
    },
    /// Packets from a source that is not the peer's, more than a stray one. At most one in 10 s.
    Intrusion {
        /// The session.
        key: SessionKey,
    },
    /// The peer of a bridged leg has pressed a key, and the other leg's peer takes no telephone
    /// events: it has to be told otherwise (INFO, or [`crate::worker::Workers::digit`] as tones).
    Digit {
        /// The session whose peer has pressed it.
        key: SessionKey,
        /// `0`–`9`, `*`, `#` or `A`–`D`.
        digit: char,
        /// How long it was held, in milliseconds.
        duration_ms: u32,
    },
    /// The clip of [`Far::Playback`] has been played to its end.
    PlaybackEnded {
        /// The session.
        key: SessionKey,
    },
    /// The session is over because handling it panicked: a bug of ours. Its report still comes
    /// when it is closed.
    Fault {
        /// The session.
        key: SessionKey,
    },
}

impl Event {
    /// The session it is about.
    #[must_use]
    pub const fn key(&self) -> SessionKey {
        match *self {
            Self::FirstPacket { key }
            | Self::Latched { key, .. }
            | Self::MediaTimeout { key }
            | Self::Intrusion { key }
            | Self::Digit { key, .. }
            | Self::PlaybackEnded { key }
            | Self::Fault { key } => key,
        }
    }
}

/// Why a command was not taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CommandError {
    /// No session of this key is open.
    Unknown,
    /// The worker has too much to do; try again.
    MailboxFull,
    /// The worker has as many sessions as it takes.
    Full,
    /// The two sessions live on different workers, or are one and the same.
    Apart,
}

impl std::fmt::Display for CommandError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unknown => f.write_str("no media session of this key"),
            Self::MailboxFull => f.write_str("the media worker's mailbox is full"),
            Self::Full => f.write_str("the media worker has no place for another session"),
            Self::Apart => f.write_str("the media sessions are not beside each other"),
        }
    }
}

impl std::error::Error for CommandError {}

/// Takes the report of a session. Called on a thread of normal priority.
pub(crate) type Reply = Box<dyn FnOnce(LegReport) + Send>;

/// What lies in a worker's mailbox. Everything large was allocated by the sender.
pub(crate) enum Command {
    Open { session: Box<Session>, ports: PortPair },
    Apply { key: SessionKey, plan: Box<Plan> },
    Gate { key: SessionKey, open: bool },
    Connect { key: SessionKey, far: Box<FarSide> },
    Bridge { a: SessionKey, b: SessionKey },
    Digit { key: SessionKey, digit: char, duration_ms: u32 },
    Noise { key: SessionKey, suppressor: Option<crate::session::Suppressor> },
    Report { key: SessionKey, reply: Reply },
    Close { key: SessionKey, reply: Reply },
    Stop,
}
