//! The server's side: requests that arrive, and our answers (RFC 3261 §8.2, §9.2, §13.3, §17.2).

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::compose::{self, Answer};
use super::event::{CommandError, DialogId, Event, Reply, ServerTx, Trust};
use super::in_dialog::Success;
use super::refusals::Refusal;
use super::{Endpoint, Owner};
use crate::flow::Flow;
use crate::header::HeaderName;
use crate::message::Request;
use crate::method::Method;
use crate::transaction::Step;
use crate::transaction::invite_server::{self, InviteServer};
use crate::transaction::key::Sought;
use crate::transaction::server::{self, Server};
use crate::uri::Uri;

/// A request that waits for our answer, or whose answer may have to be repeated.
pub(super) struct ServerTransaction {
    machine: Machine,
    pub(super) request: Request,
    pub(super) flow: Flow,
    key: Box<[u8]>,
    merge: Option<Box<[u8]>>,
    /// Our tag in the To of its responses.
    pub(super) tag: String,
    /// The peer is no stranger, or not any more.
    known: bool,
    /// The dialog it came in, or that our response made.
    pub(super) dialog: Option<DialogId>,
    /// It came in a dialog.
    pub(super) within: bool,
    /// When the INVITE's own Expires runs out (RFC 3261 §13.3.1).
    expires: Option<Instant>,
    deadline: Option<Instant>,
}

enum Machine {
    Invite(InviteServer),
    Other(Server),
}

impl Machine {
    fn handle_timeout(&mut self, now: Instant) -> Option<Step> {
        match self {
            Machine::Invite(machine) => machine.handle_timeout(now),
            Machine::Other(machine) => machine.handle_timeout(now),
        }
    }

    fn deadline(&self) -> Option<Instant> {
        match self {
            Machine::Invite(machine) => machine.deadline(),
            Machine::Other(machine) => machine.deadline(),
        }
    }

    fn is_terminated(&self) -> bool {
        match self {
            Machine::Invite(machine) => machine.is_terminated(),
            Machine::Other(machine) => machine.is_terminated(),
        }
    }

    fn is_pending(&self) -> bool {
        match self {
            Machine::Invite(machine) => machine.is_proceeding(),
            Machine::Other(machine) => machine.is_pending(),
        }
    }

    fn repeated(&mut self, now: Instant) -> Step {
        match self {
            Machine::Invite(machine) => machine.handle(now, invite_server::Input::Repeated),
            Machine::Other(machine) => machine.handle(now, server::Input::Repeated),
        }
    }

    fn ignore(&mut self, now: Instant) -> Step {
        match self {
            Machine::Invite(machine) => machine.handle(now, invite_server::Input::Ignore),
            Machine::Other(machine) => machine.handle(now, server::Input::Ignore),
        }
    }

    fn transport_failed(&mut self, now: Instant) -> Step {
        match self {
            Machine::Invite(machine) => machine.handle(now, invite_server::Input::TransportFailed),
            Machine::Other(machine) => machine.handle(now, server::Input::TransportFailed),
        }
    }

    fn answer(&mut self, now: Instant, status: u16, bytes: Bytes) -> Step {
        match self {
            Machine::Invite(machine) => {
                let input = match status {
                    100..200 => invite_server::Input::Provisional(bytes),
                    200..300 => invite_server::Input::Success(bytes),
                    _ => invite_server::Input::Failure(bytes),
                };
                machine.handle(now, input)
            }
            Machine::Other(machine) => {
                let provisional = status < 200;
                let input =
                    if provisional { server::Input::Provisional } else { server::Input::Final };
                machine.handle(now, input(bytes))
            }
        }
    }
}

impl ServerTransaction {
    fn is_invite(&self) -> bool {
        matches!(self.machine, Machine::Invite(_))
    }

    /// When it wants to be woken.
    fn wanted(&self) -> Option<Instant> {
        let expires = self.expires.filter(|_| self.machine.is_pending());
        [self.machine.deadline(), expires].into_iter().flatten().min()
    }

