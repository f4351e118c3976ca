//! Requests of ours inside dialogs that wait for their answer: BYE, re-INVITE, REFER, INFO.

use std::sync::Arc;
use std::time::Instant;

use sip::Response;
use sip::endpoint::{ClientTx, DialogId, Failure};
use tracing::debug;

use super::Shard;
use super::flows::Farewell;
use super::leg::{Offer, Side};
use super::login::{Answers, Login};

/// What a request of ours is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Ends a dialog. Only counted: the call is over.
    Bye,
    /// Carries holding across, or withdraws it.
    Reinvite,
    /// Asks the carrier to hand the call on.
    Refer,
    /// Carries a key press.
    Info,
}

/// One request that waits for its answer.
pub(super) struct Pending {
    pub(super) call: u64,
    pub(super) side: Side,
    pub(super) kind: Kind,
    login: Option<Arc<Login>>,
    answers: Answers,
    /// A BYE that is said once more when its flow fails.
    farewell: Option<Farewell>,
}

impl Pending {
    pub(super) fn new(call: u64, side: Side, kind: Kind, login: Option<Arc<Login>>) -> Self {
        Pending { call, side, kind, login, answers: Answers::default(), farewell: None }
    }

    pub(super) fn bye(call: u64, side: Side, farewell: Farewell) -> Self {
        let login = farewell.login.clone();
        Pending { farewell: Some(farewell), ..Pending::new(call, side, Kind::Bye, login) }
    }
}

impl Shard {
    /// A response to a request in a dialog: a challenge is answered, everything else told on.
    pub(super) fn handle_request_response(
        &mut self,
        now: Instant,
        tx: ClientTx,
        response: &Response,
        dialog: Option<DialogId>,
    ) {
        if response.is_provisional() {
            return;
        }
        let Some(mut pending) = self.requests.remove(&tx) else { return };
        if self.authenticate(now, tx, &mut pending, response) {
            return;
        }
        let at = (pending.call, pending.side);
        match pending.kind {
            // A challenged BYE leaves its dialog to us; there is nothing to try with any more.
            Kind::Bye => {
                if let Some(dialog) = dialog {
                    self.endpoint.forget(dialog);
                }
            }
            Kind::Reinvite => self.handle_reinvite_response(now, at, response, dialog),
            Kind::Refer => self.handle_refer_response(now, pending.call, response.status()),
            Kind::Info => debug!(call = pending.call, status = response.status(), "INFO answered"),
        }
    }

    /// Sends a challenged request once more. True when that was done.
    fn authenticate(
        &mut self,
        now: Instant,
        tx: ClientTx,
        pending: &mut Pending,
        response: &Response,
    ) -> bool {
        let Some(login) = pending.login.clone() else { return false };
        if !matches!(response.status(), 401 | 407) || !pending.answers.take(response) {
            return false;
        }
        let cnonce = self.cnonce();
        let Some(request) = self.endpoint.request_of(tx) else { return false };
        let headers = pending.answers.headers(&login, request, &cnonce);
        let headers: Vec<(&str, &str)> =
            headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        match self.endpoint.retry_with(now, tx, &headers) {
            Ok(new) => {
                let answers = std::mem::take(&mut pending.answers);
                let (login, farewell) = (Some(login), pending.farewell.take());
                let Pending { call, side, kind, .. } = *pending;
                self.requests.insert(new, Pending { call, side, kind, login, answers, farewell });
                true
            }
            Err(why) => {
                debug!(call = pending.call, %why, "a challenged request was not sent again");
                false
            }
        }
    }

    /// A request in a dialog that will not be answered.
    pub(super) fn handle_request_failed(
        &mut self,
        now: Instant,
        (tx, dialog): (ClientTx, Option<DialogId>),
        why: Failure,
    ) {
        let Some(pending) = self.requests.remove(&tx) else { return };
        debug!(call = pending.call, kind = ?pending.kind, ?why, "a request was not answered");
        match pending.kind {
            Kind::Reinvite => {
                let call = self.calls.get_mut(&pending.call);
                if let Some(leg) = call.and_then(|call| call.leg_mut(pending.side)) {
                    leg.offer = Offer::None;
                    leg.negotiation.withdraw();
                }
            }
            Kind::Refer => self.handle_refer_response(now, pending.call, 408),
            Kind::Bye if why == Failure::Transport => match (pending.farewell, dialog) {
                (Some(farewell), _) => {
                    self.handle_bye_lost((pending.call, pending.side), farewell);
                }
                (None, Some(dialog)) => self.endpoint.forget(dialog),
                (None, None) => {}
            },
            Kind::Bye | Kind::Info => {}
        }
    }

    /// Our nonce for a digest answer: letters and digits, never the same.
    pub(super) fn cnonce(&mut self) -> String {
        format!("{:032x}", u128::from_be_bytes(self.random.bytes()))
    }

    /// Acknowledges a 2xx that no call waits for, and ends what it began (RFC 3261 §13.2.2.4).
    pub(super) fn acknowledge_orphan(&mut self, now: Instant, dialog: Option<DialogId>) {
        let Some(dialog) = dialog else { return };
        if self.endpoint.ack(now, dialog, None).is_ok() {
            let content = sip::endpoint::Content::default();
            match self.endpoint.request(now, dialog, sip::Method::Bye, content) {
                Ok(tx) => {
                    self.requests.insert(tx, Pending::new(0, Side::Carrier, Kind::Bye, None));
                }
                Err(_) => self.endpoint.forget(dialog),
            }
        }
    }
}
