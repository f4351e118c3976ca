//! One call of a capture, played to a gateway.
//!
//! The far side's requests go out in their order. Nothing follows the capture's clock: a request waits
//! for as much of an answer as the far side had seen when it went on, or until patience ends.
//!
//! ```text
//!            ┌───────────────── next step ──────────────────┐
//!            ▼                                              │
//!   step ─► request? ─ can be asked ─► send ─► wait ─► answered as far as captured, or time is up
//!            │   └──── cannot ───────► say why ─────────────┤
//!            ├─► ACK ──► for the gateway's own 2xx ─────────┤   (3xx–6xx are acknowledged at once)
//!            ├─► CANCEL ► while the gateway's INVITE waits ─┤
//!            └─► was asked: told, not played ───────────────┘
//!   end ──► what still rings is cancelled, what is answered is acknowledged and hung up
//! ```

mod ending;
mod ladder;

use std::io;
use std::time::{Duration, Instant};

use bytes::Bytes;
use sip::{HeaderName, Message};

use super::calls::{Call, Exchange, Step};
use super::capture::{self, Sighting};
use super::rewrite::{self, Fresh};
use super::wire::{Line, Media};
use crate::clock;
use crate::random::Random;

pub use ladder::Row;

pub(super) use ladder::Played;

/// A datagram without any answer is sent again after this time (RFC 3261 §17.1.1.1: T1).
const REPEAT: Duration = Duration::from_millis(500);

/// What a dialog is to the one who asks (RFC 3261 §12.1.2).
#[derive(Clone, Debug, Default)]
struct Dialog {
    tag: String,
    target: String,
    routes: Vec<String>,
}

/// A request that went out.
struct Sent {
    /// Its row.
    row: usize,
    method: String,
    cseq: String,
    branch: String,
    uri: Vec<u8>,
    bytes: Vec<u8>,
    at: Instant,
    dialog: Option<Dialog>,
    /// The ACK to its 2xx, to be repeated with every repetition of that.
    ack: Option<Vec<u8>>,
    /// Its dialog is over.
    ended: bool,
}

/// What a call is played with.
pub(super) struct Seat {
    pub(super) line: Line,
    pub(super) media: Media,
    pub(super) patience: Duration,
    /// The number that stands for what was dialled.
    pub(super) stand_in: Option<String>,
    pub(super) random: Random,
}

struct Player<'a> {
    call: &'a Call,
    seat: Seat,
    call_id: String,
    contact: String,
    rows: Vec<Row>,
    sent: Vec<Sent>,
}

/// Plays the call to its end.
pub(super) async fn play(call: &Call, mut seat: Seat) -> Played {
    let id = seat.random.bytes::<6>();
    let call_id = format!("{}.{}", call.call_id, hex(&id));
    let transport = match seat.line.transport {
        sip::Transport::Udp => "",
        _ => ";transport=tcp",
    };
    let contact = format!("sip:replay@{}{transport}", seat.line.local);
    let mut player = Player { call, seat, call_id, contact, rows: Vec::new(), sent: Vec::new() };
    player.rows = call.steps.iter().map(row).collect();
    let broken = player.run().await.err().map(|error| broken(&error));
    Played { rows: player.rows, call_id: player.call_id, broken }
}

fn broken(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => {
            "the gateway closed the connection".to_owned()
        }
        io::ErrorKind::ConnectionRefused => "nobody listens at the gateway's address".to_owned(),
        _ => error.to_string(),
    }
}

