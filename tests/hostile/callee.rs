//! Whoever the gateway calls: the far end of a carrier, a SIP agent, a number that a caller is handed
//! to. It does what the test says, when the test says it, and no more.

use std::cell::RefCell;
use std::collections::HashSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use serde_json::{Value, json};

use crate::common::{
    Call, Dialog, Gateway, PATIENCE, Phone, body, eventually, fresh, header, now, offer, parameter,
    status,
};

/// A number that calls out.
pub(crate) const OWN: &str = "+15550100900";
/// A number that is called.
pub(crate) const THEIRS: &str = "+15550200100";
/// A time in which whatever is not coming would have come.
pub(crate) const QUIET: Duration = Duration::from_millis(300);
/// The credentials of every trunk made here.
pub(crate) const LOGIN: (&str, &str) = ("trunkline-user", "trunkline-secret");

/// A scripted callee on one socket.
pub(crate) struct Callee {
    pub(crate) phone: Phone,
    seen: RefCell<HashSet<String>>,
}

impl Callee {
    pub(crate) fn new(ip: Ipv4Addr, gateway: SocketAddr) -> Callee {
        Callee { phone: Phone::new(ip, gateway), seen: RefCell::default() }
    }

    /// Where it is, as a trunk or a URI names it.
    pub(crate) fn address(&self) -> String {
        self.phone.address.to_string()
    }

    /// The next message that is no repetition of one before.
    pub(crate) fn next(&self, patience: Duration) -> Option<String> {
        let until = now() + patience;
        while let Some(left) = until.checked_duration_since(now()) {
            let text = self.phone.receive(left.max(Duration::from_millis(1)))?;
            let id = format!("{} {}", kind(&text), parameter(&text, "branch="));
            if self.seen.borrow_mut().insert(id) {
                return Some(text);
            }
        }
        None
    }

    /// The next message of a kind; others that come before are passed over.
    #[track_caller]
    pub(crate) fn expect(&self, wanted: &str) -> String {
        let (until, mut others) = (now() + PATIENCE, Vec::new());
        while now() < until {
            let Some(text) = self.next(Duration::from_millis(500)) else { continue };
            if kind(&text) == wanted {
                return text;
            }
            others.push(text);
        }
        panic!("{wanted} did not come, but: {others:#?}");
    }

    /// Sends a response to a request.
    pub(crate) fn answer(&self, request: &str, line: &str, headers: &str, sdp: &str) {
        self.answer_as(request, line, "callee", (headers, sdp));
    }

    /// Sends a response with a To tag of its own.
    pub(crate) fn answer_as(&self, request: &str, line: &str, tag: &str, more: (&str, &str)) {
        self.phone.send(response(self.phone.address, request, line, tag, more).as_bytes());
    }

    /// 200 with an SDP answer that leads to a port where nobody minds what comes.
    pub(crate) fn accept(&self, invite: &str) {
        self.accept_with(invite, &self.sdp());
    }

    pub(crate) fn accept_with(&self, invite: &str, sdp: &str) {
        self.answer(invite, "200 OK", SDP, sdp);
    }

    /// A description of plain audio at this callee's address.
    pub(crate) fn sdp(&self) -> String {
        let SocketAddr::V4(address) = self.phone.address else { panic!("IPv4 here") };
        offer(*address.ip(), 9, "RTP/AVP 0", "")
    }

    /// The call that an INVITE began, from this side: requests of ours go to the gateway in it.
    pub(crate) fn call(&self, invite: &str, tag: &str) -> Call<'_> {
        let dialog = Dialog {
            target: header(invite, "Contact").trim_matches(['<', '>']).to_owned(),
            from: format!("{};tag={tag}", header(invite, "To")),
            to: header(invite, "From").to_owned(),
            call_id: header(invite, "Call-ID").to_owned(),
            cseq: fresh(),
        };
        Call { phone: &self.phone, dialog, answer: invite.to_owned() }
    }

    /// Takes the next call: 180, 200, ACK.
    #[track_caller]
    pub(crate) fn take(&self) -> Call<'_> {
        let invite = self.expect("INVITE");
        self.answer(&invite, "180 Ringing", "", "");
        self.accept(&invite);
        self.expect("ACK");
        self.call(&invite, "callee")
    }

    /// Answers the next BYE.
    #[track_caller]
    pub(crate) fn take_bye(&self) -> String {
        let bye = self.expect("BYE");
        self.answer(&bye, "200 OK", "", "");
        bye
    }

    /// What has come or comes within [`QUIET`], of all kinds.
    pub(crate) fn rest(&self) -> Vec<String> {
        std::iter::from_fn(|| self.next(QUIET)).collect()
    }
}

/// The header that goes with a description.
pub(crate) const SDP: &str = "Content-Type: application/sdp\r\n";

