//! What goes into an endpoint and what comes out of it: handles, commands, events.

use std::fmt;

use bytes::Bytes;

use super::in_dialog::Session;
use super::slab::Id;
use super::uac::ClientTransaction;
use super::uas::ServerTransaction;
use crate::flow::Flow;
use crate::message::{Malformed, Request, Response};
use crate::method::Method;

/// Names a server transaction: a request that waits, or has waited, for our answer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ServerTx(pub(super) Id<ServerTransaction>);

/// Names a client transaction: a request of ours.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ClientTx(pub(super) Id<ClientTransaction>);

/// Names a dialog (RFC 3261 §12), early or confirmed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct DialogId(pub(super) Id<Session>);

/// Who a message came from, as far as its source address tells.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trust {
    /// The source belongs to somebody we know: faults are answered as the RFC says.
    Known,
    /// Anybody. The endpoint says nothing of its own; only the application may choose to answer.
    Stranger,
}

/// Bytes to send.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Transmit {
    /// Where to.
    pub flow: Flow,
    /// One whole message.
    pub bytes: Bytes,
}

/// What the application has to hear.
#[derive(Debug)]
pub enum Event {
    /// A new call: an INVITE outside of any dialog (RFC 3261 §13.3).
    Invite {
        /// To answer it.
        tx: ServerTx,
        /// The INVITE.
        request: Request,
        /// Where it came from.
        flow: Flow,
    },
    /// Any other request outside of a dialog.
    Request {
        /// To answer it.
        tx: ServerTx,
        /// The request.
        request: Request,
        /// Where it came from.
        flow: Flow,
    },
    /// A request inside a dialog; its tags, its order and its source have been checked.
    InDialog {
        /// The dialog.
        dialog: DialogId,
        /// To answer it.
        tx: ServerTx,
        /// The request.
        request: Request,
    },
    /// The caller gave up before a final response. CANCEL got its 200 and the INVITE its 487, unless
    /// they came from a stranger nobody has answered yet: then nothing was said and nothing will be.
    Cancelled {
        /// The INVITE's transaction; it is answered, and takes no other response.
        tx: ServerTx,
        /// The CANCEL (for its Reason, RFC 3326), or the INVITE itself when its Expires ran out.
        request: Request,
    },
    /// The ACK for our 2xx came.
    Acked {
        /// The dialog the 2xx belongs to.
        dialog: DialogId,
        /// The ACK's body when it has one: the answer to an offer in our 2xx.
        body: Option<Bytes>,
    },
    /// The ACK for our 2xx stayed away for 64·T1; the session should be ended with BYE
    /// (RFC 3261 §13.3.1.4).
    AckMissing {
        /// The dialog the 2xx belongs to.
        dialog: DialogId,
    },
    /// A response to a request of ours: every provisional one, every final one, once.
    Response {
        /// The request's transaction.
        tx: ClientTx,
        /// The response.
        response: Response,
        /// The dialog the request was sent in, or that the response made.
        dialog: Option<DialogId>,
    },
    /// A request of ours will not be answered.
    Failed {
        /// The request's transaction.
        tx: ClientTx,
        /// Why.
        why: Failure,
        /// The dialog the request was sent in. A BYE whose flow failed leaves it to the application.
        dialog: Option<DialogId>,
    },
    /// Bytes that are no SIP message we can use.
    Malformed {
        /// Where they came from.
        flow: Flow,
        /// What was wrong first.
        why: Malformed,
    },
}

/// A new INVITE that the endpoint refused by itself: nothing is to be done about it, it is there for
/// the application's records.
#[derive(Debug)]
pub struct Refused {
    /// The INVITE; it has no transaction.
    pub request: Request,
    /// Where it came from.
    pub flow: Flow,
    /// What it was answered; a stranger was told nothing.
    pub status: u16,
    /// Whether it was told.
    pub trust: Trust,
}

/// Why a request of ours got no final response.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Failure {
    /// 64·T1 passed in silence: to be treated as a 408 (RFC 3261 §8.1.3.1).
    Timeout,
    /// The flow failed: to be treated as a 503 (RFC 3261 §8.1.3.1).
    Transport,
    /// A cancelled INVITE was accepted all the same; the endpoint has sent ACK and BYE.
    Cancelled,
}

