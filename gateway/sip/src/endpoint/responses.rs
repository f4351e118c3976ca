//! Responses to our requests, and what they do to dialogs
//! (RFC 3261 §8.1.3, §12.1.2, §13.2.2, §17.1.3).

use std::time::Instant;

use super::event::{ClientTx, CommandError, Content, DialogId, Event, Failure};
use super::in_dialog::Session;
use super::uac::{Cancel, Machine};
use super::{Endpoint, compose};
use crate::dialog::Dialog;
use crate::flow::Flow;
use crate::message::Response;
use crate::method::Method;
use crate::transaction::{Notice, client, invite_client};

/// The most dialogs one INVITE may make: a callee that invents To tags gets no further.
const MAX_FORKS: usize = 16;

impl Session {
    /// Whether our side may send a request of this kind in the dialog now.
    pub(super) fn allows(&self, method: Method) -> Result<(), CommandError> {
        match method {
            Method::Ack | Method::Cancel | Method::Other => Err(CommandError::NotAllowed),
            Method::Invite if !self.dialog.is_confirmed() => Err(CommandError::NotAllowed),
            Method::Invite => {
                let open = self.server_invite.is_some()
                    || self.client_invite.is_some()
                    || self.awaits_ack()
                    || self.to_ack.is_some();
                if open { Err(CommandError::Pending) } else { Ok(()) }
            }
            // RFC 3261 §15: the callee ends an early dialog with a refusal, not with BYE.
            Method::Bye if !self.dialog.is_confirmed() && self.server_invite.is_some() => {
                Err(CommandError::NotAllowed)
            }
            Method::Bye if self.held_bye.is_some() => Err(CommandError::Pending),
            _ => Ok(()),
        }
    }
}

impl Endpoint {
    pub(super) fn handle_response(&mut self, now: Instant, flow: Flow, response: Response) {
        let Some(tx) = self.client_keys.find(self.key.client(&response)) else { return };
        let Some(client) = self.clients.get_mut(tx.0) else { return };
        // RFC 3261 §8.1.3.3: with a second Via it is not for us. Where it comes from says nothing:
        // carriers answer from other machines, and only the peer has seen the branch.
        let strange = response.vias().nth(1).is_some()
            || (client.flow.transport.is_secure() && !flow.transport.is_secure())
            || client.request.cseq() != response.cseq().0;
        if strange {
            return;
        }
        let step = match &mut client.machine {
            Machine::Invite(machine) => {
                let input = match response.status() {
                    100..200 => invite_client::Input::Provisional,
                    200..300 => invite_client::Input::Success,
                    _ => match compose::ack_failure(&client.request, &response) {
                        Ok(ack) => invite_client::Input::Failure(ack),
                        Err(_) => return,
                    },
                };
                machine.handle(now, input)
            }
            Machine::Other(machine) if response.is_provisional() => {
                machine.handle(now, client::Input::Provisional)
            }
            Machine::Other(machine) => machine.handle(now, client::Input::Final),
            Machine::Held => return,
        };
        let invite = matches!(client.machine, Machine::Invite(_));
        let news = step.notice == Some(Notice::Deliver);
        self.apply_client(now, tx, step);
        if news && invite {
            self.invite_response(now, tx, response);
        } else if news {
            self.other_response(now, tx, response);
        }
        self.reschedule_client(tx);
    }

    fn invite_response(&mut self, now: Instant, tx: ClientTx, response: Response) {
        match response.status() {
            100 => {
                self.send_cancel(now, tx);
                self.tell(tx, response, None);
            }
            101..200 => {
                let dialog = self.early_dialog(tx, &response);
                self.send_cancel(now, tx);
                self.tell(tx, response, dialog);
            }
            200..300 => self.invite_accepted(now, tx, response),
            _ => {
                self.refused(now, tx);
                let dialog = self.clients.get(tx.0).and_then(|client| client.dialog);
                self.own_invite_done(tx, None);
                self.tell(tx, response, dialog);
            }
        }
    }

    /// A response to anything but INVITE.
    fn other_response(&mut self, now: Instant, tx: ClientTx, response: Response) {
        let Some(client) = self.clients.get(tx.0) else { return };
        let (method, dialog) = (client.request.method(), client.dialog);
        let status = response.status();
        if status >= 300 {
            self.refused(now, tx);
        }
        match (method, status) {
            (Method::Update, 200..300) => {
                if let Some(session) = dialog.and_then(|dialog| self.dialogs.get_mut(dialog.0)) {
                    session.dialog.retarget(&response, response.contact());
                }
            }
            // A challenged BYE may be sent again, in the same dialog; of our own ones nobody hears.
            (Method::Bye, 401 | 407) if self.is_heard(tx) => {}
            (Method::Bye, 200..) => self.own_bye_done(tx),
            _ => {}
        }
        if status >= 200
            && let Some(client) = self.clients.get_mut(tx.0)
        {
            client.finished = true;
        }
        self.tell(tx, response, dialog);
    }

    fn tell(&mut self, tx: ClientTx, response: Response, dialog: Option<DialogId>) {
        if self.is_heard(tx) {
            self.events.push_back(Event::Response { tx, response, dialog });
        }
    }

    /// A 3xx–6xx has come: nothing more will, but the application may want to try again.
    fn refused(&mut self, now: Instant, tx: ClientTx) {
        let keep = now + self.options.timings.t4();
        if let Some(client) = self.clients.get_mut(tx.0) {
            client.finished = true;
            client.keep_until = Some(keep);
        }
    }