/// What a message is: `INVITE`, `200 INVITE`.
pub(crate) fn kind(text: &str) -> String {
    let first = text.split([' ', '\r']).next().unwrap_or_default();
    if first != "SIP/2.0" {
        return first.to_owned();
    }
    let method = header(text, "CSeq").split(' ').nth(1).unwrap_or_default();
    format!("{} {method}", status(text))
}

/// All lines of a header, as they stand.
pub(crate) fn lines(text: &str, name: &str) -> String {
    let head = text.split("\r\n\r\n").next().unwrap_or_default();
    let named = head.lines().filter(|line| {
        line.split_once(':').is_some_and(|(found, _)| found.eq_ignore_ascii_case(name))
    });
    named.fold(String::new(), |all, line| all + line + "\r\n")
}

/// A response to `request`, as RFC 3261 §8.2.6 has it.
pub(crate) fn response(
    address: SocketAddr,
    request: &str,
    line: &str,
    tag: &str,
    (headers, sdp): (&str, &str),
) -> String {
    let to = header(request, "To");
    let tag = if to.contains(";tag=") || line.starts_with("100") {
        String::new()
    } else {
        format!(";tag={tag}")
    };
    let transport = if is_on_a_stream(request) { ";transport=tcp" } else { "" };
    format!(
        "SIP/2.0 {line}\r\n{via}{routes}From: {from}\r\nTo: {to}{tag}\r\nCall-ID: {call_id}\r\n\
         CSeq: {cseq}\r\nContact: <sip:callee@{address}{transport}>\r\n{headers}\
         Content-Length: {length}\r\n\r\n{sdp}",
        via = lines(request, "Via"),
        routes = lines(request, "Record-Route"),
        from = header(request, "From"),
        call_id = header(request, "Call-ID"),
        cseq = header(request, "CSeq"),
        length = sdp.len(),
    )
}

fn is_on_a_stream(request: &str) -> bool {
    header(request, "Via").starts_with("SIP/2.0/TCP")
}

/// What a test asks of the gateway's API about calls.
impl Gateway {
    /// A trunk that calls out to `address`, and takes calls from there; more keys of its
    /// `outbound_config` replace those here.
    pub(crate) fn way_out(&self, address: &str, more: &Value) -> String {
        self.way_out_with(address, more, json!({"allowed_addresses": ["127.0.0.0/8"]}))
    }

    pub(crate) fn way_out_with(&self, address: &str, more: &Value, inbound: Value) -> String {
        let mut outbound = json!({"address": address, "auth_username": LOGIN.0,
            "auth_password": LOGIN.1});
        for (key, value) in more.as_object().into_iter().flatten() {
            outbound[key] = value.clone();
        }
        let body = json!({"name": address, "inbound_config": inbound, "outbound_config": outbound});
        let reply = self.call("POST", "/core/trunks", Some(&body));
        assert_eq!(reply.status, 200, "{}", reply.text());
        reply.json()["id"].as_str().unwrap().to_owned()
    }

    /// A number whose agent of this runtime calls out over a new trunk.
    pub(crate) fn caller(&self, number: &str, address: &str, more: &Value) -> String {
        let trunk = self.way_out(address, more);
        self.number(number, &trunk);
        self.agent(support::gateway::echo(), &[number])
    }

    /// Asks for a call: its conversation's id.
    #[track_caller]
    pub(crate) fn place(&self, number: &str, agent: &str) -> String {
        let body = json!({"channel": "telephone", "user_id": THEIRS, "agent_number": number,
            "agent_id": agent});
        let reply = self.call("POST", "/core/conversations", Some(&body));
        assert_eq!(reply.status, 202, "{}", reply.text());
        reply.json()["conversation"]["id"].as_str().unwrap().to_owned()
    }

    pub(crate) fn conversation(&self, id: &str) -> Value {
        self.call("GET", &format!("/core/conversations/{id}"), None).json()
    }

    /// The conversation once it is over.
    #[track_caller]
    pub(crate) fn ended(&self, id: &str) -> Value {
        let (until, mut seen) = (now() + PATIENCE + PATIENCE, Value::Null);
        while now() < until {
            seen = self.conversation(id);
            if !seen["end_reason"].is_null() {
                return seen;
            }
            std::thread::park_timeout(Duration::from_millis(20));
        }
        panic!("it does not end: {seen:#}");
    }

    /// Waits for a status.
    #[track_caller]
    pub(crate) fn await_status(&self, id: &str, status: &str) {
        eventually(&format!("the call is {status}"), PATIENCE, || {
            self.conversation(id)["status"] == status
        });
    }

    pub(crate) fn hang_up(&self, id: &str) {
        let status = self.try_hang_up(id);
        assert!((200..300).contains(&status), "{status}");
    }

