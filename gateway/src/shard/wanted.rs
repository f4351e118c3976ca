//! A leg that is wanted: whom to dial and as whom, and what became of an attempt that failed.

use std::sync::Arc;
use std::time::Duration;

use config::ids::TrunkId;
use config::model::MediaEncryption;
use media::codec::Codec;
use sip::Response;

use super::leg::Side;
use super::login::Login;
use crate::call::EndReason;
use crate::net::target::Destination;

/// Whom to dial, and as whom.
pub(super) struct Wanted {
    pub(super) side: Side,
    pub(super) destination: Destination,
    pub(super) request_uri: String,
    /// The value of From, without a tag.
    pub(super) from: String,
    /// The value of To.
    pub(super) to: String,
    pub(super) headers: Vec<(String, String)>,
    pub(super) login: Option<Arc<Login>>,
    pub(super) encryption: MediaEncryption,
    /// Codecs to offer, best first.
    pub(super) codecs: Vec<Codec>,
    /// The trunk whose rules hold; `None` for an agent.
    pub(super) trunk: Option<TrunkId>,
    pub(super) noise_cancellation: bool,
    /// How long it may take until the 2xx.
    pub(super) patience: Duration,
}

/// What became of an attempt that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Outcome {
    /// The word for it.
    pub(super) reason: EndReason,
    /// The last final response, if there was one.
    pub(super) status: Option<u16>,
    /// Its reason phrase, or what went wrong below SIP.
    pub(super) text: String,
}

impl Outcome {
    pub(super) fn new(reason: EndReason, text: impl Into<String>) -> Self {
        Outcome { reason, status: None, text: text.into() }
    }

    /// What a final response means for the call.
    pub(super) fn of(response: &Response) -> Self {
        let status = response.status();
        let reason = match status {
            401 | 407 => EndReason::CarrierUnauthorised,
            486 | 600 => EndReason::CalleeBusy,
            603 => EndReason::CalleeDeclined,
            408 | 480 => EndReason::NoAnswer,
            415 | 488 | 606 => EndReason::MediaRefused,
            500 | 502..=504 => EndReason::CarrierUnreachable,
            _ => EndReason::CarrierRefused,
        };
        let text = String::from_utf8_lossy(response.reason());
        let text = text.chars().filter(|c| !c.is_control()).take(MAX_TEXT).collect();
        Outcome { reason, status: Some(status), text }
    }
}

/// Longest reason phrase of a carrier that is kept, in characters.
const MAX_TEXT: usize = 200;
