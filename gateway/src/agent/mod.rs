//! Agent links: how a call's audio reaches the program that talks with the caller, and comes back.
//!
//! ```text
//!  media worker                          this module                            the agent
//!  ────────────                 ──────────────────────────────                 ─────────
//!   caller's frames ─► AgentPort ─► uplink ─► dialect ═══════════► link ═══► reads
//!   ring (≤ 5 frames) ◄─ AgentPort ◄─ playout ◄─ dialect ◄═════════ link ◄═══ writes
//!                                       └─ marks ─► uplink
//!   eventfd, every 20 ms ─► tick ─► wakes the pump
//! ```
//!
//! [`start`] opens one link for one call and lets a task, the *pump*, run it to its end. The caller of
//! [`start`] hears of it through [`AgentEvent`]s and speaks to it through the [`AgentHandle`].
//!
//! What agents may rely on:
//!
//! * Audio in chunks of any size is played in the order sent, each frame right after the one before.
//! * A mark comes back when the last frame before it has gone to the wire; at once when nothing is queued.
//! * A clear silences the caller's ear within 20 ms and returns all waiting marks.
//! * What is sent before the call is answered is kept and heard from its first frame on.
//! * The caller's audio is never older than 200 ms when it is sent; what would be is left out, and the time
//!   stamps show it.
//!
//! What nobody has to rely on an agent for: every queue here is bounded, and a stalled, silent, flooding or
//! babbling agent costs its own call and no other.
//!
//! The built-in agents need no link: see [`builtin`] and `media`'s echo.

pub mod builtin;
pub mod dialect;
pub mod link;
pub mod playout;
mod port;
mod pulse;
mod pump;
pub mod signature;
pub mod tick;
mod uplink;
mod wake;

use std::sync::{Arc, Mutex, PoisonError};

use media::port::AgentPort;
use tokio::sync::mpsc;

pub use self::dialect::{Kind, Opening, StreamIds, Warning};
pub use self::link::{Dialer, LinkError, LinkSettings};
pub use self::signature::AuthToken;
pub use self::tick::{TickFan, TickSeat};
pub use self::wake::Wake;

use self::dialect::Dialect;
use self::pump::{Pump, Wiring};

/// All it takes to run one call's link.
pub struct AgentStart {
    /// The call, as every event names it.
    pub call: u64,
    /// Where the agent listens: `wss://…`, or `ws://…` where that is allowed.
    pub url: String,
    /// What it speaks.
    pub dialect: Kind,
    /// What the agent knows the gateway by, if its owner has set one.
    pub token: Option<AuthToken>,
    /// What it is told at the start.
    pub opening: Opening,
    /// How the link is opened, kept and given up.
    pub settings: LinkSettings,
    /// Who is trusted.
    pub dialer: Dialer,
    /// The call's audio. Comes back through [`AgentHandle::reclaim`].
    pub port: AgentPort,
    /// Rung when the worker that runs the call has given something to the port: see [`TickFan::register`].
    pub wake: Arc<Wake>,
}

/// What happens on a link. [`AgentEvent::Failed`] or [`AgentEvent::Ended`] is the last event, exactly once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AgentEvent {
    /// The link is open and the agent has been told about the call.
    Ready,
    /// There is no link and there will be none.
    Failed(LinkError),
    /// The agent has begun to speak.
    FirstAudio,
    /// The agent wants the call to end.
    Hangup,
    /// The agent did something wrong for the first time; the stream goes on.
    Warning(Warning),
    /// The link that was [`AgentEvent::Ready`] is over.
    Ended(End, LinkReport),
}

/// How a link ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// By [`AgentHandle::stop`], or because the call's media is gone.
    Stopped,
    /// By the agent, with a close frame. What it had said before was played out first.
    Closed {
        /// The close code (RFC 6455 §7.4), 1005 when there was none.
        code: u16,
    },
    /// By a fault. The caller hears nothing any more.
    Lost(LinkError),
}

/// What went over a link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkReport {
    /// 20 ms frames of the caller that were sent to the agent.
    pub frames_sent: u64,
    /// Frames of the caller that were left out because the agent, or we, came too late.
    pub frames_dropped: u64,
    /// Milliseconds of the agent's audio that went to the caller since the port was made.
    pub played_ms: u64,
    /// Milliseconds of the agent's audio that found the play-out queue full.
    pub refused_ms: u64,
    /// Messages of the agent that were understood.
    pub messages: u64,
    /// How often each kind of [`Warning`] was due, in the order of [`Warning::ALL`].
    pub warnings: [u64; Warning::ALL.len()],
}

