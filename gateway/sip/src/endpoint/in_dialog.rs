//! Inside dialogs: requests that arrive there, the three ways of INVITE, and how dialogs end
//! (RFC 3261 §12.2, §13.3.1.4, §14.2, §15).

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::event::{ClientTx, CommandError, DialogId, Event, Reply, ServerTx, Trust};
use super::options::Prefix;
use super::refusals::Refusal;
use super::{Endpoint, Owner};
use crate::dialog::{Dialog, Order};
use crate::flow::Flow;
use crate::message::Request;
use crate::method::Method;

/// A dialog and what is going on in it.
pub(super) struct Session {
    pub(super) dialog: Dialog,
    key: Box<[u8]>,
    /// Where it came from and where our requests go.
    pub(super) flow: Flow,
    /// Where else its peer may send from.
    also_from: Box<[Prefix]>,
    /// Our Contact, for the messages that must have one.
    pub(super) contact: Option<Box<str>>,
    /// The peer's INVITE that has no final response yet.
    pub(super) server_invite: Option<ServerTx>,
    /// Our INVITE that has no final response yet.
    pub(super) client_invite: Option<ClientTx>,
    /// Our 2xx whose ACK has not come.
    unacked: Option<Unacked>,
    /// The peer's 2xx whose ACK the application has not given: the INVITE's number and transaction.
    pub(super) to_ack: Option<(u32, ClientTx)>,
    /// Our last ACK with its number, for repeated 2xx.
    pub(super) ack: Option<(u32, Bytes)>,
    /// Our BYE that has to wait until our 2xx is acknowledged or given up (RFC 3261 §15).
    pub(super) held_bye: Option<ClientTx>,
    deadline: Option<Instant>,
}

/// A 2xx to an INVITE, as it was sent.
pub(super) struct Success {
    pub(super) tx: ServerTx,
    /// The number of the INVITE, and of the ACK to come.
    pub(super) cseq: u32,
    pub(super) bytes: Bytes,
}

/// A 2xx that is repeated until its ACK comes (RFC 3261 §13.3.1.4).
struct Unacked {
    success: Success,
    interval: Duration,
    repeat_at: Instant,
    give_up_at: Instant,
}

impl Session {
    fn wanted(&self) -> Option<Instant> {
        self.unacked.as_ref().map(|unacked| unacked.repeat_at.min(unacked.give_up_at))
    }

    /// Whether our 2xx still waits for its ACK.
    pub(super) fn awaits_ack(&self) -> bool {
        self.unacked.is_some()
    }

    /// Whether a message from `flow` may speak for this dialog's peer: from the same address or one
    /// that was added to it, and not in the clear when the dialog is not.
    fn admits(&self, flow: &Flow) -> bool {
        let downgrade = self.flow.transport.is_secure() && !flow.transport.is_secure();
        let source = flow.remote.ip();
        let listed = self.also_from.iter().any(|prefix| prefix.contains(source));
        (self.flow.remote.ip() == source || listed) && !downgrade
    }
}

impl Endpoint {
    /// Forgets a dialog, saying nothing to the peer. Its handle names nothing any more; requests in
    /// it get 481 from now on.
    pub fn forget(&mut self, dialog: DialogId) {
        let Some(session) = self.dialogs.remove(dialog.0) else { return };
        self.deadlines.shift(Owner::Dialog(dialog), session.deadline, None);
        self.dialog_keys.remove(&session.key, dialog);
        if let Some(bye) = session.held_bye {
            self.remove_client(bye);
        }
    }

    /// Lets requests of this dialog come from these networks too: the other addresses of a trunk
    /// whose calls are moved between its machines. They replace what was given before.
    pub fn also_from(&mut self, dialog: DialogId, networks: &[Prefix]) {
        if let Some(session) = self.dialogs.get_mut(dialog.0) {
            session.also_from = networks.into();
        }
    }

    /// The flow that our requests in a dialog go on; `None` when the dialog is gone.
    #[must_use]
    pub fn flow_of(&self, dialog: DialogId) -> Option<Flow> {
        self.dialogs.get(dialog.0).map(|session| session.flow)
    }

    /// Has the requests of a dialog go on another flow from now on: the connection it came on has
    /// broken and another one leads to the same peer. A BYE that is still held back goes there too;
    /// requests that have been sent are not sent again ([`Endpoint::retry_with`] does that).
    ///
    /// # Errors
    /// `Gone`; `NotAllowed` when the dialog is secure and the flow is not.
    pub fn move_dialog(&mut self, dialog: DialogId, flow: Flow) -> Result<(), CommandError> {
        let session = self.session(dialog)?;
        if session.flow.transport.is_secure() && !flow.transport.is_secure() {
            return Err(CommandError::NotAllowed);
        }
        session.flow = flow;
        if let Some(bye) = session.held_bye {
            self.move_client(bye, flow);
        }
        Ok(())
    }