/// Why a command could not be carried out. Nothing was sent and nothing has changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CommandError {
    /// The handle names nothing (any more).
    Gone,
    /// The request has its final response already.
    AlreadyAnswered,
    /// SIP forbids it: a status code outside 100–699, a provisional response or a 408 to anything
    /// but INVITE (RFC 4320 §4), an in-dialog ACK or CANCEL by way of `request`.
    NotAllowed,
    /// An INVITE is open in this dialog; try again when it is answered and acknowledged
    /// (RFC 3261 §14.1).
    Pending,
    /// A 2xx to INVITE needs a Contact and none has been given (RFC 3261 §12.1.1).
    NoContact,
    /// A value holds a CR, LF or NUL, or the message cannot be printed for another reason.
    Unprintable,
    /// As many transactions or dialogs as the options allow exist already.
    Full,
}

impl fmt::Display for CommandError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            CommandError::Gone => "the transaction or dialog is gone",
            CommandError::AlreadyAnswered => "a final response has been given",
            CommandError::NotAllowed => "SIP does not allow this message here",
            CommandError::Pending => "an INVITE is pending in the dialog",
            CommandError::NoContact => "a Contact is needed",
            CommandError::Unprintable => "a value cannot be printed",
            CommandError::Full => "too many transactions or dialogs",
        })
    }
}

impl std::error::Error for CommandError {}

/// Additional header fields by name and value, in the order they are to be printed.
pub type Headers<'a> = &'a [(&'a str, &'a str)];

/// A body with its content type.
pub type Body<'a> = Option<(&'a str, &'a [u8])>;

/// A response, less what the endpoint fills in: Via, From, To with tag, Call-ID, CSeq,
/// Record-Route, Content-Length.
#[derive(Clone, Copy, Debug)]
pub struct Reply<'a> {
    /// The status code, 100 to 699.
    pub status: u16,
    /// The reason phrase; `None` for the usual one.
    pub reason: Option<&'a str>,
    /// The value of Contact, as `<sip:…>`; kept for the dialog's later messages.
    pub contact: Option<&'a str>,
    /// More header fields.
    pub headers: Headers<'a>,
    /// The body.
    pub body: Body<'a>,
}

impl Reply<'_> {
    /// A response with nothing but its status.
    #[must_use]
    pub const fn new(status: u16) -> Reply<'static> {
        Reply { status, reason: None, contact: None, headers: &[], body: None }
    }
}

/// A new call of ours (RFC 3261 §13.2).
#[derive(Clone, Copy, Debug)]
pub struct Invite<'a> {
    /// Where the INVITE is sent.
    pub flow: Flow,
    /// The Request-URI.
    pub request_uri: &'a str,
    /// The value of From, without a tag.
    pub from: &'a str,
    /// The value of To.
    pub to: &'a str,
    /// The value of Contact, as `<sip:…>`.
    pub contact: &'a str,
    /// More header fields. Route, if any, is the pre-loaded route set.
    pub headers: Headers<'a>,
    /// The body: the offer, if the call starts with one.
    pub body: Body<'a>,
    /// The SIP Call-ID; `None` to mint one.
    pub call_id: Option<&'a str>,
}

/// A request of ours outside of any dialog: OPTIONS, REGISTER, MESSAGE and so on.
#[derive(Clone, Copy, Debug)]
pub struct OutOfDialog<'a> {
    /// Where it is sent.
    pub flow: Flow,
    /// The method: none of INVITE, ACK, CANCEL, BYE.
    pub method: Method,
    /// The Request-URI.
    pub request_uri: &'a str,
    /// The value of From, without a tag.
    pub from: &'a str,
    /// The value of To.
    pub to: &'a str,
    /// More header fields (Contact and Expires of a REGISTER among them).
    pub headers: Headers<'a>,
    /// The body.
    pub body: Body<'a>,
    /// The SIP Call-ID and the sequence number, for registrations that continue one
    /// (RFC 3261 §10.2); `None` to mint the one and start the other at 1.
    pub sequence: Option<(&'a str, u32)>,
}

/// What a request inside a dialog carries.
#[derive(Clone, Copy, Default, Debug)]
pub struct Content<'a> {
    /// More header fields.
    pub headers: Headers<'a>,
    /// The body.
    pub body: Body<'a>,
}
