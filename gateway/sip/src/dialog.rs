//! Dialogs: the lasting relation of two user agents (RFC 3261 §12).
//!
//! A dialog knows what its requests have in common: Call-ID, both tags, both sequence numbers, the
//! route set and the remote target. It is made from the request and the response that create it, on
//! either side, and never from anything a third message says: only the remote target may change.

use bytes::Bytes;

use crate::header::HeaderName;
use crate::message::{Message, Request, Response, unfold};
use crate::name_addr::NameAddr;

/// One side's view of a dialog.
#[derive(Clone, Debug)]
pub(crate) struct Dialog {
    call_id: Bytes,
    local_tag: Bytes,
    /// Empty for a peer of RFC 2543, which has none (RFC 3261 §12.1.1).
    remote_tag: Bytes,
    /// The value of From in our requests, with our tag.
    local: Bytes,
    /// The value of To in our requests, with the peer's tag.
    remote: Bytes,
    local_cseq: u32,
    /// Empty until the peer's first request.
    remote_cseq: Option<u32>,
    route_set: Vec<Bytes>,
    remote_target: Bytes,
    confirmed: bool,
}

/// The Request-URI and the Route values of a request in a dialog.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Route {
    /// The Request-URI.
    pub(crate) request_uri: Bytes,
    /// The values of Route, in order.
    pub(crate) routes: Vec<Bytes>,
}

/// Whether a request in a dialog comes in order (RFC 3261 §12.2.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Order {
    /// Its number is higher than any before it.
    Next,
    /// Its number has been used or passed: to be answered 500.
    Late,
}

impl Dialog {
    /// The dialog that our response to `request` makes, on the server's side (RFC 3261 §12.1.1).
    pub(crate) fn uas(request: &Request, local_tag: &str) -> Dialog {
        let mut local = header(request, HeaderName::To).to_vec();
        local.extend_from_slice(b";tag=");
        local.extend_from_slice(local_tag.as_bytes());
        let from = request.from();
        let target = request.contact().map_or(from.uri_bytes, |contact| contact.uri_bytes);
        Dialog {
            call_id: share(request, request.call_id()),
            local_tag: Bytes::copy_from_slice(local_tag.as_bytes()),
            remote_tag: share(request, from.tag().unwrap_or_default()),
            local: Bytes::from(local),
            remote: header(request, HeaderName::From),
            local_cseq: 0,
            remote_cseq: Some(request.cseq()),
            route_set: record_routes(request),
            remote_target: share(request, target),
            confirmed: false,
        }
    }

    /// The dialog that `response` to our `request` makes, on the client's side
    /// (RFC 3261 §12.1.2).
    pub(crate) fn uac(request: &Request, response: &Response) -> Dialog {
        let mut route_set = record_routes(response);
        route_set.reverse();
        let mut dialog = Dialog {
            call_id: share(request, request.call_id()),
            local_tag: share(request, request.from().tag().unwrap_or_default()),
            remote_tag: share(response, response.to().tag().unwrap_or_default()),
            local: header(request, HeaderName::From),
            remote: header(response, HeaderName::To),
            local_cseq: request.cseq(),
            remote_cseq: None,
            route_set,
            remote_target: share(request, request.uri_bytes()),
            confirmed: response.is_success(),
        };
        dialog.retarget(response, response.contact());
        dialog
    }

    /// The 2xx has come, or gone: the dialog stays until BYE. On the client's side the route set is
    /// computed again from the 2xx, because the peers of RFC 2543 put none into provisional
    /// responses (RFC 3261 §13.2.2.4).
    pub(crate) fn confirm(&mut self, response: Option<&Response>) {
        if let Some(response) = response {
            if !self.confirmed {
                self.route_set = record_routes(response);
                self.route_set.reverse();
            }
            self.retarget(response, response.contact());
        }
        self.confirmed = true;
    }

    /// A target refresh request or its 2xx names a new remote target (RFC 3261 §12.2).
    pub(crate) fn retarget(&mut self, message: &Message, contact: Option<NameAddr<'_>>) {
        if let Some(contact) = contact {
            self.remote_target = share(message, contact.uri_bytes);
        }
    }

    /// Judges and remembers the number of a request that arrived.
    pub(crate) fn observe(&mut self, cseq: u32) -> Order {
        match self.remote_cseq {
            Some(last) if cseq <= last => Order::Late,
            _ => {
                self.remote_cseq = Some(cseq);
                Order::Next
            }
        }
    }