    /// The Request-URI that the next request in a dialog will have: what its digest has to cover when
    /// credentials go with it unasked (RFC 3261 §22.4). `None` when the dialog is gone.
    #[must_use]
    pub fn request_uri(&self, dialog: DialogId) -> Option<Bytes> {
        Some(self.dialogs.get(dialog.0)?.dialog.route().request_uri)
    }

    /// The dialog's Call-ID and tags (ours, the peer's), for Replaces, Refer-To and logs; `None`
    /// when the dialog is gone.
    #[must_use]
    pub fn identity(&self, dialog: DialogId) -> Option<(&[u8], &[u8], &[u8])> {
        let dialog = &self.dialogs.get(dialog.0)?.dialog;
        Some((dialog.call_id(), dialog.local_tag(), dialog.remote_tag()))
    }

    /// Stores a dialog; `None` when there are too many.
    pub(super) fn open_dialog(&mut self, dialog: Dialog, flow: Flow) -> Option<DialogId> {
        let (call_id, local, remote) = (dialog.call_id(), dialog.local_tag(), dialog.remote_tag());
        let key: Box<[u8]> = self.key.dialog(call_id, local, remote).into();
        let id = DialogId(self.dialogs.insert(Session {
            dialog,
            key: key.clone(),
            flow,
            also_from: Box::default(),
            contact: None,
            server_invite: None,
            client_invite: None,
            unacked: None,
            to_ack: None,
            ack: None,
            held_bye: None,
            deadline: None,
        })?);
        self.dialog_keys.put(key, id);
        Some(id)
    }

    /// The dialog of an INVITE we are about to answer with 101–299: the one it has, or a new one.
    pub(super) fn open_uas_dialog(&mut self, tx: ServerTx) -> Option<DialogId> {
        let server = self.servers.get(tx.0)?;
        if server.dialog.is_some() {
            return server.dialog;
        }
        let (dialog, flow) = (Dialog::uas(&server.request, &server.tag), server.flow);
        let id = self.open_dialog(dialog, flow)?;
        self.servers.get_mut(tx.0)?.dialog = Some(id);
        self.dialogs.get_mut(id.0)?.server_invite = Some(tx);
        Some(id)
    }

    pub(super) fn keep_contact(&mut self, dialog: DialogId, contact: &str) {
        if let Some(session) = self.dialogs.get_mut(dialog.0) {
            session.contact = Some(contact.into());
        }
    }

    /// The dialog a request names, if the request comes from the dialog's peer.
    fn find_dialog(&mut self, flow: &Flow, request: &Request) -> Option<DialogId> {
        let local = request.to().tag()?;
        let remote = request.from().tag().unwrap_or_default();
        let id = self.dialog_keys.find(self.key.dialog(request.call_id(), local, remote))?;
        self.dialogs.get(id.0)?.admits(flow).then_some(id)
    }

    /// A request with a To tag (RFC 3261 §12.2.2).
    pub(super) fn handle_in_dialog(
        &mut self,
        now: Instant,
        flow: Flow,
        request: Request,
        trust: Trust,
    ) {
        let Some(dialog) = self.find_dialog(&flow, &request) else {
            return self.refuse(flow, &request, trust, &Refusal::of(481));
        };
        if let Some(refusal) = self.objection(&request) {
            return self.refuse(flow, &request, Trust::Known, &refusal);
        }
        if self.servers.is_full() {
            return self.refuse_busy(now, flow, &request, Trust::Known);
        }
        let Some(session) = self.dialogs.get_mut(dialog.0) else { return };
        if session.dialog.observe(request.cseq()) == Order::Late {
            return self.refuse(flow, &request, Trust::Known, &Refusal::of(500));
        }
        // The peer's newest connection, or the port its NAT has given it by now, is the way back.
        session.flow = flow;
        if let Some(bye) = session.held_bye {
            self.move_client(bye, flow);
        }
        let Some(tx) = self.open_server(now, flow, &request, true) else { return };
        if let Some(server) = self.servers.get_mut(tx.0) {
            server.within = true;
            server.dialog = Some(dialog);
        }
        match request.method() {
            Method::Invite if !self.admit_invite(now, dialog, tx) => return,
            Method::Invite | Method::Update => self.retarget(dialog, &request),
            Method::Bye => self.handle_bye(now, dialog),
            _ => {}
        }
        self.events.push_back(Event::InDialog { dialog, tx, request });
    }