    /// Whether SIP lets us answer with `status` now.
    fn allows(&self, status: u16) -> Result<(), CommandError> {
        if !self.machine.is_pending() {
            return Err(CommandError::AlreadyAnswered);
        }
        // RFC 4320 §4: nobody but INVITE has provisional responses of use, nobody at all 408.
        let allowed = match status {
            100..200 => self.is_invite(),
            408 => self.is_invite(),
            200..700 => true,
            _ => false,
        };
        if allowed { Ok(()) } else { Err(CommandError::NotAllowed) }
    }
}

impl Endpoint {
    /// Answers a request. A 101–199 with which the caller can go on creates an early dialog, a 2xx
    /// confirms it and is repeated until its ACK comes; the dialog is returned.
    ///
    /// # Errors
    /// See [`CommandError`]; nothing has been sent then.
    pub fn respond(
        &mut self,
        now: Instant,
        tx: ServerTx,
        reply: Reply<'_>,
    ) -> Result<Option<DialogId>, CommandError> {
        let server = self.servers.get(tx.0).ok_or(CommandError::Gone)?;
        server.allows(reply.status)?;
        let invite = server.is_invite();
        let opens = invite && !server.within && (101..300).contains(&reply.status);
        if opens && server.dialog.is_none() && self.dialogs.is_full() {
            return Err(CommandError::Full);
        }
        let bytes = self.print_reply(tx, &reply)?;
        let dialog = if opens { self.open_uas_dialog(tx) } else { server.dialog };
        if let (Some(dialog), Some(contact)) = (dialog, reply.contact) {
            self.keep_contact(dialog, contact);
        }
        self.answer(now, tx, reply.status, bytes.clone());
        if invite {
            self.invite_answered(now, tx, reply.status, bytes);
        } else {
            self.request_answered(tx, reply.status);
        }
        self.reschedule_server(tx);
        Ok(dialog)
    }

    /// Never answers a request, however often it is repeated. An early dialog it had is forgotten.
    pub fn ignore(&mut self, now: Instant, tx: ServerTx) {
        let Some(server) = self.servers.get_mut(tx.0) else { return };
        if !server.machine.is_pending() {
            return;
        }
        let (step, dialog, within) = (server.machine.ignore(now), server.dialog, server.within);
        match dialog {
            Some(dialog) if within => self.invite_done(dialog, tx),
            Some(dialog) => self.forget(dialog),
            None => {}
        }
        self.apply_server(tx, step);
        self.reschedule_server(tx);
        self.ignored.push_back(tx);
        if self.ignored.len() > self.options.max_ignored
            && let Some(oldest) = self.ignored.pop_front()
        {
            self.remove_server(oldest);
        }
    }

    fn print_reply(&self, tx: ServerTx, reply: &Reply<'_>) -> Result<Bytes, CommandError> {
        let server = self.servers.get(tx.0).ok_or(CommandError::Gone)?;
        let refreshes = matches!(server.request.method(), Method::Invite | Method::Update);
        let kept = server.dialog.filter(|_| refreshes && (101..300).contains(&reply.status));
        let kept = kept.and_then(|dialog| self.dialogs.get(dialog.0)?.contact.as_deref());
        let contact = reply.contact.or(kept);
        if server.is_invite() && (200..300).contains(&reply.status) && contact.is_none() {
            return Err(CommandError::NoContact);
        }
        let to_tag = (reply.status > 100).then_some(server.tag.as_str());
        let answer = Answer { status: reply.status, reason: reply.reason, to_tag, contact };
        let source = server.flow.remote;
        compose::answer(&server.request, source, &answer, reply.headers, reply.body)
            .map_err(|_| CommandError::Unprintable)
    }

    /// Gives a printed response to the machine and sends what the machine says.
    fn answer(&mut self, now: Instant, tx: ServerTx, status: u16, bytes: Bytes) {
        let Some(server) = self.servers.get_mut(tx.0) else { return };
        if !server.known && status < 300 {
            server.known = true;
            self.strangers = self.strangers.saturating_sub(1);
            if let Machine::Invite(machine) = &mut server.machine {
                machine.allow_repeats();
            }
        }
        let step = server.machine.answer(now, status, bytes);
        self.apply_server(tx, step);
    }

