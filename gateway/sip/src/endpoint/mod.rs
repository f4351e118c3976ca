//! The endpoint: the pure front door of SIP.
//!
//! ```text
//!   handle_message ──▶ parse ──▶ key ──▶ transaction ──▶ dialog ──▶ poll_event
//!   handle_timeout ──▶ ............▲            │
//!   commands ──────────────────────┘            └──────────────────▶ poll_transmit
//! ```
//!
//! One input, then drain `poll_transmit` and `poll_event` to empty, then the next input; time never
//! goes back. The same seed and the same inputs give byte-equal outputs.
//!
//! What a peer may make the endpoint do by itself depends on [`Trust`]. Towards a peer we know it
//! answers as RFC 3261 says. Towards a stranger it says nothing until the application answers, it
//! never repeats a refusal unasked, and what it remembers of strangers is bounded apart. A stranger
//! that got a 1xx or 2xx from the application is one no longer.
//!
//! Requests in a dialog are taken only from the address the dialog was made with, or from those the
//! application has added to it, whatever their tags say; and ours are sent on the dialog's flow,
//! whatever Contact and Route say. Responses find their request by its branch alone, which nobody
//! but the peer has seen.

mod compose;
mod deadlines;
mod event;
mod in_dialog;
mod options;
mod random;
mod refusals;
mod responses;
mod riders;
mod slab;
mod table;
mod uac;
mod uas;

use std::collections::VecDeque;
use std::time::Instant;

use bytes::Bytes;

pub use event::{
    Body, ClientTx, CommandError, Content, DialogId, Event, Failure, Headers, Invite, OutOfDialog,
    Refused, Reply, ServerTx, Transmit, Trust,
};
pub use options::{Options, Prefix};
pub use uac::MAX_DATAGRAM_REQUEST;

pub use crate::transaction::timer::Timings;

use crate::flow::Flow;
use crate::message::{Message, Rejection, Request, Response};
use crate::transaction::key::KeyBuffer;
use compose::Answer;
use deadlines::Deadlines;
use in_dialog::Session;
use random::Random;
use refusals::TurnedAway;
use riders::Riders;
use slab::Slab;
use table::Table;
use uac::ClientTransaction;
use uas::ServerTransaction;

/// Whose timer it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Owner {
    Server(ServerTx),
    Client(ClientTx),
    Dialog(DialogId),
}

/// All transactions and dialogs of one signalling shard, without sockets, clock or tasks.
pub struct Endpoint {
    options: Options,
    random: Random,
    key: KeyBuffer,
    servers: Slab<ServerTransaction>,
    server_keys: Table<ServerTx>,
    merges: Table<ServerTx>,
    /// How many server transactions belong to strangers.
    strangers: usize,
    /// Ignored requests, oldest first.
    ignored: VecDeque<ServerTx>,
    clients: Slab<ClientTransaction>,
    client_keys: Table<ClientTx>,
    dialogs: Slab<Session>,
    dialog_keys: Table<DialogId>,
    deadlines: Deadlines<Owner>,
    riders: Riders<Owner>,
    transmits: VecDeque<Transmit>,
    events: VecDeque<Event>,
    refused: VecDeque<Refused>,
    /// New calls are refused.
    busy: bool,
    /// Requests of strangers that nobody has told of.
    unheard: u64,
    turned_away: TurnedAway,
}

/// How much an endpoint holds at the moment.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Load {
    /// Server transactions, those that only linger included.
    pub server_transactions: usize,
    /// Server transactions of strangers among them.
    pub strangers: usize,
    /// Client transactions, those that only linger included.
    pub client_transactions: usize,
    /// Dialogs, early ones included.
    pub dialogs: usize,
}

impl Endpoint {
    /// An endpoint with nothing in it. `seed` must be secret and fresh: tags, branches and Call-IDs
    /// are made from it.
    #[must_use]
    pub fn new(options: Options, seed: [u8; 32]) -> Endpoint {
        let random = Random::new(seed);
        let key = random.hash_key();
        Endpoint {
            key: KeyBuffer::default(),
            servers: Slab::new(options.max_transactions),
            server_keys: Table::new(key),
            merges: Table::new(key),
            strangers: 0,
            ignored: VecDeque::new(),
            clients: Slab::new(options.max_transactions),
            client_keys: Table::new(key),
            dialogs: Slab::new(options.max_dialogs),
            dialog_keys: Table::new(key),
            deadlines: Deadlines::new(),
            riders: Riders::new(),
            transmits: VecDeque::new(),
            events: VecDeque::new(),
            refused: VecDeque::new(),
            busy: false,
            unheard: 0,
            turned_away: TurnedAway::new(key),
            random,
            options,
        }
    }