    /// The number of our next request (RFC 3261 §12.2.1.1).
    pub(crate) fn next_cseq(&mut self) -> u32 {
        self.local_cseq = self.local_cseq.wrapping_add(1);
        self.local_cseq
    }

    /// Where a request goes: loose routing as it is, strict routing rewritten so that the first hop
    /// stands in the Request-URI and the remote target last (RFC 3261 §12.2.1.1).
    pub(crate) fn route(&self) -> Route {
        let target = self.remote_target.clone();
        let Some((first, rest)) = self.route_set.split_first() else {
            return Route { request_uri: target, routes: Vec::new() };
        };
        let Some(address) = NameAddr::parse(first) else {
            return Route { request_uri: target, routes: self.route_set.clone() };
        };
        if address.uri.as_sip().is_none_or(|uri| uri.is_loose_router()) {
            return Route { request_uri: target, routes: self.route_set.clone() };
        }
        let last: Bytes = [&b"<"[..], &target, &b">"[..]].concat().into();
        let routes = rest.iter().cloned().chain([last]).collect();
        Route { request_uri: strict_uri(first, address.uri_bytes), routes }
    }

    /// The Call-ID.
    pub(crate) fn call_id(&self) -> &[u8] {
        &self.call_id
    }

    /// Our tag.
    pub(crate) fn local_tag(&self) -> &[u8] {
        &self.local_tag
    }

    /// The peer's tag.
    pub(crate) fn remote_tag(&self) -> &[u8] {
        &self.remote_tag
    }

    /// The value of From in our requests.
    pub(crate) fn local(&self) -> &[u8] {
        &self.local
    }

    /// The value of To in our requests.
    pub(crate) fn remote(&self) -> &[u8] {
        &self.remote
    }

    /// Whether a 2xx has made it last.
    pub(crate) fn is_confirmed(&self) -> bool {
        self.confirmed
    }
}

/// A part of a message as bytes that share its memory; a copy when it is no part of it.
fn share(message: &Message, part: &[u8]) -> Bytes {
    if part.is_empty() { Bytes::new() } else { message.bytes().slice_ref(part) }
}

/// The unfolded value of a header that is known to be there.
fn header(message: &Message, name: HeaderName) -> Bytes {
    message.header(name).map(|value| unfolded(message, value)).unwrap_or_default()
}

/// A value on one line; copied only when it was folded.
fn unfolded(message: &Message, value: &[u8]) -> Bytes {
    match unfold(value) {
        std::borrow::Cow::Borrowed(value) => share(message, value),
        std::borrow::Cow::Owned(value) => Bytes::from(value),
    }
}

/// The values of Record-Route that can be read, in the order of the message.
fn record_routes(message: &Message) -> Vec<Bytes> {
    let values = message.values(HeaderName::RecordRoute);
    values
        .filter(|value| NameAddr::parse(value).is_some())
        .map(|value| unfolded(message, value))
        .collect()
}

