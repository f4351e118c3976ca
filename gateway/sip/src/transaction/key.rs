//! What makes two messages belong together: the keys of transactions, merged requests and dialogs.
//!
//! A key is the very fields the RFC compares, each behind its length, so that two keys are equal
//! exactly when all their fields are. Keys are written into a buffer that is used again, so that a
//! look-up allocates nothing.

use std::net::IpAddr;

use crate::flow::Flow;
use crate::message::{Request, Response};
use crate::method::Method;
use crate::uri::Host;

/// A buffer for one key at a time.
#[derive(Default)]
pub(crate) struct KeyBuffer {
    bytes: Vec<u8>,
}

/// Which transaction a server looks for with a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Sought {
    /// The request's own; an ACK's is that of its INVITE.
    Own,
    /// The INVITE a CANCEL wants to withdraw (RFC 3261 §9.2).
    Cancelled,
}

impl KeyBuffer {
    /// The server transaction a request belongs to (RFC 3261 §17.2.3).
    ///
    /// With a branch that has the cookie: branch, sent-by and method. Without: what RFC 2543 peers
    /// keep equal, which is Request-URI, From tag, Call-ID, CSeq number, topmost Via and method; the
    /// To tag is left to the caller, because only ACK has it. The source address is in both: two
    /// peers behind different addresses never share a transaction, however they name it.
    pub(crate) fn server(&mut self, request: &Request, flow: &Flow, sought: Sought) -> &[u8] {
        let via = request.via();
        self.bytes.clear();
        self.source(flow);
        match via.unique_branch() {
            Some(branch) => {
                self.bytes.push(b'u');
                self.field(branch);
                self.host(via.host);
                self.bytes.extend_from_slice(&via.port_or_default().to_be_bytes());
            }
            None => {
                self.bytes.push(b'l');
                self.field(request.uri_bytes());
                self.field(request.from().tag().unwrap_or_default());
                self.field(request.call_id());
                self.bytes.extend_from_slice(&request.cseq().to_be_bytes());
                self.host(via.host);
                self.bytes.extend_from_slice(&via.port_or_default().to_be_bytes());
                self.field(via.params.as_bytes());
            }
        }
        match (sought, request.method()) {
            (Sought::Cancelled, _) | (Sought::Own, Method::Ack) => self.field(b"INVITE"),
            (Sought::Own, _) => self.field(request.method_token()),
        }
        &self.bytes
    }

    /// The client transaction a response belongs to (RFC 3261 §17.1.3); empty without a branch.
    pub(crate) fn client(&mut self, response: &Response) -> &[u8] {
        let branch = response.via().branch().unwrap_or_default();
        self.client_of(branch, response.method_token())
    }

    /// The client transaction of a branch and a method.
    pub(crate) fn client_of(&mut self, branch: &[u8], method: &[u8]) -> &[u8] {
        self.bytes.clear();
        self.field(branch);
        self.field(method);
        &self.bytes
    }

    /// What a request has in common with another way of itself that a proxy forked and that met it
    /// here again (RFC 3261 §8.2.2.2).
    pub(crate) fn merged(&mut self, request: &Request) -> &[u8] {
        self.bytes.clear();
        self.field(request.call_id());
        self.field(request.from().tag().unwrap_or_default());
        self.bytes.extend_from_slice(&request.cseq().to_be_bytes());
        self.field(request.method_token());
        &self.bytes
    }

    /// A dialog, as this side sees it (RFC 3261 §12).
    pub(crate) fn dialog(&mut self, call_id: &[u8], local_tag: &[u8], remote_tag: &[u8]) -> &[u8] {
        self.bytes.clear();
        self.field(call_id);
        self.field(local_tag);
        self.field(remote_tag);
        &self.bytes
    }

    fn field(&mut self, value: &[u8]) {
        let length = u32::try_from(value.len()).unwrap_or(u32::MAX);
        self.bytes.extend_from_slice(&length.to_be_bytes());
        self.bytes.extend_from_slice(value);
    }

