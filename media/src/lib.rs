//! How audio moves: RTP and RTCP, SRTP, SDP, codecs, jitter, noise cancellation, the media worker.
//!
//! Five nouns: a *packet* is one RTP or RTCP datagram; a *stream* is one direction of one media
//! line; a *session* is the media of one call; a *frame* is 20 ms of decoded audio; a *worker* is
//! the thread that owns sessions and their sockets.
//!
//! The crate knows no SIP, no organisations and no async runtime. Everything but the worker and
//! the ports is sans-IO: fed `(input, now)` and drained of outputs, time never going back; the same
//! inputs and the same randomness give byte-equal outputs. Nothing on a packet's way allocates,
//! locks, logs or looks anything up by name, and no packet changes any state before it was
//! authenticated, where there is a key to do that with.

pub mod board;
pub mod clock;
pub mod codec;
pub mod command;
mod doorbell;
pub mod dtmf;
pub mod frame;
pub mod jitter;
pub mod latch;
pub mod mos;
pub mod noise;
pub mod packet;
pub mod port;
pub mod ports;
pub mod report;
mod ring;
pub mod sdp;
mod sequence;
pub mod session;
pub mod srtp;
pub mod stats;
mod stream;
pub mod worker;

pub use command::{Event, Far, LegOptions, Open, SessionKey, WorkerId};
pub use frame::{FRAME_MS, FRAME_SAMPLES, Frame, SAMPLE_RATE_HZ};
pub use port::{AgentPort, Down, Up, WorkerPort, agent_port};
pub use report::LegReport;
pub use worker::{WorkerOptions, Workers};
