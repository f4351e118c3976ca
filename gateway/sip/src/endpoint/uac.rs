//! The client's side: our requests, and the responses to them
//! (RFC 3261 §8.1, §9.1, §12.2.1, §13.2, §17.1).

use std::time::Instant;

use bytes::Bytes;

use super::compose::{self, Opening, Origin, Within};
use super::event::{
    Body, ClientTx, CommandError, Content, DialogId, Event, Failure, Headers, Invite, OutOfDialog,
};
use super::random::Token;
use super::{Endpoint, Owner};
use crate::flow::Flow;
use crate::message::{Message, Request};
use crate::method::Method;
use crate::print::Unprintable;
use crate::transaction::client::{self, Client};
use crate::transaction::invite_client::{self, InviteClient};
use crate::transaction::{Notice, Step};

/// The longest request that should be sent in a datagram when the path's MTU is not known, in octets
/// (RFC 3261 §18.1.1).
pub const MAX_DATAGRAM_REQUEST: usize = 1300;

/// A request of ours.
pub(super) struct ClientTransaction {
    pub(super) machine: Machine,
    pub(super) request: Request,
    pub(super) flow: Flow,
    key: Box<[u8]>,
    /// The dialog it was sent in.
    pub(super) dialog: Option<DialogId>,
    /// The dialogs responses to it made.
    pub(super) forks: Vec<DialogId>,
    pub(super) cancel: Cancel,
    /// The application has heard how it ended.
    pub(super) finished: bool,
    /// The endpoint sent it by itself; the application hears nothing of it.
    quiet: bool,
    /// Until when a refused request is kept for `retry_with`, though its machine is done.
    pub(super) keep_until: Option<Instant>,
    deadline: Option<Instant>,
}

/// What the application wants to become of an INVITE (RFC 3261 §9.1).
pub(super) enum Cancel {
    /// A call.
    No,
    /// Nothing; this CANCEL goes out as soon as a provisional response allows it.
    Wanted(Bytes),
    /// Nothing, and the peer knows.
    Sent,
}

pub(super) enum Machine {
    Invite(InviteClient),
    Other(Client),
    /// A BYE that waits for the ACK of our 2xx.
    Held,
}

impl Machine {
    fn handle_timeout(&mut self, now: Instant) -> Option<Step> {
        match self {
            Machine::Invite(machine) => machine.handle_timeout(now),
            Machine::Other(machine) => machine.handle_timeout(now),
            Machine::Held => None,
        }
    }

    fn deadline(&self) -> Option<Instant> {
        match self {
            Machine::Invite(machine) => machine.deadline(),
            Machine::Other(machine) => machine.deadline(),
            Machine::Held => None,
        }
    }

    fn is_terminated(&self) -> bool {
        match self {
            Machine::Invite(machine) => machine.is_terminated(),
            Machine::Other(machine) => machine.is_terminated(),
            Machine::Held => false,
        }
    }
}

/// What is known of a request before it is sent.
pub(super) struct Start {
    pub(super) flow: Flow,
    pub(super) bytes: Bytes,
    pub(super) dialog: Option<DialogId>,
    pub(super) quiet: bool,
    pub(super) held: bool,
}

impl Endpoint {
    /// Calls somebody (RFC 3261 §13.2). A From tag, and a Call-ID unless one is given, are minted.
    ///
    /// # Errors
    /// `Unprintable` and `Full`.
    pub fn invite(&mut self, now: Instant, invite: Invite<'_>) -> Result<ClientTx, CommandError> {
        if self.dialogs.is_full() {
            return Err(CommandError::Full);
        }
        let (from_tag, minted) = (self.mint(), self.mint());
        let opening = first(&invite, &from_tag, &minted);
        self.open(now, invite.flow, &opening, (invite.headers, invite.body))
    }

    /// The octets that `invite` would be as a message, before anything is sent: more than
    /// [`MAX_DATAGRAM_REQUEST`] should go over a stream (RFC 3261 §18.1.1). Credentials that a
    /// challenge asks for come on top, about 400 octets.
    ///
    /// # Errors
    /// `Unprintable`.
    pub fn invite_size(&self, invite: &Invite<'_>) -> Result<usize, CommandError> {
        let node = self.options.node;
        let (token, branch) =
            (compose::identifier(node, &Token::BLANK), compose::branch(node, &Token::BLANK));
        let opening = first(invite, &token, &token);
        let host = self.options.via_host.as_deref();
        let origin = Origin { flow: invite.flow, host, branch: &branch };
        let bytes = compose::opening(origin, &opening, invite.headers, invite.body);
        bytes.map(|bytes| bytes.len()).map_err(unprintable)
    }