    /// An INVITE in a dialog; refused while another one is open there (RFC 3261 §14.2).
    fn admit_invite(&mut self, now: Instant, dialog: DialogId, tx: ServerTx) -> bool {
        let Some(session) = self.dialogs.get_mut(dialog.0) else { return false };
        if session.server_invite.is_some() {
            let wait = self.random.below(11).to_string();
            let headers = [("Retry-After", wait.as_str())];
            let reply = Reply { headers: &headers, ..Reply::new(500) };
            // The transaction is new: nothing can be wrong with its answer.
            let _ = self.respond(now, tx, reply);
            return false;
        }
        if session.client_invite.is_some() || session.to_ack.is_some() || session.unacked.is_some()
        {
            self.finish(now, tx, 491);
            return false;
        }
        session.server_invite = Some(tx);
        self.finish(now, tx, 100);
        true
    }

    /// A target refresh request has come (RFC 3261 §12.2.2).
    fn retarget(&mut self, dialog: DialogId, request: &Request) {
        if let Some(session) = self.dialogs.get_mut(dialog.0) {
            session.dialog.retarget(request, request.contact());
        }
    }

    /// A BYE has come: what is pending in the dialog gets 487, and no 2xx is repeated any more
    /// (RFC 3261 §15.1.2).
    fn handle_bye(&mut self, now: Instant, dialog: DialogId) {
        let Some(session) = self.dialogs.get_mut(dialog.0) else { return };
        session.unacked = None;
        let (invite, bye) = (session.server_invite.take(), session.held_bye.take());
        if let Some(invite) = invite {
            // The 487 must not take the dialog away: the BYE is still to be answered in it.
            if let Some(server) = self.servers.get_mut(invite.0) {
                server.within = true;
            }
            self.finish(now, invite, 487);
        }
        if let Some(bye) = bye {
            self.start_held(now, bye);
        }
        self.reschedule_dialog(dialog);
    }

    /// An ACK that matches no refusal: the third way of an accepted INVITE (RFC 3261 §13.3.1.4).
    pub(super) fn handle_ack(&mut self, now: Instant, flow: Flow, request: &Request) {
        let Some(dialog) = self.find_dialog(&flow, request) else { return };
        let Some(session) = self.dialogs.get_mut(dialog.0) else { return };
        if session.unacked.as_ref().is_none_or(|unacked| unacked.success.cseq != request.cseq()) {
            return;
        }
        session.unacked = None;
        let bye = session.held_bye.take();
        self.reschedule_dialog(dialog);
        let body = Some(request.body_bytes()).filter(|body| !body.is_empty());
        self.events.push_back(Event::Acked { dialog, body });
        if let Some(bye) = bye {
            self.start_held(now, bye);
        }
    }

    /// Our 2xx has gone out: repeat it until its ACK comes.
    pub(super) fn accepted(&mut self, now: Instant, dialog: DialogId, success: Success) {
        let timings = self.options.timings;
        let Some(session) = self.dialogs.get_mut(dialog.0) else { return };
        session.dialog.confirm(None);
        session.server_invite = None;
        session.unacked = Some(Unacked {
            success,
            interval: timings.t1(),
            repeat_at: now + timings.t1(),
            give_up_at: now + timings.timeout(),
        });
        self.reschedule_dialog(dialog);
    }

    /// The peer's INVITE has its final response.
    pub(super) fn invite_done(&mut self, dialog: DialogId, tx: ServerTx) {
        if let Some(session) = self.dialogs.get_mut(dialog.0)
            && session.server_invite == Some(tx)
        {
            session.server_invite = None;
        }
    }

    pub(super) fn dialog_timeout(&mut self, now: Instant, dialog: DialogId) {
        let t2 = self.options.timings.t2();
        let Some(session) = self.dialogs.get_mut(dialog.0) else { return };
        session.deadline = None;
        if let Some(unacked) = &mut session.unacked {
            if unacked.give_up_at <= now {
                self.ack_missing(now, dialog);
            } else if unacked.repeat_at <= now {
                unacked.interval = (unacked.interval * 2).min(t2);
                unacked.repeat_at = now + unacked.interval;
                let (tx, bytes) = (unacked.success.tx, unacked.success.bytes.clone());
                self.repeat_success(now, tx, bytes);
            }
        }
        self.reschedule_dialog(dialog);
    }

    fn ack_missing(&mut self, now: Instant, dialog: DialogId) {
        let Some(session) = self.dialogs.get_mut(dialog.0) else { return };
        session.unacked = None;
        let bye = session.held_bye.take();
        self.events.push_back(Event::AckMissing { dialog });
        if let Some(bye) = bye {
            self.start_held(now, bye);
        }
    }

    pub(super) fn reschedule_dialog(&mut self, dialog: DialogId) {
        let Some(session) = self.dialogs.get_mut(dialog.0) else { return };
        let (old, new) = (session.deadline, session.wanted());
        session.deadline = new;
        self.deadlines.shift(Owner::Dialog(dialog), old, new);
    }

    /// The dialog behind a handle.
    pub(super) fn session(&mut self, dialog: DialogId) -> Result<&mut Session, CommandError> {
        self.dialogs.get_mut(dialog.0).ok_or(CommandError::Gone)
    }
}
