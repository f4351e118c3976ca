//! The messages the endpoint prints, each from what it stands on.
//!
//! RFC 3261 §8.1.1 (requests), §8.2.6 (responses), §9.1 (CANCEL), §12.2.1.1 (in a dialog),
//! §13.2.2.4 and §17.1.1.3 (the two kinds of ACK).

use std::net::SocketAddr;

use bytes::Bytes;

use super::event::{Body, Headers};
use super::random::Token;
use crate::dialog::{Dialog, Route};
use crate::flow::Flow;
use crate::header::HeaderName;
use crate::message::{Message, Request, Response};
use crate::method::Method;
use crate::print::{Unprintable, Writer};

/// How our own Via names us.
#[derive(Clone, Copy)]
pub(super) struct Origin<'a> {
    /// Where the request goes.
    pub(super) flow: Flow,
    /// The host to show instead of the flow's local address.
    pub(super) host: Option<&'a str>,
    /// The branch, with its cookie.
    pub(super) branch: &'a str,
}

impl Origin<'_> {
    fn via(&self) -> String {
        let transport = self.flow.transport.via_token();
        let branch = self.branch;
        match self.host {
            Some(host) => {
                let port = self.flow.local.port();
                format!("SIP/2.0/{transport} {host}:{port};rport;branch={branch}")
            }
            None => format!("SIP/2.0/{transport} {};rport;branch={branch}", self.flow.local),
        }
    }
}

/// The hops a request of ours may take (RFC 3261 §8.1.1.6).
const MAX_FORWARDS: u32 = 70;

/// What the start of a dialog, or a request outside of one, says of itself.
pub(super) struct Opening<'a> {
    pub(super) method: Method,
    pub(super) request_uri: &'a str,
    pub(super) from: &'a str,
    pub(super) from_tag: &'a str,
    pub(super) to: &'a str,
    pub(super) call_id: &'a str,
    pub(super) cseq: u32,
    pub(super) contact: Option<&'a str>,
}

/// A request outside of any dialog (RFC 3261 §8.1.1).
pub(super) fn opening(
    origin: Origin<'_>,
    opening: &Opening<'_>,
    headers: Headers<'_>,
    body: Body<'_>,
) -> Result<Bytes, Unprintable> {
    let method = opening.method.as_str();
    let mut writer = Writer::request(method, opening.request_uri.as_bytes())?;
    writer.header(HeaderName::Via, origin.via())?;
    if !names(headers, HeaderName::MaxForwards) {
        writer.number(HeaderName::MaxForwards, MAX_FORWARDS);
    }
    writer.header(HeaderName::From, format!("{};tag={}", opening.from, opening.from_tag))?;
    writer.header(HeaderName::To, opening.to)?;
    writer.header(HeaderName::CallId, opening.call_id)?;
    writer.header(HeaderName::CSeq, format!("{} {method}", opening.cseq))?;
    if let Some(contact) = opening.contact {
        writer.header(HeaderName::Contact, contact)?;
    }
    add(&mut writer, headers)?;
    writer.finish(body)
}

/// What a request in a dialog says of itself.
pub(super) struct Within<'a> {
    pub(super) dialog: &'a Dialog,
    pub(super) method: Method,
    pub(super) cseq: u32,
    /// Our Contact, for the requests that refresh the target.
    pub(super) contact: Option<&'a str>,
    /// The INVITE whose credentials an ACK repeats (RFC 3261 §22.1).
    pub(super) credentials: Option<&'a Message>,
}

/// A request in a dialog (RFC 3261 §12.2.1.1), ACK to a 2xx among them (§13.2.2.4).
pub(super) fn within(
    origin: Origin<'_>,
    within: &Within<'_>,
    headers: Headers<'_>,
    body: Body<'_>,
) -> Result<Bytes, Unprintable> {
    let method = within.method.as_str();
    let Route { request_uri, routes } = within.dialog.route();
    let mut writer = Writer::request(method, &request_uri)?;
    writer.header(HeaderName::Via, origin.via())?;
    if !names(headers, HeaderName::MaxForwards) {
        writer.number(HeaderName::MaxForwards, MAX_FORWARDS);
    }
    for route in &routes {
        writer.header(HeaderName::Route, route)?;
    }
    writer.header(HeaderName::From, within.dialog.local())?;
    writer.header(HeaderName::To, within.dialog.remote())?;
    writer.header(HeaderName::CallId, within.dialog.call_id())?;
    writer.header(HeaderName::CSeq, format!("{} {method}", within.cseq))?;
    if let Some(contact) = within.contact {
        writer.header(HeaderName::Contact, contact)?;
    }
    if let Some(invite) = within.credentials {
        writer.echo(invite, HeaderName::Authorization);
        writer.echo(invite, HeaderName::ProxyAuthorization);
    }
    add(&mut writer, headers)?;
    writer.finish(body)
}

