//! What agent links share, and how one is made for a call.

use std::collections::HashMap;
use std::sync::Arc;

use config::ids::{ConversationId, OrganisationId};
use config::model::{Clip, Websocket};
use media::AgentPort;
use media::WorkerId;
use media::port::PortNews;
use tokio::sync::mpsc;

use crate::agent::{
    self, AgentEvent, AgentHandle, AgentStart, AuthToken, Dialer, Kind, LinkSettings, Opening,
    StreamIds, TickFan, TickSeat, Wake, builtin,
};

/// What every agent link of the program shares.
pub struct Links {
    /// Dials agents.
    pub dialer: Dialer,
    /// Time-outs and bounds; a version may set its own connect time-out.
    pub settings: LinkSettings,
    /// Signs handshakes of agents without a token of their own.
    pub token: Option<AuthToken>,
    /// One fan per media worker, in the order of the workers.
    pub fans: Vec<TickFan>,
    /// Where events go.
    pub events: mpsc::Sender<(u64, AgentEvent)>,
    clips: HashMap<builtin::Clip, Arc<[i16]>>,
}

/// What one call tells its agent.
pub(super) struct Introduction {
    pub(super) call: u64,
    pub(super) from_number: String,
    pub(super) to_number: String,
    pub(super) organisation: OrganisationId,
    pub(super) conversation: ConversationId,
    /// What the agent is told besides, by name.
    pub(super) told: Vec<(String, String)>,
    pub(super) entropy: [u8; 16],
}

impl Links {
    /// Links that dial with `dialer`; the clips of built-in agents are made here, once.
    #[must_use]
    pub fn new(
        dialer: Dialer,
        settings: LinkSettings,
        token: Option<AuthToken>,
        (fans, events): (Vec<TickFan>, mpsc::Sender<(u64, AgentEvent)>),
    ) -> Self {
        let clips = builtin::Clip::ALL.into_iter().map(|clip| (clip, clip.samples())).collect();
        Links { dialer, settings, token, fans, events, clips }
    }

    /// The samples of a clip, shared by all calls.
    pub(super) fn clip(&self, clip: Clip) -> Arc<[i16]> {
        let clip = match clip {
            Clip::Greeting => builtin::Clip::Greeting,
            Clip::Tone => builtin::Clip::Tone,
        };
        self.clips.get(&clip).cloned().unwrap_or_else(|| Arc::from([]))
    }

    /// A place at the bell of a worker, for an agent that `news` tells of.
    pub(super) fn seat(
        &self,
        worker: WorkerId,
        (wake, news): (&Arc<Wake>, PortNews),
    ) -> Option<TickSeat> {
        self.fans.get(worker.0).map(|fan| fan.register(Arc::clone(wake), news))
    }

    /// Opens the link of one call.
    pub(super) fn start(
        &self,
        link: &Websocket,
        who: Introduction,
        (port, wake): (AgentPort, Arc<Wake>),
    ) -> AgentHandle {
        let mut settings = self.settings;
        if let Some(ms) = link.connect_timeout_ms {
            settings.connect_timeout_ms = u64::from(ms);
        }
        let own = link.auth_token.as_ref().map(|token| AuthToken::new(token.expose().clone()));
        let start = AgentStart {
            call: who.call,
            url: link.url.clone(),
            dialect: Kind::Twilio,
            token: own.or_else(|| self.token.clone()),
            opening: Opening {
                ids: StreamIds {
                    stream: who.entropy,
                    call: *who.conversation.as_uuid().as_bytes(),
                    account: *who.organisation.as_uuid().as_bytes(),
                },
                from_number: who.from_number,
                to_number: who.to_number,
                conversation_id: who.conversation.to_string(),
                // Of equal names the last is told.
                parameters: link.parameters.clone().into_iter().chain(who.told).collect(),
            },
            settings,
            dialer: self.dialer.clone(),
            port,
            wake,
        };
        agent::start(start, self.events.clone())
    }
}