/// A strict router's URI as a Request-URI: without the parameters and headers that may not stand
/// there (RFC 3261 §19.1.1: `method` and everything behind the question mark).
fn strict_uri(first: &Bytes, uri: &[u8]) -> Bytes {
    let end = memchr::memchr(b'?', uri).unwrap_or(uri.len());
    let uri = uri.get(..end).unwrap_or(uri);
    let mut pieces = uri.split(|&byte| byte == b';');
    let is_method =
        |piece: &&[u8]| piece.get(..7).is_some_and(|p| p.eq_ignore_ascii_case(b"method="));
    if !pieces.clone().any(|piece| is_method(&piece)) {
        return first.slice_ref(uri);
    }
    let mut kept = pieces.next().unwrap_or_default().to_vec();
    for piece in pieces.filter(|piece| !is_method(piece)) {
        kept.push(b';');
        kept.extend_from_slice(piece);
    }
    Bytes::from(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn invite(record_routes: &str) -> Request {
        let text = format!(
            "INVITE sip:bob@example.com SIP/2.0\r\nVia: SIP/2.0/UDP a;branch=z9hG4bK1\r\n\
             {record_routes}From: A <sip:a@x>;tag=f\r\nTo: <sip:b@x>\r\nCall-ID: c1\r\n\
             CSeq: 7 INVITE\r\nContact: <sip:a@192.0.2.9>\r\nContent-Length: 0\r\n\r\n"
        );
        Request::try_from(Message::parse(Bytes::from(text)).unwrap()).unwrap()
    }

    fn answer(status: &str, tag: &str, more: &str) -> Response {
        let text = format!(
            "SIP/2.0 {status} X\r\nVia: SIP/2.0/UDP a;branch=z9hG4bK1\r\nFrom: A <sip:a@x>;tag=f\r\n\
             To: <sip:b@x>;tag={tag}\r\nCall-ID: c1\r\nCSeq: 7 INVITE\r\n{more}Content-Length: 0\r\n\r\n"
        );
        Response::try_from(Message::parse(Bytes::from(text)).unwrap()).unwrap()
    }

    fn texts(routes: &[Bytes]) -> Vec<&str> {
        routes.iter().map(|route| std::str::from_utf8(route).unwrap()).collect()
    }

    const ROUTES: &str = "Record-Route: <sip:p2;lr>, <sip:p1;lr>\r\n";

    #[test]
    fn the_server_keeps_the_route_set_in_order_and_the_client_reverses_it() {
        let uas = Dialog::uas(&invite(ROUTES), "t").route();
        assert_eq!(texts(&uas.routes), ["<sip:p2;lr>", "<sip:p1;lr>"]);
        assert_eq!(uas.request_uri, "sip:a@192.0.2.9");
        let contact = format!("{ROUTES}Contact: <sip:b@192.0.2.7>\r\n");
        let uac = Dialog::uac(&invite(""), &answer("200", "t", &contact)).route();
        assert_eq!(texts(&uac.routes), ["<sip:p1;lr>", "<sip:p2;lr>"]);
        assert_eq!(uac.request_uri, "sip:b@192.0.2.7");
    }

    #[test]
    fn a_strict_router_moves_to_the_request_uri_and_the_target_to_the_end() {
        let routes =
            "Record-Route: <sip:p1;transport=udp;method=BYE?x=y>\r\nRecord-Route: <sip:p2;lr>\r\n";
        let route = Dialog::uas(&invite(routes), "t").route();
        assert_eq!(route.request_uri, "sip:p1;transport=udp");
        assert_eq!(texts(&route.routes), ["<sip:p2;lr>", "<sip:a@192.0.2.9>"]);
    }

    #[test]
    fn a_peer_without_contact_and_tag_is_reached_at_its_from() {
        let text = "INVITE sip:b@x SIP/2.0\r\nVia: SIP/2.0/UDP gw\r\nFrom: <sip:1@ift>\r\n\
                    To: sip:b@x;user=phone\r\nCall-ID: c\r\nCSeq: 56 INVITE\r\n\r\n";
        let request = Request::try_from(Message::parse(Bytes::from(text)).unwrap()).unwrap();
        let dialog = Dialog::uas(&request, "t");
        assert_eq!(dialog.route().request_uri, "sip:1@ift");
        assert_eq!(
            (dialog.remote_tag(), dialog.local()),
            (&b""[..], &b"sip:b@x;user=phone;tag=t"[..])
        );
    }

    #[test]
    fn numbers_that_do_not_rise_are_late_and_change_nothing() {
        let mut dialog = Dialog::uas(&invite(""), "t");
        assert_eq!(dialog.observe(7), Order::Late);
        assert_eq!(dialog.observe(9), Order::Next);
        assert_eq!(dialog.observe(8), Order::Late);
        assert_eq!(dialog.observe(10), Order::Next);
        assert_eq!((dialog.next_cseq(), dialog.next_cseq()), (1, 2));
    }

    #[test]
    fn the_2xx_fixes_the_route_set_once_and_a_refresh_moves_only_the_target() {
        let mut dialog = Dialog::uac(&invite(""), &answer("180", "t", ""));
        assert!(!dialog.is_confirmed());
        assert_eq!(dialog.route().request_uri, "sip:bob@example.com");
        let more = format!("{ROUTES}Contact: <sip:b@192.0.2.7>\r\n");
        dialog.confirm(Some(&answer("200", "t", &more)));
        let later = "Record-Route: <sip:p9;lr>\r\nContact: <sip:b@192.0.2.8>\r\n";
        dialog.confirm(Some(&answer("200", "t", later)));
        let route = dialog.route();
        assert_eq!(texts(&route.routes), ["<sip:p1;lr>", "<sip:p2;lr>"]);
        assert_eq!(route.request_uri, "sip:b@192.0.2.8");
    }
}