    /// Answers with a status alone, if a final response is still due.
    pub(super) fn finish(&mut self, now: Instant, tx: ServerTx, status: u16) {
        // A refusal here means that the request has been answered, which is what was wanted.
        let _ = self.respond(now, tx, Reply::new(status));
    }

    pub(super) fn handle_request(
        &mut self,
        now: Instant,
        flow: Flow,
        request: Request,
        trust: Trust,
    ) {
        let key = self.key.server(&request, &flow, Sought::Own);
        if let Some(tx) = self.server_keys.find(key) {
            return self.handle_repeated(now, tx, flow, &request);
        }
        match request.method() {
            Method::Ack => self.handle_ack(now, flow, &request),
            Method::Cancel => self.handle_cancel(now, flow, request, trust),
            _ if request.to().tag().is_some() => self.handle_in_dialog(now, flow, request, trust),
            _ => self.handle_new(now, flow, request, trust),
        }
    }

    /// A request whose transaction exists: a repeat, or the ACK of an INVITE.
    fn handle_repeated(&mut self, now: Instant, tx: ServerTx, flow: Flow, request: &Request) {
        let Some(server) = self.servers.get_mut(tx.0) else { return };
        let step = match (&mut server.machine, request.method()) {
            (Machine::Invite(machine), Method::Ack) if machine.is_accepted() => {
                // A peer that reuses the INVITE's branch for the ACK of a 2xx.
                return self.handle_ack(now, flow, request);
            }
            (Machine::Invite(machine), Method::Ack) => {
                // RFC 3261 §17.2.3: without a unique branch, the To tag decides.
                let unique = request.via().unique_branch().is_some();
                let ours = server.request.to().tag().unwrap_or(server.tag.as_bytes());
                if !unique && request.to().tag() != Some(ours) {
                    return;
                }
                machine.handle(now, invite_server::Input::Ack)
            }
            (machine, _) => machine.repeated(now),
        };
        self.apply_server(tx, step);
        self.reschedule_server(tx);
    }

    /// A request outside of any dialog (RFC 3261 §8.2).
    fn handle_new(&mut self, now: Instant, flow: Flow, request: Request, trust: Trust) {
        let has_room = !self.busy && self.strangers < self.options.max_strangers;
        if trust == Trust::Stranger && !has_room {
            self.unheard += 1;
            return;
        }
        if let Some(refusal) = self.objection(&request) {
            return self.refuse(flow, &request, trust, &refusal);
        }
        if self.is_merged(&request, trust) {
            return self.refuse(flow, &request, trust, &Refusal::of(482));
        }
        // These live in dialogs only (RFC 3261 §15.1.2, RFC 3311, RFC 3262, RFC 6086).
        let needs_dialog =
            matches!(request.method(), Method::Bye | Method::Update | Method::Prack | Method::Info);
        if needs_dialog {
            return self.refuse(flow, &request, trust, &Refusal::of(481));
        }
        let begins = request.method() == Method::Invite;
        if begins && self.turns_away(now, flow, &request, trust) {
            return;
        }
        let Some(tx) = self.open_server(now, flow, &request, trust == Trust::Known) else {
            return self.refuse_busy(now, flow, &request, trust);
        };
        if begins {
            if trust == Trust::Known {
                self.finish(now, tx, 100);
            }
            self.start_expires(now, tx);
            self.events.push_back(Event::Invite { tx, request, flow });
        } else {
            self.events.push_back(Event::Request { tx, request, flow });
        }
    }

    /// What is wrong with a request for any server of our kind.
    pub(super) fn objection(&self, request: &Request) -> Option<Refusal> {
        let method = request.method();
        if !self.options.allow.contains(&method) {
            let status = if method == Method::Other { 501 } else { 405 };
            return Some(Refusal { status, header: Some(("Allow", self.allow())) });
        }
        if matches!(request.uri(), Uri::Other { .. }) {
            return Some(Refusal::of(416));
        }
        let unknown = self.unsupported(request);
        if !unknown.is_empty() {
            return Some(Refusal { status: 420, header: Some(("Unsupported", unknown)) });
        }
        let mut encodings = request.values(HeaderName::ContentEncoding);
        if encodings.any(|coding| !coding.eq_ignore_ascii_case(b"identity")) {
            let header = Some(("Accept-Encoding", "identity".to_owned()));
            return Some(Refusal { status: 415, header });
        }
        None
    }