/// The CANCEL of an INVITE of ours: its branch, its Request-URI, its number (RFC 3261 §9.1).
pub(super) fn cancel(invite: &Request, headers: Headers<'_>) -> Result<Bytes, Unprintable> {
    let mut writer = hop(invite, Method::Cancel)?;
    writer.echo(invite, HeaderName::To);
    add(&mut writer, headers)?;
    writer.finish(None)
}

/// The ACK of a 3xx–6xx: as the INVITE, but with the To of the response (RFC 3261 §17.1.1.3).
pub(super) fn ack_failure(invite: &Request, response: &Response) -> Result<Bytes, Unprintable> {
    let mut writer = hop(invite, Method::Ack)?;
    let to = response.text(HeaderName::To).unwrap_or_default();
    writer.header(HeaderName::To, to)?;
    writer.finish(None)
}

/// What CANCEL and the ACK of a failure have in common: they follow the INVITE hop by hop.
fn hop(invite: &Request, method: Method) -> Result<Writer, Unprintable> {
    let mut writer = Writer::request(method.as_str(), invite.uri_bytes())?;
    let via = invite.text(HeaderName::Via).unwrap_or_default();
    writer.header(HeaderName::Via, via)?;
    writer.number(HeaderName::MaxForwards, MAX_FORWARDS);
    writer.echo(invite, HeaderName::Route);
    writer.echo(invite, HeaderName::From);
    writer.echo(invite, HeaderName::CallId);
    writer.header(HeaderName::CSeq, format!("{} {}", invite.cseq(), method.as_str()))?;
    Ok(writer)
}

/// A request of ours once more, as a new one: other branch, other number, and headers that replace
/// those of the same name (RFC 3261 §8.1.3.5).
pub(super) fn again(
    origin: Origin<'_>,
    request: &Request,
    cseq: u32,
    headers: Headers<'_>,
) -> Result<Bytes, Unprintable> {
    let method = request.method().as_str();
    let mut writer = Writer::request(method, request.uri_bytes())?;
    writer.header(HeaderName::Via, origin.via())?;
    for (name, raw, value) in request.headers() {
        match name {
            HeaderName::Via | HeaderName::ContentLength => {}
            HeaderName::CSeq => {
                writer.header(HeaderName::CSeq, format!("{cseq} {method}"))?;
            }
            _ => {
                let raw = std::str::from_utf8(raw).map_err(|_| Unprintable::Name)?;
                if !headers.iter().any(|(new, _)| new.eq_ignore_ascii_case(raw)) {
                    writer.extension(raw, value)?;
                }
            }
        }
    }
    add(&mut writer, headers)?;
    finish_with_body_of(writer, request)
}

/// The body as it was; its Content-Type has been copied with the headers.
fn finish_with_body_of(writer: Writer, request: &Request) -> Result<Bytes, Unprintable> {
    let head = writer.finish(None)?;
    if request.body().is_empty() {
        return Ok(head);
    }
    let zero = b"Content-Length: 0\r\n\r\n";
    let head = head.strip_suffix(zero).ok_or(Unprintable::Value)?;
    let length = format!("Content-Length: {}\r\n\r\n", request.body().len());
    Ok(Bytes::from([head, length.as_bytes(), request.body()].concat()))
}

/// What a response of ours says.
pub(super) struct Answer<'a> {
    pub(super) status: u16,
    pub(super) reason: Option<&'a str>,
    pub(super) to_tag: Option<&'a str>,
    pub(super) contact: Option<&'a str>,
}

impl Answer<'_> {
    /// A response with a status and a tag.
    pub(super) const fn new(status: u16, to_tag: Option<&str>) -> Answer<'_> {
        Answer { status, reason: None, to_tag, contact: None }
    }
}

/// A response (RFC 3261 §8.2.6).
pub(super) fn answer(
    request: &Message,
    source: SocketAddr,
    answer: &Answer<'_>,
    headers: Headers<'_>,
    body: Body<'_>,
) -> Result<Bytes, Unprintable> {
    let Answer { status, reason, to_tag, contact } = *answer;
    let mut writer = Writer::reply_to(request, source, status, reason, to_tag)?;
    if let Some(contact) = contact {
        writer.header(HeaderName::Contact, contact)?;
    }
    add(&mut writer, headers)?;
    writer.finish(body)
}

fn add(writer: &mut Writer, headers: Headers<'_>) -> Result<(), Unprintable> {
    for (name, value) in headers {
        writer.extension(name, value)?;
    }
    Ok(())
}

fn names(headers: Headers<'_>, wanted: HeaderName) -> bool {
    headers.iter().any(|(name, _)| HeaderName::parse(name.as_bytes()) == wanted)
}

/// A tag or Call-ID: the node's number, then the token.
pub(super) fn identifier(node: u16, token: &Token) -> String {
    format!("{node:04x}{}", token.as_str())
}

/// A branch: the cookie, the node's number, the token (RFC 3261 §8.1.1.7).
pub(super) fn branch(node: u16, token: &Token) -> String {
    format!("z9hG4bK{node:04x}{}", token.as_str())
}
