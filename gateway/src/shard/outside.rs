//! Requests outside of dialogs that are no calls, and the credentials of those that are.

use std::time::Instant;

use sip::digest::{self, Claim};
use sip::endpoint::{ServerTx, Trust};
use sip::{Flow, HeaderName, Method, Request};
use tracing::debug;

use super::Shard;
use crate::call::admission::Proof;
use crate::clock;

/// Allow (RFC 3261 §20.5): what we take, in or out of dialogs.
pub(super) const ALLOW: &str = "INVITE, ACK, CANCEL, BYE, OPTIONS, INFO, UPDATE, NOTIFY";

impl Shard {
    /// Strangers get silence; peers that a trunk lists get the answer the RFC has for them.
    pub(super) fn handle_outside(
        &mut self,
        now: Instant,
        tx: ServerTx,
        request: &Request,
        flow: Flow,
    ) {
        if self.trust(&flow) == Trust::Stranger {
            debug!(source = %flow.remote, method = ?request.method(), "stranger ignored");
            return self.endpoint.ignore(now, tx);
        }
        match request.method() {
            Method::Options => self.answer_options(now, tx),
            // A request for a dialog that is not there (RFC 3261 §12.2.2, RFC 6665 §4.1.3).
            Method::Info | Method::Update | Method::Notify | Method::Bye | Method::Prack => {
                self.respond_plain(now, tx, 481, &[]);
            }
            Method::Refer => self.respond_plain(now, tx, 403, &[]),
            _ => self.respond_plain(now, tx, 405, &[("Allow", ALLOW)]),
        }
    }

    /// The health test of carriers (RFC 3261 §11.2): 200, or 503 while draining.
    pub(super) fn answer_options(&mut self, now: Instant, tx: ServerTx) {
        if self.is_draining() {
            let retry = self.services.settings.calls.retry_after_seconds.to_string();
            return self.respond_plain(now, tx, 503, &[("Retry-After", &retry)]);
        }
        let headers =
            [("Allow", ALLOW), ("Accept", "application/sdp"), ("Accept-Encoding", "identity")];
        self.respond_plain(now, tx, 200, &headers);
    }
}

/// How the Authorization headers of a request stand against one user name and password.
pub(super) fn proof(
    nonces: &mut digest::Nonces,
    request: &Request,
    credentials: (&str, &str),
) -> Proof {
    let now = clock::unix_seconds();
    let mut best = Proof::Absent;
    for value in request.lines(HeaderName::Authorization) {
        let claim =
            Claim { credentials: value, method: request.method_token(), uri: request.uri_bytes() };
        let password = |username: &str| (username == credentials.0).then_some(credentials.1);
        match nonces.verify(claim, password, now) {
            digest::Verdict::Ok { .. } => return Proof::Good,
            digest::Verdict::Stale | digest::Verdict::Replayed => best = Proof::Stale,
            digest::Verdict::Wrong => best = Proof::Bad,
            digest::Verdict::OtherUri => best = Proof::OtherUri,
            digest::Verdict::Forged | digest::Verdict::Unusable => {}
        }
    }
    best
}