    /// The value of Allow.
    fn allow(&self) -> String {
        let names: Vec<&str> = self.options.allow.iter().map(|method| method.as_str()).collect();
        names.join(", ")
    }

    /// The option tags the request insists on and we do not know, joined (RFC 3261 §8.2.2.3).
    fn unsupported(&self, request: &Request) -> String {
        let known = |tag: &[u8]| {
            self.options.supported.iter().any(|ours| ours.as_bytes().eq_ignore_ascii_case(tag))
        };
        let unknown =
            request.values(HeaderName::Require).filter(|tag| !tag.is_empty() && !known(tag));
        let unknown: Vec<_> = unknown.map(String::from_utf8_lossy).collect();
        unknown.join(", ")
    }

    /// The same request has come another way (RFC 3261 §8.2.2.2). What a stranger sends is never a
    /// reason to refuse a peer we know.
    fn is_merged(&mut self, request: &Request, trust: Trust) -> bool {
        let twin = self.merges.find(self.key.merged(request));
        let twin = twin.and_then(|tx| self.servers.get(tx.0));
        twin.is_some_and(|twin| twin.known || trust == Trust::Stranger)
    }

    /// Creates the transaction of a request; `None` when there are too many.
    pub(super) fn open_server(
        &mut self,
        now: Instant,
        flow: Flow,
        request: &Request,
        known: bool,
    ) -> Option<ServerTx> {
        if self.servers.is_full() {
            return None;
        }
        let timings = self.options.timings;
        let reliable = flow.transport.is_reliable();
        let machine = if request.method() == Method::Invite {
            Machine::Invite(InviteServer::start(timings, reliable, known))
        } else {
            Machine::Other(Server::start(now, timings, reliable))
        };
        let key: Box<[u8]> = self.key.server(request, &flow, Sought::Own).into();
        let merge: Option<Box<[u8]>> =
            request.to().tag().is_none().then(|| self.key.merged(request).into());
        let tag = self.mint();
        let tx = ServerTx(self.servers.insert(ServerTransaction {
            machine,
            request: request.clone(),
            flow,
            key: key.clone(),
            merge: merge.clone(),
            tag,
            known,
            dialog: None,
            within: false,
            expires: None,
            deadline: None,
        })?);
        self.riders.board(&flow, Owner::Server(tx));
        self.server_keys.put(key, tx);
        if let Some(merge) = merge {
            self.merges.put(merge, tx);
        }
        self.strangers += usize::from(!known);
        self.reschedule_server(tx);
        Some(tx)
    }

    fn start_expires(&mut self, now: Instant, tx: ServerTx) {
        let Some(server) = self.servers.get_mut(tx.0) else { return };
        let expires = server.request.header(HeaderName::Expires);
        let seconds =
            expires.and_then(|value| std::str::from_utf8(value).ok()?.trim().parse().ok());
        server.expires = seconds
            .filter(|seconds| *seconds > 0)
            .map(|seconds: u32| now + Duration::from_secs(u64::from(seconds)));
        self.reschedule_server(tx);
    }

    /// RFC 3261 §9.2.
    fn handle_cancel(&mut self, now: Instant, flow: Flow, request: Request, trust: Trust) {
        let key = self.key.server(&request, &flow, Sought::Cancelled);
        let found = self.server_keys.find(key);
        let Some((tx, invite)) = found.and_then(|tx| Some((tx, self.servers.get(tx.0)?))) else {
            return self.refuse(flow, &request, trust, &Refusal::of(481));
        };
        let (known, pending) = (invite.known || trust == Trust::Known, invite.machine.is_pending());
        let tag = invite.tag.clone();
        if known && let Some(cancel) = self.open_server(now, flow, &request, true) {
            // Both responses have the same To tag (RFC 3261 §9.2).
            if let Some(server) = self.servers.get_mut(cancel.0) {
                server.tag = tag;
            }
            self.finish(now, cancel, 200);
        }
        if pending {
            self.withdraw(now, tx, request);
        }
    }