    /// Sends a request outside of any dialog: OPTIONS, REGISTER, MESSAGE and so on.
    ///
    /// # Errors
    /// `NotAllowed` for INVITE, ACK, CANCEL and BYE; `Unprintable` and `Full`.
    pub fn request_outside(
        &mut self,
        now: Instant,
        request: OutOfDialog<'_>,
    ) -> Result<ClientTx, CommandError> {
        let method = request.method;
        if matches!(method, Method::Invite | Method::Ack | Method::Cancel | Method::Bye) {
            return Err(CommandError::NotAllowed);
        }
        let (from_tag, minted) = (self.mint(), self.mint());
        let (call_id, cseq) = request.sequence.unwrap_or((&minted, 1));
        let opening = Opening {
            method,
            request_uri: request.request_uri,
            from: request.from,
            from_tag: &from_tag,
            to: request.to,
            call_id,
            cseq,
            contact: None,
        };
        self.open(now, request.flow, &opening, (request.headers, request.body))
    }

    fn open(
        &mut self,
        now: Instant,
        flow: Flow,
        opening: &Opening<'_>,
        (headers, body): (Headers<'_>, Body<'_>),
    ) -> Result<ClientTx, CommandError> {
        let branch = self.mint_branch();
        let origin = Origin { flow, host: self.options.via_host.as_deref(), branch: &branch };
        let bytes = compose::opening(origin, opening, headers, body).map_err(unprintable)?;
        self.start_client(now, Start { flow, bytes, dialog: None, quiet: false, held: false })
    }

    /// Sends a request in a dialog: BYE, INFO, re-INVITE, UPDATE and so on, with the dialog's
    /// Call-ID, tags, next number, route set and target, on its flow. A BYE ends the dialog when it
    /// is answered, save with 401 or 407: then `retry_with` or `forget` is up to the application. So
    /// it is when the flow fails: another BYE after `move_dialog`, or `forget`.
    /// While our 2xx is unacknowledged it waits for the ACK (RFC 3261 §15).
    ///
    /// # Errors
    /// `Gone`; `Pending` for an INVITE while another is open; `NotAllowed` for ACK and CANCEL, and
    /// for BYE in an early dialog of the callee; `Unprintable` and `Full`.
    pub fn request(
        &mut self,
        now: Instant,
        dialog: DialogId,
        method: Method,
        content: Content<'_>,
    ) -> Result<ClientTx, CommandError> {
        self.send_within(now, dialog, (method, content), false)
    }

