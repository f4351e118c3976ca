//! What the shard is given once, and everything it listens to.

use std::sync::Arc;
use std::time::Duration;

use config::calls::{DialRequest, TransferRequest};
use config::ids::ConversationId;
use config::journal::Journal;
use config::settings::Settings;
use config::snapshot::SnapshotHandle;
use media::ports::PortPool;
use tokio::sync::{mpsc, oneshot};

use super::LiveTable;
use super::leg::Side;
use super::links::Links;
use crate::agent::AgentEvent;
use crate::call::EndReason;
use crate::net::reach::{Reach, Reached};
use crate::net::{Inbound, Outbound};
use crate::observe::health::Health;
use crate::observe::metric::Metrics;
use crate::routing::{RunDone, Runs};

/// What the shard is given once.
pub struct Services {
    /// Settings of the program.
    pub settings: Arc<Settings>,
    /// The immutable routing view, swapped whole.
    pub snapshot: SnapshotHandle,
    /// Where calls write.
    pub journal: Journal,
    /// Counters.
    pub metrics: Metrics,
    /// Media threads.
    pub workers: Arc<media::Workers>,
    /// Media ports, one pool per bound address.
    pub ports: Vec<PortPool>,
    /// Where messages are sent.
    pub outbound: Outbound,
    /// Looks hosts up and opens connections.
    pub reach: Reach,
    /// What agent links need.
    pub links: Links,
    /// Runs the workflows of calls.
    pub runs: Runs,
    /// Phase of the program.
    pub health: Health,
    /// Calls that are up, for the API.
    pub live: Arc<LiveTable>,
    /// Randomness for tags, nonces and media, in bytes.
    pub seed: [u8; 32],
}

/// What others may ask of the shard.
#[derive(Debug)]
pub enum Command {
    /// Take no new calls; answer when the last one is gone or, after `limit`, hung up.
    Drain {
        /// How long live calls may still run.
        limit: Duration,
        /// Told when no call is left.
        done: oneshot::Sender<()>,
    },
    /// Place a call when its turn comes.
    Dial(Box<DialRequest>),
    /// End a call, or withdraw one that has not been answered.
    HangUp {
        /// Its conversation.
        id: ConversationId,
    },
    /// Hand a call to another number.
    Transfer {
        /// Its conversation.
        id: ConversationId,
        /// Where to, and as whom.
        request: TransferRequest,
    },
    /// Hang everything up now.
    HangUpAll {
        /// The reason that the records will name.
        reason: EndReason,
    },
}

/// Everything the shard listens to.
pub struct Inputs {
    /// Messages from sockets.
    pub inbound: mpsc::Receiver<Inbound>,
    /// Events of media workers.
    pub media: mpsc::Receiver<media::Event>,
    /// Events of agent links, by call.
    pub agents: mpsc::Receiver<(u64, AgentEvent)>,
    /// Runs of workflows that are over.
    pub runs: mpsc::Receiver<RunDone>,
    /// Hosts that were looked up and connections that were opened.
    pub reached: mpsc::Receiver<Reached>,
    /// Commands.
    pub commands: mpsc::Receiver<Command>,
}

/// What a time limit is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Alarm {
    /// A workflow that runs, an agent that connects, a call that rings or lasts.
    Call(u64),
    /// A leg that is being dialled.
    Dial(u64),
    /// A REFER whose outcome is awaited.
    Transfer(u64),
    /// An offer of ours that met the peer's and is to be made again.
    Offer(u64, Side),
    /// It is time to look what the snapshot says now that nothing else tells.
    Look,
    /// A registration that is to be refreshed or tried again.
    Registration(u64),
}