    fn host(&mut self, host: Host<'_>) {
        match host {
            Host::Address(address) => self.address(address),
            Host::Name(name) => {
                self.field(name);
                let start = self.bytes.len() - name.len();
                self.bytes.get_mut(start..).unwrap_or_default().make_ascii_lowercase();
            }
        }
    }

    fn address(&mut self, address: IpAddr) {
        match address {
            IpAddr::V4(address) => self.field(&address.octets()),
            IpAddr::V6(address) => self.field(&address.octets()),
        }
    }

    fn source(&mut self, flow: &Flow) {
        self.bytes.extend_from_slice(flow.transport.via_token().as_bytes());
        self.address(flow.remote.ip());
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::flow::Transport;
    use crate::message::Message;

    fn flow(remote: &str) -> Flow {
        let local = "192.0.2.1:5060".parse().unwrap();
        Flow { transport: Transport::Udp, local, remote: remote.parse().unwrap(), connection: 0 }
    }

    fn request(method: &str, via: &str, to_tag: &str) -> Request {
        let text = format!(
            "{method} sip:bob@example.com SIP/2.0\r\nVia: {via}\r\nFrom: <sip:a@x>;tag=f\r\n\
             To: <sip:b@x>{to_tag}\r\nCall-ID: c1\r\nCSeq: 7 {method}\r\nContent-Length: 0\r\n\r\n"
        );
        Request::try_from(Message::parse(Bytes::from(text)).unwrap()).unwrap()
    }

    fn key(method: &str, via: &str, from: &str, sought: Sought) -> Vec<u8> {
        let request = request(method, via, ";tag=t");
        KeyBuffer::default().server(&request, &flow(from), sought).to_vec()
    }

    const VIA: &str = "SIP/2.0/UDP pc.example.com;branch=z9hG4bK1";
    const SOURCE: &str = "192.0.2.9:5060";

    #[test]
    fn an_ack_has_the_key_of_its_invite_and_a_cancel_can_ask_for_it() {
        let invite = key("INVITE", VIA, SOURCE, Sought::Own);
        assert_eq!(key("ACK", VIA, SOURCE, Sought::Own), invite);
        assert_eq!(key("CANCEL", VIA, SOURCE, Sought::Cancelled), invite);
        assert_ne!(key("CANCEL", VIA, SOURCE, Sought::Own), invite);
    }

    #[test]
    fn sent_by_compares_without_case_and_with_the_default_port() {
        let invite = key("INVITE", VIA, SOURCE, Sought::Own);
        let same = "SIP/2.0/UDP PC.Example.COM:5060;rport;branch=z9hG4bK1";
        assert_eq!(key("INVITE", same, "192.0.2.9:1024", Sought::Own), invite);
        for other in [
            "SIP/2.0/UDP pc.example.com:5062;branch=z9hG4bK1",
            "SIP/2.0/UDP pc2.example.com;branch=z9hG4bK1",
            "SIP/2.0/UDP pc.example.com;branch=z9hG4bK2",
        ] {
            assert_ne!(key("INVITE", other, SOURCE, Sought::Own), invite, "{other}");
        }
    }

    #[test]
    fn two_peers_never_share_a_transaction() {
        let invite = key("INVITE", VIA, SOURCE, Sought::Own);
        assert_ne!(key("INVITE", VIA, "192.0.2.10:5060", Sought::Own), invite);
    }

    #[test]
    fn a_peer_of_rfc_2543_is_matched_by_the_fields_it_repeats() {
        for via in ["SIP/2.0/UDP iftgw.example.com", "SIP/2.0/UDP iftgw.example.com;branch=1"] {
            let invite = key("INVITE", via, SOURCE, Sought::Own);
            assert_eq!(key("ACK", via, SOURCE, Sought::Own), invite);
            assert_ne!(key("INVITE", "SIP/2.0/UDP other", SOURCE, Sought::Own), invite);
        }
    }

    #[test]
    fn fields_do_not_run_into_each_other() {
        let mut buffer = KeyBuffer::default();
        let one = buffer.dialog(b"ab", b"c", b"").to_vec();
        assert_ne!(buffer.dialog(b"a", b"bc", b""), one);
        assert_ne!(buffer.dialog(b"ab", b"", b"c"), one);
    }
}
