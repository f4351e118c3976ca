//! An endpoint in virtual time, and what is handy to write messages for it.

use std::time::{Duration, Instant};

use bytes::Bytes;
use sip::endpoint::{ClientTx, DialogId, Endpoint, Event, Invite, Options, Reply, ServerTx, Trust};
use sip::{Flow, Message, Request, Transport};

pub(crate) const OUR_CONTACT: &str = "<sip:192.0.2.1:5060>";
pub(crate) const OFFER: &[u8] = b"v=0\r\n";

/// The flow every scenario starts with: the peer's view of it is [`mirrored`].
pub(crate) fn flow(transport: Transport) -> Flow {
    let connection = u64::from(transport.is_reliable());
    let [local, remote] = ["192.0.2.1:5060", "192.0.2.9:5060"].map(|text| text.parse().unwrap());
    Flow { transport, local, remote, connection }
}

pub(crate) fn mirrored(flow: Flow) -> Flow {
    Flow { local: flow.remote, remote: flow.local, ..flow }
}

/// The instant all scenarios count from.
#[expect(clippy::disallowed_methods, reason = "tests need one instant to count from")]
pub(crate) fn epoch() -> Instant {
    Instant::now()
}

/// One endpoint whose peer is the test.
pub(crate) struct Solo {
    pub(crate) endpoint: Endpoint,
    pub(crate) flow: Flow,
    pub(crate) trust: Trust,
    start: Instant,
    pub(crate) now: Instant,
    /// Everything it sent, with the millisecond it did.
    sent: Vec<(u128, String)>,
    events: Vec<Event>,
}

impl Solo {
    pub(crate) fn new() -> Solo {
        Solo::with(Options::default(), Transport::Udp)
    }

    pub(crate) fn with(options: Options, transport: Transport) -> Solo {
        let start = epoch();
        Solo {
            endpoint: Endpoint::new(options, [7; 32]),
            flow: flow(transport),
            trust: Trust::Known,
            start,
            now: start,
            sent: vec![],
            events: vec![],
        }
    }

    fn ms(&self) -> u128 {
        (self.now - self.start).as_millis()
    }

    pub(crate) fn drain(&mut self) {
        let at = self.ms();
        while let Some(transmit) = self.endpoint.poll_transmit() {
            assert_eq!(transmit.flow.remote, self.flow.remote, "sent to somebody else");
            self.sent.push((at, String::from_utf8(transmit.bytes.to_vec()).unwrap()));
        }
        while let Some(event) = self.endpoint.poll_event() {
            self.events.push(event);
        }
    }

    /// The peer says something.
    pub(crate) fn say(&mut self, text: &str) {
        self.say_from(self.flow, text);
    }

    pub(crate) fn say_from(&mut self, flow: Flow, text: &str) {
        let bytes = Bytes::from(text.to_owned());
        self.endpoint.handle_message(self.now, flow, bytes, self.trust);
        self.drain();
    }

    /// Lets time pass until `ms`, timer by timer.
    pub(crate) fn pass(&mut self, ms: u64) {
        let until = self.start + Duration::from_millis(ms);
        while let Some(at) = self.endpoint.poll_timeout().filter(|at| *at <= until) {
            assert!(at >= self.now, "a deadline in the past");
            self.now = at;
            self.endpoint.handle_timeout(at);
            self.drain();
        }
        self.now = until;
    }

    /// What was sent since the last look.
    pub(crate) fn sent(&mut self) -> Vec<String> {
        self.sent.drain(..).map(|(_, text)| text).collect()
    }

    /// The start lines of what was sent since the last look.
    pub(crate) fn lines(&mut self) -> Vec<String> {
        self.sent().iter().map(|text| first_line(text).to_owned()).collect()
    }

    /// The milliseconds at which something was sent since the last look.
    pub(crate) fn instants(&mut self) -> Vec<u128> {
        self.sent.drain(..).map(|(at, _)| at).collect()
    }

    /// The one message sent since the last look.
    pub(crate) fn one(&mut self) -> String {
        let mut sent = self.sent();
        assert_eq!(sent.len(), 1, "{sent:#?}");
        sent.remove(0)
    }

    pub(crate) fn events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    /// The one event since the last look.
    pub(crate) fn event(&mut self) -> Event {
        let mut events = self.events();
        assert_eq!(events.len(), 1, "{events:#?}");
        events.remove(0)
    }

    /// An INVITE has come: its transaction.
    pub(crate) fn invited(&mut self, text: &str) -> ServerTx {
        self.say(text);
        match self.event() {
            Event::Invite { tx, .. } => tx,
            other => panic!("{other:?}"),
        }
    }

    /// Answers, with the usual Contact.
    pub(crate) fn answer(&mut self, tx: ServerTx, status: u16) -> Option<DialogId> {
        let reply = Reply { contact: Some(OUR_CONTACT), ..Reply::new(status) };
        let dialog = self.endpoint.respond(self.now, tx, reply).unwrap();
        self.drain();
        dialog
    }

    /// An accepted and acknowledged call from the peer: the dialog, and our tag.
    pub(crate) fn called(&mut self) -> (DialogId, String) {
        let tx = self.invited(&invite());
        let dialog = self.answer(tx, 200).unwrap();
        let tag = to_tag(self.sent().last().unwrap());
        self.say(&within("ACK", 1, &tag, "z9hG4bKack1", ""));
        assert!(matches!(self.event(), Event::Acked { .. }));
        (dialog, tag)
    }