    /// Asks for the end of a call that may have just ended by itself: the status of the reply.
    pub(crate) fn try_hang_up(&self, id: &str) -> u16 {
        self.call("POST", &format!("/core/conversations/{id}/hangup"), Some(&json!({}))).status
    }

    /// Asks for a cold transfer: the status of the reply.
    pub(crate) fn hand_on(&self, id: &str, number: &str) -> u16 {
        let body = json!({"transfer_number": number});
        self.call("POST", &format!("/core/conversations/{id}/transfer"), Some(&body)).status
    }

    /// A number whose agent is the SIP endpoint at `address`, on a trunk for everybody on this
    /// machine.
    pub(crate) fn desk(&self, number: &str, address: &str, more: &Value) -> String {
        let inbound = json!({"allowed_addresses": ["127.0.0.0/8"], "media_encryption": "ALLOW"});
        let trunk = self.trunk(number, inbound);
        self.number(number, &trunk);
        let mut runtime = json!({"type": "sip", "uri": format!("sip:desk@{address}")});
        for (key, value) in more.as_object().into_iter().flatten() {
            runtime[key] = value.clone();
        }
        self.agent(runtime, &[number])
    }

    /// The only conversation there is.
    pub(crate) fn only_conversation(&self) -> String {
        let mut id = String::new();
        eventually("a conversation is there", PATIENCE, || {
            let all = self.conversations();
            id = all.first().and_then(|one| one["id"].as_str()).unwrap_or_default().to_owned();
            all.len() == 1 && !id.is_empty()
        });
        id
    }
}

/// Asserts how a conversation ended: status, word, party.
#[track_caller]
pub(crate) fn assert_ended(record: &Value, status: &str, code: &str, party: &str) {
    let end = &record["end_reason"];
    let told = (&record["status"], &end["code"], &end["party"]);
    assert_eq!(told, (&json!(status), &json!(code), &json!(party)), "{record:#}");
}

/// A caller's INVITE under way: everything a race needs of it.
pub(crate) struct Ringing<'a> {
    pub(crate) phone: &'a Phone,
    pub(crate) dialog: Dialog,
    pub(crate) branch: String,
    pub(crate) invite: String,
}

impl<'a> Ringing<'a> {
    /// Sends an INVITE and does not wait.
    pub(crate) fn begin(phone: &'a Phone, number: &str, headers: &str) -> Ringing<'a> {
        let dialog = Dialog::new(phone, &format!("sip:{number}@{}", phone.gateway));
        let branch = format!("z9hG4bK{}", fresh());
        let SocketAddr::V4(address) = phone.address else { panic!("IPv4 here") };
        let sdp = offer(*address.ip(), 9, "RTP/AVP 0", "");
        let headers = format!("{headers}{SDP}");
        let invite = dialog.request_with(phone, "INVITE", (&headers, &sdp), &branch);
        phone.send(invite.as_bytes());
        Ringing { phone, dialog, branch, invite }
    }

    /// The next response of the INVITE with this status.
    #[track_caller]
    pub(crate) fn response(&mut self, wanted: u16) -> String {
        let until = now() + PATIENCE;
        while now() < until {
            let Some(text) = self.phone.receive(Duration::from_millis(500)) else { continue };
            if kind(&text) == format!("{wanted} INVITE") && text.contains(&self.branch) {
                if header(&text, "To").contains(";tag=") {
                    header(&text, "To").clone_into(&mut self.dialog.to);
                }
                return text;
            }
        }
        panic!("no {wanted}");
    }

    pub(crate) fn cancel(&self) {
        let Ringing { phone, dialog, branch, .. } = self;
        let mut dialog = dialog.clone();
        // CANCEL has the To of the INVITE (RFC 3261 §9.1).
        header(&self.invite, "To").clone_into(&mut dialog.to);
        phone.send(dialog.request_with(phone, "CANCEL", ("", ""), branch).as_bytes());
    }

    /// The ACK of a refusal.
    pub(crate) fn acknowledge_refusal(&self) {
        let Ringing { phone, dialog, branch, .. } = self;
        phone.send(dialog.request_with(phone, "ACK", ("", ""), branch).as_bytes());
    }

    /// The answered call; with its ACK when `acknowledged`.
    pub(crate) fn answered(mut self, answer: &str, acknowledged: bool) -> Call<'a> {
        header(answer, "Contact").trim_matches(['<', '>']).clone_into(&mut self.dialog.target);
        if acknowledged {
            self.phone.send(self.dialog.request(self.phone, "ACK", "", "").as_bytes());
        }
        Call { phone: self.phone, dialog: self.dialog, answer: answer.to_owned() }
    }
}

/// The description inside a message of the gateway's.
pub(crate) fn described(text: &str) -> SocketAddr {
    crate::common::media_address(body(text))
}