    /// As `request`; a quiet one is the endpoint's own and the application hears nothing of it.
    pub(super) fn send_within(
        &mut self,
        now: Instant,
        dialog: DialogId,
        (method, content): (Method, Content<'_>),
        quiet: bool,
    ) -> Result<ClientTx, CommandError> {
        if self.clients.is_full() {
            return Err(CommandError::Full);
        }
        let branch = self.mint_branch();
        let session = self.dialogs.get_mut(dialog.0).ok_or(CommandError::Gone)?;
        session.allows(method)?;
        let held = method == Method::Bye && session.awaits_ack();
        let refreshes = matches!(
            method,
            Method::Invite | Method::Update | Method::Refer | Method::Subscribe | Method::Notify
        );
        let cseq = session.dialog.next_cseq();
        let within = Within {
            dialog: &session.dialog,
            method,
            cseq,
            contact: session.contact.as_deref().filter(|_| refreshes),
            credentials: None,
        };
        let flow = session.flow;
        let origin = Origin { flow, host: self.options.via_host.as_deref(), branch: &branch };
        let bytes =
            compose::within(origin, &within, content.headers, content.body).map_err(unprintable)?;
        let tx =
            self.start_client(now, Start { flow, bytes, dialog: Some(dialog), quiet, held })?;
        let session = self.session(dialog)?;
        if held {
            session.held_bye = Some(tx);
        }
        if method == Method::Invite {
            session.client_invite = Some(tx);
        }
        Ok(tx)
    }

    /// Sends a refused request again as the RFC wants it done: same Call-ID, From and To, the next
    /// number, a new branch; `headers` replace those of the same name (credentials, Session-Expires).
    /// In a dialog it goes where the dialog's requests go by now. To be called soon after the refusal:
    /// a refused request is kept for T4 at least.
    ///
    /// # Errors
    /// `Gone` when the request is not known any more; `NotAllowed` when it was not refused;
    /// `Unprintable` and `Full`.
    pub fn retry_with(
        &mut self,
        now: Instant,
        tx: ClientTx,
        headers: Headers<'_>,
    ) -> Result<ClientTx, CommandError> {
        self.retry(now, tx, None, headers)
    }

    /// As [`Endpoint::retry_with`], on another flow: to the next target (RFC 3263 §4.3), or over a
    /// stream because the request has outgrown a datagram. Only outside of dialogs; what names the
    /// old flow, Contact above all, is among the `headers` to be replaced.
    ///
    /// # Errors
    /// Those of `retry_with`; `NotAllowed` in a dialog too.
    pub fn retry_on(
        &mut self,
        now: Instant,
        tx: ClientTx,
        flow: Flow,
        headers: Headers<'_>,
    ) -> Result<ClientTx, CommandError> {
        self.retry(now, tx, Some(flow), headers)
    }

    /// The INVITE of ours that has come back to us as `request`, and how many others have passed it on
    /// meanwhile: one of its Via lines is ours, and its final response has not come (RFC 3261 §16.3
    /// item 4). Nobody who has not seen the INVITE can know its branch.
    #[must_use]
    pub fn come_back(&mut self, request: &Request) -> Option<(ClientTx, usize)> {
        let method = Method::Invite.as_str().as_bytes();
        request.vias().enumerate().find_map(|(hops, via)| {
            let tx = self.client_keys.find(self.key.client_of(via.branch()?, method))?;
            Some((tx, hops))
        })
    }

    /// A request of ours as it was sent, for as long as it can be sent again: method, Request-URI and
    /// body are what credentials are for (RFC 7616 §3.4.6). `None` when it is not known any more.
    #[must_use]
    pub fn request_of(&self, tx: ClientTx) -> Option<&Request> {
        self.clients.get(tx.0).map(|client| &client.request)
    }

    fn retry(
        &mut self,
        now: Instant,
        tx: ClientTx,
        elsewhere: Option<Flow>,
        headers: Headers<'_>,
    ) -> Result<ClientTx, CommandError> {
        if self.clients.is_full() {
            return Err(CommandError::Full);
        }
        let branch = self.mint_branch();
        let old = self.clients.get(tx.0).ok_or(CommandError::Gone)?;
        let dialog = old.dialog;
        if !old.finished || !old.forks.is_empty() || (elsewhere.is_some() && dialog.is_some()) {
            return Err(CommandError::NotAllowed);
        }
        let session = dialog.map(|dialog| self.dialogs.get_mut(dialog.0).ok_or(CommandError::Gone));
        let mut session = session.transpose()?;
        let within = session.as_ref().map(|session| session.flow);
        let flow = within.or(elsewhere).unwrap_or(old.flow);
        let method = old.request.method();
        let cseq = match &mut session {
            Some(session) => {
                session.allows(method)?;
                session.dialog.next_cseq()
            }
            None => old.request.cseq().wrapping_add(1),
        };
        let origin = Origin { flow, host: self.options.via_host.as_deref(), branch: &branch };
        let bytes = compose::again(origin, &old.request, cseq, headers).map_err(unprintable)?;
        let start = Start { flow, bytes, dialog, quiet: old.quiet, held: false };
        let new = self.start_client(now, start)?;
        if let (Some(dialog), Method::Invite) = (dialog, method) {
            self.session(dialog)?.client_invite = Some(new);
        }
        Ok(new)
    }

    /// Withdraws an INVITE (RFC 3261 §9.1). The CANCEL goes out at once or, when the peer has not
    /// said anything yet, after its first provisional response. The INVITE then ends with a 487, by
    /// time-out, or, when its 2xx has crossed the CANCEL, with `Failure::Cancelled`.
    ///
    /// # Errors
    /// `Gone`; `AlreadyAnswered`; `NotAllowed` when it is no INVITE.
    pub fn cancel(&mut self, now: Instant, tx: ClientTx) -> Result<(), CommandError> {
        self.cancel_with(now, tx, &[])
    }

    /// As [`Endpoint::cancel`], with more headers in the CANCEL: Reason (RFC 3326).
    ///
    /// # Errors
    /// Those of `cancel`, and `Unprintable`.
    pub fn cancel_with(
        &mut self,
        now: Instant,
        tx: ClientTx,
        headers: Headers<'_>,
    ) -> Result<(), CommandError> {
        let client = self.clients.get_mut(tx.0).ok_or(CommandError::Gone)?;
        let Machine::Invite(machine) = &client.machine else {
            return Err(CommandError::NotAllowed);
        };
        if !machine.is_pending() || client.finished {
            return Err(CommandError::AlreadyAnswered);
        }
        if matches!(client.cancel, Cancel::No) {
            let bytes = compose::cancel(&client.request, headers).map_err(unprintable)?;
            client.cancel = Cancel::Wanted(bytes);
        }
        self.send_cancel(now, tx);
        Ok(())
    }

    /// Sends the CANCEL that is wanted, if a provisional response allows it.
    pub(super) fn send_cancel(&mut self, now: Instant, tx: ClientTx) {
        let Some(client) = self.clients.get_mut(tx.0) else { return };
        let (Machine::Invite(machine), Cancel::Wanted(bytes)) =
            (&mut client.machine, &client.cancel)
        else {
            return;
        };
        if !machine.is_proceeding() {
            return;
        }
        let (bytes, flow) = (bytes.clone(), client.flow);
        client.cancel = Cancel::Sent;
        let step = machine.handle(now, invite_client::Input::CancelSent);
        self.apply_client(now, tx, step);
        self.reschedule_client(tx);
        // Without room for its transaction the CANCEL is not sent; the INVITE times out instead.
        let start = Start { flow, bytes, dialog: None, quiet: true, held: false };
        let _ = self.start_client(now, start);
    }

    /// Acknowledges the 2xx of an INVITE (RFC 3261 §13.2.2.4), with the answer when the offer was in
    /// the 2xx. When the 2xx comes again the endpoint repeats this ACK by itself.
    ///
    /// # Errors
    /// `Gone`; `NotAllowed` when there is nothing to acknowledge; `Unprintable`.
    pub fn ack(
        &mut self,
        now: Instant,
        dialog: DialogId,
        body: Body<'_>,
    ) -> Result<(), CommandError> {
        // An ACK has no transaction and no timer; `now` is here because every command has it.
        let _ = now;
        let branch = self.mint_branch();
        let session = self.dialogs.get_mut(dialog.0).ok_or(CommandError::Gone)?;
        let (cseq, tx) = session.to_ack.ok_or(CommandError::NotAllowed)?;
        let invite = self.clients.get(tx.0).map(|client| &*client.request);
        let within = Within {
            dialog: &session.dialog,
            method: Method::Ack,
            cseq,
            contact: None,
            credentials: invite,
        };
        let flow = session.flow;
        let origin = Origin { flow, host: self.options.via_host.as_deref(), branch: &branch };
        let bytes = compose::within(origin, &within, &[], body).map_err(unprintable)?;
        session.to_ack = None;
        session.ack = Some((cseq, bytes.clone()));
        self.transmit(flow, bytes);
        Ok(())
    }

    /// Creates the transaction of a request that is printed, and sends it unless it is held.
    pub(super) fn start_client(
        &mut self,
        now: Instant,
        start: Start,
    ) -> Result<ClientTx, CommandError> {
        let Start { flow, bytes, dialog, quiet, held } = start;
        // What we cannot read ourselves we do not send.
        let message = Message::parse(bytes.clone()).map_err(|_| CommandError::Unprintable)?;
        let request = Request::try_from(message).map_err(|_| CommandError::Unprintable)?;
        let branch = request.via().branch().unwrap_or_default();
        let key: Box<[u8]> = self.key.client_of(branch, request.method_token()).into();
        let client = ClientTransaction {
            machine: Machine::Held,
            request,
            flow,
            key: key.clone(),
            dialog,
            forks: Vec::new(),
            cancel: Cancel::No,
            finished: false,
            quiet,
            keep_until: None,
            deadline: None,
        };
        let tx = ClientTx(self.clients.insert(client).ok_or(CommandError::Full)?);
        self.riders.board(&flow, Owner::Client(tx));
        self.client_keys.put(key, tx);
        if !held {
            self.start_held(now, tx);
        }
        Ok(tx)
    }

    /// Sends a request that has been held back until now.
    pub(super) fn start_held(&mut self, now: Instant, tx: ClientTx) {
        let timings = self.options.timings;
        let Some(client) = self.clients.get_mut(tx.0) else { return };
        let (bytes, reliable) =
            (client.request.bytes().clone(), client.flow.transport.is_reliable());
        let (machine, step) = if client.request.method() == Method::Invite {
            let (machine, step) = InviteClient::start(now, timings, reliable, bytes);
            (Machine::Invite(machine), step)
        } else {
            let (machine, step) = Client::start(now, timings, reliable, bytes);
            (Machine::Other(machine), step)
        };
        client.machine = machine;
        self.apply_client(now, tx, step);
        self.reschedule_client(tx);
    }

    pub(super) fn client_timeout(&mut self, now: Instant, tx: ClientTx) {
        let Some(client) = self.clients.get_mut(tx.0) else { return };
        client.deadline = None;
        client.keep_until = client.keep_until.filter(|at| *at > now);
        while let Some(step) =
            self.clients.get_mut(tx.0).and_then(|tx| tx.machine.handle_timeout(now))
        {
            self.apply_client(now, tx, step);
        }
        self.reschedule_client(tx);
    }

    pub(super) fn client_flow_failed(&mut self, now: Instant, tx: ClientTx) {
        let Some(client) = self.clients.get_mut(tx.0) else { return };
        let step = match &mut client.machine {
            Machine::Invite(machine) => machine.handle(now, invite_client::Input::TransportFailed),
            Machine::Other(machine) => machine.handle(now, client::Input::TransportFailed),
            Machine::Held => return,
        };
        self.apply_client(now, tx, step);
        self.reschedule_client(tx);
    }

    /// Does what a machine asks for.
    pub(super) fn apply_client(&mut self, now: Instant, tx: ClientTx, step: Step) {
        let flow = self.clients.get(tx.0).map(|client| client.flow);
        if let (Some(flow), Some(bytes)) = (flow, step.transmit) {
            self.transmit(flow, bytes);
        }
        match step.notice {
            Some(Notice::Timeout) => self.client_failed(now, tx, Failure::Timeout),
            Some(Notice::Transport) => self.client_failed(now, tx, Failure::Transport),
            Some(Notice::Deliver) | None => {}
        }
    }

    /// A request of ours ends without a final response.
    fn client_failed(&mut self, now: Instant, tx: ClientTx, why: Failure) {
        let method = self.clients.get(tx.0).map(|client| client.request.method());
        let told = self.tell_failed(tx, why);
        match method {
            Some(Method::Invite) => self.own_invite_done(tx, None),
            // The application may say it on another flow, in the same dialog.
            Some(Method::Bye) if told && why == Failure::Transport => {}
            Some(Method::Bye) => self.own_bye_done(tx),
            _ => {}
        }
        // The application may try the same request elsewhere.
        if let Some(client) = self.clients.get_mut(tx.0) {
            client.keep_until = Some(now + self.options.timings.t4());
        }
    }

    /// Tells the application, once, that a request failed. False when it does not hear of it.
    pub(super) fn tell_failed(&mut self, tx: ClientTx, why: Failure) -> bool {
        let Some(client) = self.clients.get_mut(tx.0) else { return false };
        let told = !client.finished && !client.quiet;
        if told {
            self.events.push_back(Event::Failed { tx, why, dialog: client.dialog });
        }
        client.finished = true;
        told
    }

    /// Whether the application wants to hear of this request.
    pub(super) fn is_heard(&self, tx: ClientTx) -> bool {
        self.clients.get(tx.0).is_some_and(|client| !client.quiet)
    }

    /// Keeps the queue of deadlines true after a machine has moved, and drops it when it is done.
    pub(super) fn reschedule_client(&mut self, tx: ClientTx) {
        let Some(client) = self.clients.get_mut(tx.0) else { return };
        if client.machine.is_terminated() && client.keep_until.is_none() {
            self.drop_leftovers(tx);
            return self.remove_client(tx);
        }
        let new = [client.machine.deadline(), client.keep_until].into_iter().flatten().min();
        let old = client.deadline;
        client.deadline = new;
        self.deadlines.shift(Owner::Client(tx), old, new);
    }

    pub(super) fn remove_client(&mut self, tx: ClientTx) {
        let Some(client) = self.clients.remove(tx.0) else { return };
        self.deadlines.shift(Owner::Client(tx), client.deadline, None);
        self.riders.leave(&client.flow, Owner::Client(tx));
        self.client_keys.remove(&client.key, tx);
    }

    /// A request that has not been sent yet goes on another flow.
    pub(super) fn move_client(&mut self, tx: ClientTx, flow: Flow) {
        let Some(client) = self.clients.get_mut(tx.0) else { return };
        let old = std::mem::replace(&mut client.flow, flow);
        self.riders.leave(&old, Owner::Client(tx));
        self.riders.board(&flow, Owner::Client(tx));
    }
}

/// The start of a call.
fn first<'a>(invite: &Invite<'a>, from_tag: &'a str, call_id: &'a str) -> Opening<'a> {
    Opening {
        method: Method::Invite,
        request_uri: invite.request_uri,
        from: invite.from,
        from_tag,
        to: invite.to,
        call_id: invite.call_id.unwrap_or(call_id),
        cseq: 1,
        contact: Some(invite.contact),
    }
}

/// Which field it was is the application's to know: it filled it in.
fn unprintable(_: Unprintable) -> CommandError {
    CommandError::Unprintable
}