    /// A message has arrived: one datagram, or one frame of a stream.
    pub fn handle_message(&mut self, now: Instant, flow: Flow, bytes: Bytes, trust: Trust) {
        let message = match Message::parse(bytes) {
            Ok(message) => message,
            Err(why) => return self.events.push_back(Event::Malformed { flow, why }),
        };
        if message.is_request() {
            match Request::try_from(message) {
                Ok(request) => self.handle_request(now, flow, request, trust),
                Err(rejection) => self.reject_malformed(flow, &rejection, trust),
            }
        } else {
            match Response::try_from(message) {
                Ok(response) => self.handle_response(now, flow, response),
                Err(why) => self.events.push_back(Event::Malformed { flow, why }),
            }
        }
    }

    /// Time has come: fires every timer that is due at `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(owner) = self.deadlines.pop_due(now) {
            match owner {
                Owner::Server(tx) => self.server_timeout(now, tx),
                Owner::Client(tx) => self.client_timeout(now, tx),
                Owner::Dialog(dialog) => self.dialog_timeout(now, dialog),
            }
        }
    }

    /// The flow cannot carry messages any more: the connection broke, or the peer's host said that
    /// nobody listens. Requests of ours on it fail; INVITEs of the peer stay until they are answered
    /// or time out (RFC 6026 §8.8), because the peer may come back on another connection.
    pub fn handle_flow_failed(&mut self, now: Instant, flow: &Flow) {
        let owners = self.riders.on(flow).unwrap_or_else(|| self.owners_on(flow));
        for owner in &owners {
            if let Owner::Client(tx) = owner {
                self.client_flow_failed(now, *tx);
            }
        }
        for owner in &owners {
            if let Owner::Server(tx) = owner {
                self.server_flow_failed(now, *tx);
            }
        }
    }

    /// The transactions on a flow of datagrams. All are looked at: such a flow hardly ever fails.
    fn owners_on(&self, flow: &Flow) -> Vec<Owner> {
        let client = |id: &ClientTx| self.clients.get(id.0).is_some_and(|tx| tx.flow == *flow);
        let server = |id: &ServerTx| self.servers.get(id.0).is_some_and(|tx| tx.flow == *flow);
        let clients = self.clients.ids().map(ClientTx).filter(client).map(Owner::Client);
        let servers = self.servers.ids().map(ServerTx).filter(server).map(Owner::Server);
        clients.chain(servers).collect()
    }

    /// From now on calls that begin are refused with 503 and Retry-After, without a transaction and before
    /// they cost anything else, and what strangers ask outside of a dialog is not looked at; what is under
    /// way goes on (RFC 7339 §4: the least work is the INVITE that is refused). Or that is over; repeats
    /// of what was refused are refused again.
    pub fn set_busy(&mut self, busy: bool) {
        self.busy = busy;
    }

    /// How many requests of strangers were not looked at since the last call, for want of room or because
    /// we were busy.
    pub fn take_unheard(&mut self) -> u64 {
        std::mem::take(&mut self.unheard)
    }

    /// Whether calls that begin are refused.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.busy
    }

    /// The next message to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front()
    }

    /// The next thing to tell the application.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// The next call that was refused without asking; the application may leave them unread.
    pub fn poll_refused(&mut self) -> Option<Refused> {
        self.refused.pop_front()
    }

    /// When `handle_timeout` wants to be called next.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.deadlines.earliest()
    }

    /// How much the endpoint holds.
    #[must_use]
    pub fn load(&self) -> Load {
        Load {
            server_transactions: self.servers.len(),
            strangers: self.strangers,
            client_transactions: self.clients.len(),
            dialogs: self.dialogs.len(),
        }
    }

    fn transmit(&mut self, flow: Flow, bytes: Bytes) {
        self.transmits.push_back(Transmit { flow, bytes });
    }

    /// A message that looks like a request and is none we can read.
    fn reject_malformed(&mut self, flow: Flow, rejection: &Rejection, trust: Trust) {
        if trust == Trust::Known && rejection.is_answerable() {
            let tag = self.stateless_tag(rejection.message.bytes());
            let reason = Some(rejection.reason);
            let answer = Answer { reason, ..Answer::new(rejection.status, Some(&tag)) };
            let printed = compose::answer(&rejection.message, flow.remote, &answer, &[], None);
            if let Ok(bytes) = printed {
                self.transmit(flow, bytes);
            }
        }
        self.events.push_back(Event::Malformed { flow, why: rejection.why });
    }

    fn stateless_tag(&self, text: &[u8]) -> String {
        compose::identifier(self.options.node, &self.random.token_for(text))
    }

    fn mint(&mut self) -> String {
        compose::identifier(self.options.node, &self.random.token())
    }

    fn mint_branch(&mut self) -> String {
        compose::branch(self.options.node, &self.random.token())
    }
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Endpoint").field("load", &self.load()).finish_non_exhaustive()
    }
}