/// The other end of a running link. Dropping it is [`AgentHandle::stop`].
pub struct AgentHandle {
    /// `None` only while it is dropped: then there will be no more orders.
    orders: Option<mpsc::Sender<Order>>,
    wake: Arc<Wake>,
    port: Arc<Mutex<Option<AgentPort>>>,
}

/// A full queue of keys to press: the agent's own pace is exceeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Busy;

impl AgentHandle {
    /// Says goodbye to the agent. [`AgentEvent::Ended`] follows within `close_timeout_ms`.
    pub fn stop(self) {}

    /// Presses a key towards the caller, behind the audio that has left the play-out queue.
    ///
    /// # Errors
    /// [`Busy`] when many keys wait already, or the link is over.
    pub fn press(&self, digit: char, duration_ms: u32) -> Result<(), Busy> {
        self.order(Order::Press { digit, duration_ms })
    }

    /// Tells the agent of a key the caller pressed that did not come with the audio (SIP INFO). Lost when many
    /// wait already, or the link is over.
    pub fn digit(&self, digit: char, duration_ms: u32) {
        let _ = self.order(Order::Pressed { digit, duration_ms });
    }

    fn order(&self, order: Order) -> Result<(), Busy> {
        let orders = self.orders.as_ref().ok_or(Busy)?;
        orders.try_send(order).map_err(|_| Busy)?;
        self.wake.order();
        Ok(())
    }

    /// The call's audio, once the last event has come: for another agent to go on with. `None` before that,
    /// and the second time.
    pub fn reclaim(&self) -> Option<AgentPort> {
        self.port.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Drop for AgentHandle {
    fn drop(&mut self) {
        self.orders = None;
        self.wake.order();
    }
}

/// What a handle asks of its pump. A closed channel is the order to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    /// A key towards the caller.
    Press { digit: char, duration_ms: u32 },
    /// A key of the caller, towards the agent.
    Pressed { digit: char, duration_ms: u32 },
}

/// Opens a link and runs it until it ends. Events go to `events`, with the call's number, as whatever the
/// receiver makes of an [`AgentEvent`]; must be called within a tokio runtime.
pub fn start<E>(start: AgentStart, events: mpsc::Sender<(u64, E)>) -> AgentHandle
where
    E: From<AgentEvent> + Send + 'static,
{
    let (orders, order_queue) = mpsc::channel(MAX_ORDERS);
    let port = Arc::new(Mutex::new(None));
    let wake = Arc::clone(&start.wake);
    let handle = AgentHandle { orders: Some(orders), wake, port: Arc::clone(&port) };
    tokio::spawn(async move {
        let call = start.call;
        // A task of its own, so that a fault in it is an end that is told and not silence.
        let ran = tokio::spawn(run(start, order_queue, events.clone())).await;
        let event = match ran {
            Ok((event, used)) => {
                *port.lock().unwrap_or_else(PoisonError::into_inner) = Some(used);
                event
            }
            Err(_) => {
                let lost = End::Lost(LinkError::Closed { code: link::CLOSED_ABNORMALLY });
                AgentEvent::Ended(lost, LinkReport::default())
            }
        };
        // Nobody listens any more: then nobody needs to know.
        let _ = events.send((call, event.into())).await;
    });
    handle
}

/// From the first packet to the last. Returns the last event and the port.
async fn run<E: From<AgentEvent>>(
    start: AgentStart,
    mut orders: mpsc::Receiver<Order>,
    events: mpsc::Sender<(u64, E)>,
) -> (AgentEvent, AgentPort) {
    let AgentStart { call, url, dialect, token, opening, settings, dialer, port, wake } = start;
    let connect = dialer.connect(&url, token.as_ref(), &settings);
    let connected = tokio::select! {
        biased;
        () = stopped(&mut orders) => return (AgentEvent::Ended(End::Stopped, LinkReport::default()), port),
        connected = connect => connected,
    };
    let link = match connected {
        Ok(link) => link,
        Err(error) => return (AgentEvent::Failed(error), port),
    };
    let dialect = Dialect::new(dialect, opening.ids);
    let wiring = Wiring { call, wake, orders, events };
    let mut pump = Pump::new(link, dialect, port, settings);
    match pump.open(&opening).await {
        Ok(()) => {}
        Err(error) => return (AgentEvent::Failed(error), pump.into_port()),
    }
    let end = pump.run(wiring).await;
    let report = pump.report();
    (AgentEvent::Ended(end, report), pump.into_port())
}

/// Keys pressed before there is a link are for nobody.
async fn stopped(orders: &mut mpsc::Receiver<Order>) {
    while orders.recv().await.is_some() {}
}

/// Orders that may wait for a pump.
const MAX_ORDERS: usize = 64;

#[cfg(test)]
mod tests;