    /// The dialog of a provisional response: the one the INVITE was sent in, the one the same To tag
    /// made before, or a new one (RFC 3261 §12.1.2).
    fn early_dialog(&mut self, tx: ClientTx, response: &Response) -> Option<DialogId> {
        let client = self.clients.get(tx.0)?;
        if client.dialog.is_some() {
            return client.dialog;
        }
        response.to().tag()?;
        self.find_fork(response).or_else(|| self.open_uac_dialog(tx, response))
    }

    fn find_fork(&mut self, response: &Response) -> Option<DialogId> {
        let local = response.from().tag()?;
        let remote = response.to().tag().unwrap_or_default();
        self.dialog_keys.find(self.key.dialog(response.call_id(), local, remote))
    }

    fn open_uac_dialog(&mut self, tx: ClientTx, response: &Response) -> Option<DialogId> {
        let client = self.clients.get(tx.0).filter(|client| client.forks.len() < MAX_FORKS)?;
        let (dialog, flow) = (Dialog::uac(&client.request, response), client.flow);
        let contact = client.request.header(crate::HeaderName::Contact);
        let contact = contact.and_then(|value| std::str::from_utf8(value).ok()).map(Box::from);
        let id = self.open_dialog(dialog, flow)?;
        self.clients.get_mut(tx.0)?.forks.push(id);
        self.dialogs.get_mut(id.0)?.contact = contact;
        Some(id)
    }

    /// A 2xx to an INVITE of ours: the first of its dialog is news, a repeated one gets the ACK
    /// again (RFC 3261 §13.2.2.4).
    fn invite_accepted(&mut self, now: Instant, tx: ClientTx, response: Response) {
        let Some(client) = self.clients.get(tx.0) else { return };
        let (within, cseq) = (client.dialog, client.request.cseq());
        let known = within.or_else(|| self.find_fork(&response));
        let Some(dialog) = known.or_else(|| self.open_uac_dialog(tx, &response)) else { return };
        let Some(session) = self.dialogs.get_mut(dialog.0) else { return };
        if session.dialog.remote_tag() != response.to().tag().unwrap_or_default() {
            return;
        }
        match &session.ack {
            Some((acked, ack)) if *acked == cseq => {
                let (flow, ack) = (session.flow, ack.clone());
                return self.transmit(flow, ack);
            }
            _ if session.to_ack.is_some_and(|(waiting, _)| waiting == cseq) => return,
            _ => {}
        }
        session.dialog.confirm(Some(&response));
        session.to_ack = Some((cseq, tx));
        let Some(client) = self.clients.get_mut(tx.0) else { return };
        let unwanted = !matches!(client.cancel, Cancel::No);
        if unwanted {
            return self.hang_up(now, tx, dialog);
        }
        client.finished = true;
        self.own_invite_done(tx, Some(dialog));
        self.tell(tx, response, Some(dialog));
    }

    /// Ends a call that was accepted after we had withdrawn it: ACK, then BYE (RFC 3261 §9.1, §15).
    fn hang_up(&mut self, now: Instant, tx: ClientTx, dialog: DialogId) {
        self.own_invite_done(tx, Some(dialog));
        // This can only fail for want of room; the callee then gives up by itself after 64·T1.
        if self.dismiss(now, dialog).is_err() {
            self.forget(dialog);
        }
        self.tell_failed(tx, Failure::Cancelled);
    }

    /// Ends a call of ours that is not wanted (a second callee has accepted, RFC 3261 §13.2.2.4): its
    /// 2xx is acknowledged if that is due, and a BYE goes out. The dialog ends by itself; the
    /// application hears nothing more of it.
    ///
    /// # Errors
    /// `Gone`; those of [`Endpoint::ack`] and [`Endpoint::request`].
    pub fn dismiss(&mut self, now: Instant, dialog: DialogId) -> Result<(), CommandError> {
        if self.session(dialog)?.to_ack.is_some() {
            self.ack(now, dialog, None)?;
        }
        self.send_within(now, dialog, (Method::Bye, Content::default()), true).map(|_| ())
    }

    /// Our INVITE has its final response, or never will. Early dialogs end with a refusal; with a
    /// 2xx the others stay for as long as one of their own may come (RFC 3261 §13.2.2.4).
    pub(super) fn own_invite_done(&mut self, tx: ClientTx, accepted: Option<DialogId>) {
        let Some(client) = self.clients.get(tx.0) else { return };
        if let Some(session) = client.dialog.and_then(|dialog| self.dialogs.get_mut(dialog.0))
            && session.client_invite == Some(tx)
        {
            session.client_invite = None;
        }
        if accepted.is_none() {
            self.drop_leftovers(tx);
        }
    }

    /// The early dialogs of an INVITE that never became calls end with it.
    pub(super) fn drop_leftovers(&mut self, tx: ClientTx) {
        let Some(client) = self.clients.get_mut(tx.0) else { return };
        for fork in std::mem::take(&mut client.forks) {
            let early = self.dialogs.get(fork.0).is_some_and(|fork| !fork.dialog.is_confirmed());
            if early {
                self.forget(fork);
            }
        }
    }

    /// Our BYE is answered, or never will be: the dialog ends either way (RFC 3261 §15.1.1).
    pub(super) fn own_bye_done(&mut self, tx: ClientTx) {
        if let Some(dialog) = self.clients.get(tx.0).and_then(|client| client.dialog) {
            self.forget(dialog);
        }
    }
}