    /// Calls the peer: the transaction and the INVITE.
    pub(crate) fn call(&mut self) -> (ClientTx, String) {
        let invite = Invite {
            flow: self.flow,
            request_uri: "sip:bob@example.com",
            from: "<sip:us@example.net>",
            to: "<sip:bob@example.com>",
            contact: OUR_CONTACT,
            headers: &[("Route", "<sip:edge.example.com;lr>")],
            body: Some(("application/sdp", OFFER)),
            call_id: None,
        };
        let tx = self.endpoint.invite(self.now, invite).unwrap();
        self.drain();
        (tx, self.one())
    }

    /// A call to the peer that was accepted and acknowledged: the dialog and the INVITE.
    pub(crate) fn connected(&mut self) -> (DialogId, String) {
        let (_, invite) = self.call();
        self.say(&response(&invite, 200, "callee", CONTACT));
        let Event::Response { dialog: Some(dialog), .. } = self.event() else { panic!() };
        self.endpoint.ack(self.now, dialog, None).unwrap();
        self.drain();
        assert!(self.one().starts_with("ACK "));
        (dialog, invite)
    }
}

pub(crate) const CONTACT: &str = "Contact: <sip:bob@192.0.2.9:5070>\r\n";

pub(crate) fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

/// The value of a header's first line.
pub(crate) fn header(text: &str, name: &str) -> String {
    headers(text, name).into_iter().next().unwrap_or_else(|| panic!("no {name} in {text}"))
}

/// The values of all lines of a header.
pub(crate) fn headers(text: &str, name: &str) -> Vec<String> {
    let head = text.split("\r\n\r\n").next().unwrap_or_default();
    let lines = head.lines().filter_map(|line| line.split_once(": "));
    lines.filter(|(found, _)| *found == name).map(|(_, value)| value.to_owned()).collect()
}

pub(crate) fn to_tag(text: &str) -> String {
    header(text, "To").split_once(";tag=").map(|(_, tag)| tag.to_owned()).unwrap_or_default()
}

pub(crate) fn branch(text: &str) -> String {
    let via = header(text, "Via");
    let (_, rest) = via.split_once(";branch=").unwrap();
    rest.split(';').next().unwrap().to_owned()
}

pub(crate) fn request(text: &str) -> Request {
    let message = Message::parse(Bytes::from(text.to_owned())).unwrap();
    Request::try_from(message).unwrap()
}

/// The peer's INVITE.
pub(crate) fn invite() -> String {
    opening("INVITE", "z9hG4bKinv1", "")
}

/// A request of the peer's outside of a dialog; number 1.
pub(crate) fn opening(method: &str, branch: &str, more: &str) -> String {
    format!(
        "{method} sip:agent@192.0.2.1 SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.9:5060;rport;branch={branch}\r\n\
         Max-Forwards: 70\r\nFrom: <sip:carrier@192.0.2.9>;tag=theirs\r\nTo: <sip:agent@192.0.2.1>\r\n\
         Call-ID: call-1\r\nCSeq: 1 {method}\r\nContact: <sip:carrier@192.0.2.9:5060>\r\n\
         {more}Content-Length: 0\r\n\r\n"
    )
}

/// A request of the peer's in the dialog that its INVITE made.
pub(crate) fn within(method: &str, cseq: u32, tag: &str, branch: &str, more: &str) -> String {
    format!(
        "{method} sip:192.0.2.1:5060 SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.9:5060;rport;branch={branch}\r\n\
         Max-Forwards: 70\r\nFrom: <sip:carrier@192.0.2.9>;tag=theirs\r\n\
         To: <sip:agent@192.0.2.1>;tag={tag}\r\nCall-ID: call-1\r\nCSeq: {cseq} {method}\r\n\
         {more}Content-Length: 0\r\n\r\n"
    )
}

/// A request of the callee's in a dialog that our INVITE made.
pub(crate) fn backwards(method: &str, cseq: u32, invite: &str, callee: &str) -> String {
    let (from, to, call_id) =
        (header(invite, "To"), header(invite, "From"), header(invite, "Call-ID"));
    format!(
        "{method} sip:192.0.2.1:5060 SIP/2.0\r\n\
         Via: SIP/2.0/UDP 192.0.2.9:5060;branch=z9hG4bKback{method}{cseq}\r\n\
         Max-Forwards: 70\r\nFrom: {from};tag={callee}\r\nTo: {to}\r\nCall-ID: {call_id}\r\n\
         CSeq: {cseq} {method}\r\nContent-Length: 0\r\n\r\n"
    )
}

/// The peer's response to a request of ours; `tag` is added to a To without one.
pub(crate) fn response(request: &str, status: u16, tag: &str, more: &str) -> String {
    let mut to = header(request, "To");
    if !to.contains(";tag=") && !tag.is_empty() {
        to = format!("{to};tag={tag}");
    }
    let (via, from) = (header(request, "Via"), header(request, "From"));
    let (call_id, cseq) = (header(request, "Call-ID"), header(request, "CSeq"));
    format!(
        "SIP/2.0 {status} Because\r\nVia: {via}\r\nFrom: {from}\r\nTo: {to}\r\n\
         Call-ID: {call_id}\r\nCSeq: {cseq}\r\n{more}Content-Length: 0\r\n\r\n"
    )
}

/// Status and dialog of a response event.
pub(crate) fn answered(event: &Event) -> (u16, Option<DialogId>) {
    match event {
        Event::Response { response, dialog, .. } => (response.status(), *dialog),
        other => panic!("{other:?}"),
    }
}