    /// The caller does not want an answer to its INVITE any more.
    fn withdraw(&mut self, now: Instant, tx: ServerTx, request: Request) {
        let Some(server) = self.servers.get(tx.0) else { return };
        if server.known {
            self.finish(now, tx, 487);
        } else {
            self.ignore(now, tx);
        }
        self.events.push_back(Event::Cancelled { tx, request });
    }

    /// What our answer to an INVITE means for its dialog.
    fn invite_answered(&mut self, now: Instant, tx: ServerTx, status: u16, bytes: Bytes) {
        let Some(server) = self.servers.get(tx.0) else { return };
        let (within, cseq) = (server.within, server.request.cseq());
        let Some(dialog) = server.dialog else { return };
        match status {
            100..200 => {}
            200..300 => self.accepted(now, dialog, Success { tx, cseq, bytes }),
            _ if within => self.invite_done(dialog, tx),
            _ => self.forget(dialog),
        }
    }

    /// What our answer to another request means for its dialog: a granted BYE ends it.
    fn request_answered(&mut self, tx: ServerTx, status: u16) {
        let Some(server) = self.servers.get(tx.0) else { return };
        let ends = server.request.method() == Method::Bye && matches!(status, 200..300 | 481);
        if let Some(dialog) = server.dialog.filter(|_| ends) {
            self.forget(dialog);
        }
    }

    /// Repeats a 2xx by way of its transaction; alone, when that has ended.
    pub(super) fn repeat_success(&mut self, now: Instant, tx: ServerTx, bytes: Bytes) {
        let Some(server) = self.servers.get_mut(tx.0) else { return };
        let step = server.machine.answer(now, 200, bytes);
        self.apply_server(tx, step);
    }

    pub(super) fn server_timeout(&mut self, now: Instant, tx: ServerTx) {
        let Some(server) = self.servers.get_mut(tx.0) else { return };
        server.deadline = None;
        if server.expires.is_some_and(|at| at <= now) {
            server.expires = None;
            if server.machine.is_pending() {
                let request = server.request.clone();
                self.withdraw(now, tx, request);
            }
        }
        while let Some(step) =
            self.servers.get_mut(tx.0).and_then(|tx| tx.machine.handle_timeout(now))
        {
            self.apply_server(tx, step);
        }
        self.reschedule_server(tx);
    }

    pub(super) fn server_flow_failed(&mut self, now: Instant, tx: ServerTx) {
        let Some(server) = self.servers.get_mut(tx.0) else { return };
        let step = server.machine.transport_failed(now);
        self.apply_server(tx, step);
        self.reschedule_server(tx);
    }

    /// Sends what a machine wants sent. What it tells its user is known here already: an ACK of a
    /// 2xx goes by the dialog, and an unacknowledged refusal concerns nobody.
    fn apply_server(&mut self, tx: ServerTx, step: Step) {
        let flow = self.servers.get(tx.0).map(|server| server.flow);
        if let (Some(flow), Some(bytes)) = (flow, step.transmit) {
            self.transmit(flow, bytes);
        }
    }

    /// Keeps the queue of deadlines true after a machine has moved, and drops it when it is done.
    pub(super) fn reschedule_server(&mut self, tx: ServerTx) {
        let Some(server) = self.servers.get_mut(tx.0) else { return };
        if server.machine.is_terminated() {
            return self.remove_server(tx);
        }
        let (old, new) = (server.deadline, server.wanted());
        server.deadline = new;
        self.deadlines.shift(Owner::Server(tx), old, new);
    }

    fn remove_server(&mut self, tx: ServerTx) {
        let Some(server) = self.servers.remove(tx.0) else { return };
        self.deadlines.shift(Owner::Server(tx), server.deadline, None);
        self.riders.leave(&server.flow, Owner::Server(tx));
        self.server_keys.remove(&server.key, tx);
        if let Some(merge) = &server.merge {
            self.merges.remove(merge, tx);
        }
        self.strangers = self.strangers.saturating_sub(usize::from(!server.known));
    }
}