fn row(step: &Step) -> Row {
    match step {
        Step::Asked(exchange) => Row {
            method: exchange.request.method.clone(),
            asked: true,
            capture: exchange.answers.clone(),
            ..Row::default()
        },
        Step::Was { method, answers, .. } => {
            Row { method: method.clone(), capture: answers.clone(), ..Row::default() }
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Player<'_> {
    async fn run(&mut self) -> io::Result<()> {
        for (at, step) in self.call.steps.iter().enumerate() {
            let Step::Asked(exchange) = step else { continue };
            match exchange.request.method.as_str() {
                "ACK" => self.acknowledge(at, exchange).await?,
                "CANCEL" => self.cancel(at, exchange).await?,
                _ => self.ask(at, exchange).await?,
            }
        }
        self.finish().await
    }

    fn note(&mut self, row: usize, text: &str) {
        if let Some(row) = self.rows.get_mut(row) {
            row.note.get_or_insert_with(|| text.to_owned());
        }
    }

    fn our_final(&self, sent: &Sent) -> Option<u16> {
        self.rows.get(sent.row).and_then(Row::our_final)
    }

    /// What went out for a row; for a row that another covers, what went out for that one.
    fn sent_for(&self, row: usize) -> Option<&Sent> {
        let row = self.rows.get(row).and_then(|row| row.covered_by).unwrap_or(row);
        self.sent.iter().find(|sent| sent.row == row)
    }

    /// The exchange of this method and CSeq number, with its row.
    fn exchange(&self, method: &str, cseq: &str) -> Option<(usize, &Exchange)> {
        self.call.steps.iter().enumerate().find_map(|(at, step)| match step {
            Step::Asked(one) if one.request.method == method && one.request.cseq == cseq => {
                Some((at, &**one))
            }
            _ => None,
        })
    }

    /// The row whose answers made the dialog that a request names, when the capture holds it.
    fn dialog_row(&self, to_tag: &str) -> Option<usize> {
        self.call.steps.iter().position(|step| {
            matches!(step, Step::Asked(one) if one.request.to_tag().is_none()
                && one.tags.iter().any(|tag| tag == to_tag))
        })
    }

    async fn ask(&mut self, at: usize, exchange: &Exchange) -> io::Result<()> {
        if let Some(first) = self.challenged_before(at, exchange) {
            if let Some(row) = self.rows.get_mut(at) {
                row.covered_by = Some(first);
            }
            self.note(at, "not sent: the gateway had asked for no credentials");
            return Ok(());
        }
        if exchange.request.method == "PRACK" {
            self.note(at, "not sent: the gateway's provisional answers ask for no PRACK");
            return Ok(());
        }
        let dialog = match self.dialog_of(&exchange.request) {
            Ok(dialog) => dialog,
            Err(why) => {
                self.note(at, why);
                return Ok(());
            }
        };
        if exchange.request.method == "INVITE" && exchange.request.to_tag().is_none() {
            self.hang_up_what_was_refused().await?;
        }
        let uri = match &dialog {
            Some(dialog) if !dialog.target.is_empty() => dialog.target.clone().into_bytes(),
            _ => self.new_uri(&exchange.request),
        };
        let (via, branch) = self.via();
        let bytes = self.rewritten(&exchange.request, (&uri, &via), dialog.as_ref());
        let method = exchange.request.method.as_str();
        self.send(at, (method, &exchange.request.cseq), (branch, uri, bytes)).await?;
        if method == "BYE" {
            self.end_dialog(dialog.as_ref());
        }
        if exchange.request.message.header(HeaderName::Via).is_none() {
            // RFC 3261 §18.2.2: an answer goes where Via says.
            self.note(at, "it has no Via, so nobody can answer it");
            return Ok(());
        }
        let wanted = self.wanted(exchange);
        self.wait(at, wanted).await
    }

    /// The row of the same request before its answer to a challenge, when the gateway did not
    /// challenge it: there is nothing to answer.
    fn challenged_before(&self, at: usize, exchange: &Exchange) -> Option<usize> {
        if !exchange.request.has_credentials() {
            return None;
        }
        let steps = self.call.steps.get(..at)?.iter().enumerate().rev();
        let (row, _) = steps.into_iter().find(|(_, step)| {
            matches!(step, Step::Asked(one) if one.request.method == exchange.request.method
                && one.was_challenged() && one.request.to_tag() == exchange.request.to_tag())
        })?;
        let row = self.rows.get(row).and_then(|known| known.covered_by).unwrap_or(row);
        let ours = self.rows.get(row)?;
        (ours.sent && !matches!(ours.our_final(), Some(401 | 407))).then_some(row)
    }

    /// The gateway's dialog for a captured request; `None` for a request outside of dialogs and for
    /// one whose dialog began before the capture.
    fn dialog_of(&self, request: &Sighting) -> Result<Option<Dialog>, &'static str> {
        let Some(tag) = request.to_tag() else { return Ok(None) };
        let Some(row) = self.dialog_row(&tag) else {
            let called =
                |step: &Step| matches!(step, Step::Was { method, .. } if method == "INVITE");
            return match self.call.steps.iter().any(called) {
                true => Err("not sent: its dialog was begun by the other side"),
                false => Ok(None),
            };
        };
        let sent =
            self.sent_for(row).ok_or("not sent: what began the dialog was not sent either")?;
        match (&sent.dialog, self.our_final(sent)) {
            (Some(_), _) if sent.ended => Err("not sent: the dialog is over"),
            (Some(dialog), None | Some(200..300)) => Ok(Some(dialog.clone())),
            _ => Err("not sent: the gateway made no such dialog"),
        }
    }

    fn new_uri(&self, request: &Sighting) -> Vec<u8> {
        let Seat { line, stand_in, .. } = &self.seat;
        let number = stand_in.as_deref().filter(|_| request.method == "INVITE");
        rewrite::request_uri(request.request_uri(), number, line.remote, line.transport)
    }

    fn via(&mut self) -> (String, String) {
        let branch = format!("z9hG4bK{}", hex(&self.seat.random.bytes::<8>()));
        (self.via_with(&branch), branch)
    }

    fn via_with(&self, branch: &str) -> String {
        let transport = if self.seat.line.transport == sip::Transport::Udp { "UDP" } else { "TCP" };
        format!("SIP/2.0/{transport} {};branch={branch};rport", self.seat.line.local)
    }

    fn fresh<'a>(
        &'a self,
        (request_uri, via): (&'a [u8], &'a str),
        dialog: Option<&'a Dialog>,
    ) -> Fresh<'a> {
        Fresh {
            request_uri,
            via,
            call_id: &self.call_id,
            to_tag: dialog.map(|dialog| dialog.tag.as_str()).filter(|tag| !tag.is_empty()),
            contact: &self.contact,
            routes: dialog.map_or(&[], |dialog| &dialog.routes),
            media: self.seat.media.local,
        }
    }

    fn rewritten(
        &self,
        request: &Sighting,
        line: (&[u8], &str),
        dialog: Option<&Dialog>,
    ) -> Vec<u8> {
        rewrite::rewrite(request, &self.fresh(line, dialog))
    }

    async fn send(
        &mut self,
        row: usize,
        (method, cseq): (&str, &str),
        (branch, uri, bytes): (String, Vec<u8>, Vec<u8>),
    ) -> io::Result<()> {
        self.seat.line.send(&bytes).await?;
        if let Some(row) = self.rows.get_mut(row) {
            row.sent = true;
        }
        self.sent.push(Sent {
            row,
            method: method.to_owned(),
            cseq: cseq.to_owned(),
            branch,
            uri,
            bytes,
            at: clock::now(),
            dialog: None,
            ack: None,
            ended: false,
        });
        Ok(())
    }

    /// The least status worth waiting for.
    fn wanted(&self, exchange: &Exchange) -> u16 {
        if exchange.request.method != "INVITE" {
            return 200;
        }
        let cancelled = self.exchange("CANCEL", &exchange.request.cseq).is_some();
        let seen = exchange.answers.get(..exchange.awaited).unwrap_or(&exchange.answers);
        match seen.iter().max() {
            Some(200..) => 200,
            Some(101..) => 101,
            // Nothing may be cancelled before its first answer (RFC 3261 §9.1).
            Some(_) => 100,
            None if cancelled || !exchange.answers.is_empty() => 100,
            None => 200,
        }
    }

    /// Waits until the row has an answer of at least this status, or patience ends.
    async fn wait(&mut self, row: usize, wanted: u16) -> io::Result<()> {
        let end = clock::now() + self.seat.patience;
        loop {
            let ours = self.rows.get(row).map_or(&[][..], |row| &row.ours);
            if ours.iter().any(|status| *status >= wanted) || clock::now() >= end {
                return Ok(());
            }
            let silent = ours.is_empty();
            let until = end.min(clock::now() + REPEAT);
            match self.seat.line.receive(until).await? {
                Some(bytes) => self.arrived(bytes).await?,
                None if silent => self.repeat(row).await?,
                None => {}
            }
        }
    }

    async fn repeat(&mut self, row: usize) -> io::Result<()> {
        if self.seat.line.transport != sip::Transport::Udp {
            return Ok(());
        }
        let Some(sent) = self.sent.iter().find(|sent| sent.row == row) else { return Ok(()) };
        if clock::now().saturating_duration_since(sent.at) < REPEAT {
            return Ok(());
        }
        self.seat.line.send(&sent.bytes).await
    }

    async fn arrived(&mut self, bytes: Bytes) -> io::Result<()> {
        let ends = (self.seat.line.remote, self.seat.line.local);
        let Ok(message) = Sighting::read(0, ends, self.seat.line.transport, bytes) else {
            return Ok(());
        };
        match message.status {
            Some(status) => self.answered(&message, status).await,
            None => self.asked(&message).await,
        }
    }

    /// The gateway asks: it may hang up, and nothing else is wanted of it.
    async fn asked(&mut self, request: &Sighting) -> io::Result<()> {
        let line = match request.method.as_str() {
            "ACK" => return Ok(()),
            "INVITE" => "SIP/2.0 488 Not Acceptable Here",
            _ => "SIP/2.0 200 OK",
        };
        if request.method == "BYE" {
            let from = capture::tag(&request.message, HeaderName::From).unwrap_or_default();
            for sent in &mut self.sent {
                sent.ended |= sent.dialog.as_ref().is_some_and(|dialog| dialog.tag == from);
            }
            self.rows.push(Row {
                method: "BYE".to_owned(),
                ours: vec![200],
                own: true,
                note: Some("the gateway hung up".to_owned()),
                ..Row::default()
            });
        }
        let answer = rewrite::answer(&request.message, line);
        self.seat.line.send(&answer).await
    }

    async fn answered(&mut self, message: &Sighting, status: u16) -> io::Result<()> {
        let branch = message.message.top_via().and_then(|via| via.branch()).unwrap_or_default();
        let mine = |sent: &Sent| sent.branch.as_bytes() == branch;
        // A CANCEL shares its INVITE's branch. What was captured with another method in its CSeq gets
        // that one back.
        let named = |sent: &Sent| mine(sent) && sent.method == message.method;
        let found = self.sent.iter().position(named).or_else(|| self.sent.iter().position(mine));
        let Some(at) = found else { return Ok(()) };
        let Some(sent) = self.sent.get_mut(at) else { return Ok(()) };
        if let Some(row) = self.rows.get_mut(sent.row)
            && !row.ours.contains(&status)
        {
            row.ours.push(status);
            if status >= 300 {
                row.phrase = message.reason_phrase();
            }
        }
        if let Some(tag) = message.to_tag().filter(|_| status > 100 && status < 300) {
            sent.dialog = Some(dialog(&message.message, tag));
        }
        if sent.method != "INVITE" || status < 200 {
            return Ok(());
        }
        if status < 300 {
            self.seat.media.follow(message.message.body(), self.seat.line.remote.ip());
            return match &sent.ack {
                Some(ack) => self.seat.line.send(ack).await,
                None => Ok(()),
            };
        }
        let dialog = Dialog { tag: message.to_tag().unwrap_or_default(), ..Dialog::default() };
        self.acknowledge_refusal(at, &dialog).await
    }

    /// ACK to a 3xx–6xx: part of the INVITE's transaction (RFC 3261 §17.1.1.3).
    async fn acknowledge_refusal(&mut self, at: usize, dialog: &Dialog) -> io::Result<()> {
        let Some(sent) = self.sent.get(at) else { return Ok(()) };
        let Some(Step::Asked(exchange)) = self.call.steps.get(sent.row) else { return Ok(()) };
        let via = self.via_with(&sent.branch);
        let fresh = self.fresh((&sent.uri, &via), Some(dialog));
        let ack = rewrite::compose("ACK", &sent.cseq, &exchange.request, &fresh);
        self.seat.line.send(&ack).await
    }

    async fn acknowledge(&mut self, at: usize, exchange: &Exchange) -> io::Result<()> {
        let cseq = &exchange.request.cseq;
        let Some((row, invite)) = self.exchange("INVITE", cseq) else {
            return self.stray(at, exchange).await;
        };
        let captured = invite.final_answer();
        if self.rows.get(row).is_some_and(|row| row.covered_by.is_some()) {
            self.note(at, "not sent: its INVITE was not sent either");
            return Ok(());
        }
        let Some(sent) = self.sent_for(row) else {
            self.note(at, "not sent: its INVITE was not sent either");
            return Ok(());
        };
        let row = sent.row;
        if captured.is_some() {
            self.wait(row, 200).await?;
        }
        let Some(sent) = self.sent.iter().find(|sent| sent.row == row) else { return Ok(()) };
        match self.our_final(sent) {
            None => self.note(at, "not sent: the gateway gave no final answer"),
            Some(300..) => {
                if let Some(row) = self.rows.get_mut(at) {
                    row.sent = true;
                }
            }
            Some(_) if sent.ack.is_some() => {
                self.note(at, "not sent: the gateway's answer is acknowledged already");
            }
            Some(_) => {
                let own = !matches!(captured, Some(200..300));
                self.acknowledge_success(row, (!own).then_some(&exchange.request)).await?;
                if let Some(row) = self.rows.get_mut(at) {
                    row.sent = true;
                }
            }
        }
        Ok(())
    }

    /// An ACK whose INVITE the capture does not hold: sent as it is, nothing answers it.
    async fn stray(&mut self, at: usize, exchange: &Exchange) -> io::Result<()> {
        let uri = self.new_uri(&exchange.request);
        let (via, _) = self.via();
        let bytes = self.rewritten(&exchange.request, (&uri, &via), None);
        self.note(at, "its INVITE is not in the capture");
        if let Some(row) = self.rows.get_mut(at) {
            row.sent = true;
        }
        self.seat.line.send(&bytes).await
    }

    /// ACK to a 2xx: the captured one, or one of the replay's own (RFC 3261 §13.2.2.4).
    async fn acknowledge_success(
        &mut self,
        row: usize,
        captured: Option<&Sighting>,
    ) -> io::Result<()> {
        let (via, _) = self.via();
        let Some(Step::Asked(invite)) = self.call.steps.get(row) else { return Ok(()) };
        let Some(sent) = self.sent.iter().find(|sent| sent.row == row) else { return Ok(()) };
        let dialog = sent.dialog.clone().unwrap_or_default();
        let line = (dialog.target.as_bytes(), via.as_str());
        let fresh = self.fresh(line, Some(&dialog));
        let ack = match captured {
            Some(captured) => rewrite::rewrite(captured, &fresh),
            None => rewrite::compose("ACK", &sent.cseq, &invite.request, &fresh),
        };
        self.seat.line.send(&ack).await?;
        if let Some(sent) = self.sent.iter_mut().find(|sent| sent.row == row) {
            sent.ack = Some(ack);
        }
        Ok(())
    }

    async fn cancel(&mut self, at: usize, exchange: &Exchange) -> io::Result<()> {
        let Some((invite, _)) = self.exchange("INVITE", &exchange.request.cseq) else {
            // Its INVITE was before the capture: a CANCEL of nothing.
            let uri = self.new_uri(&exchange.request);
            let (via, branch) = self.via();
            let bytes = self.rewritten(&exchange.request, (&uri, &via), None);
            let cseq = &exchange.request.cseq;
            self.send(at, ("CANCEL", cseq), (branch, uri, bytes)).await?;
            return self.wait(at, 200).await;
        };
        let Some(sent) = self.sent_for(invite) else {
            self.note(at, "not sent: its INVITE was not sent either");
            return Ok(());
        };
        if let Some(status) = self.our_final(sent) {
            self.note(at, &format!("not sent: the gateway had answered {status} already"));
            return Ok(());
        }
        let (branch, uri, row) = (sent.branch.clone(), sent.uri.clone(), sent.row);
        let via = self.via_with(&branch);
        let bytes = self.rewritten(&exchange.request, (&uri, &via), None);
        self.send(at, ("CANCEL", &exchange.request.cseq), (branch, uri, bytes)).await?;
        self.wait(at, 200).await?;
        self.wait(row, 200).await
    }
}

/// The dialog that an answer makes.
fn dialog(message: &Message, tag: String) -> Dialog {
    let target = message.contacts().find_map(|contact| match contact {
        sip::Contact::Address(address) => Some(address.uri_bytes),
        sip::Contact::Any => None,
    });
    let target = target.map(|uri| String::from_utf8_lossy(uri).into_owned()).unwrap_or_default();
    let mut routes: Vec<String> = message
        .values(HeaderName::RecordRoute)
        .map(|value| String::from_utf8_lossy(value).into_owned())
        .collect();
    // The far side asks: it has the list in reverse (RFC 3261 §12.1.2).
    routes.reverse();
    Dialog { tag, target, routes }
}
