//! The pump: the one task of a call that joins the media worker's port and the agent's link.
//!
//! ```text
//!            ┌── order ─────────► press a key, stop
//!            ├── bell ──────────► pull the caller's frames and keys into the uplink
//!   a turn ──┼── link writable ─► the uplink's oldest, a batch at a time
//!            ├── link readable ─► some messages: audio, mark, clear → play-out queue
//!            └── deadline ──────► ping, stalled, silent, or a tick the worker did not send
//!   then     feed the ring, return the marks whose time has come
//!
//! Whatever woke the pump, a turn does all there is to do: one wake-up for what comes at about the same time.
//!
//! The bell rings when the caller's audio is there, about every 20 ms and sooner or later by what the network
//! makes of it. What the agent says goes into the ring as soon as it is whole, and the worker is told if it can
//! leave at once.
//! ```
//!
//! Nothing here waits for one thing alone. The next batch is written only when the one before has left the
//! process, so that audio that waits, waits in the uplink, where the oldest can be dropped.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::{Sink as _, SinkExt as _, Stream as _, StreamExt as _};
use media::codec::g711;
use media::port::{Down, Up};
use media::{FRAME_MS, Frame};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TryRecvError;
use tokio::time::{Instant, Sleep, sleep_until, timeout};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

use super::dialect::{AgentMessage, Dialect, Incoming, Opening, Warning, Wire};
use super::link::{CLOSED_ABNORMALLY, Link, LinkError, LinkSettings};
use super::playout::{FRAME_OCTETS, Playout};
use super::port::Port;
use super::pulse::{Intake, Pulse};
use super::uplink::{Item, Uplink};
use super::wake::Wake;
use super::{AgentEvent, End, LinkReport, MAX_ORDERS, Order};

/// What ties a pump to the rest of the gateway.
pub(super) struct Wiring<E> {
    pub(super) call: u64,
    pub(super) wake: Arc<Wake>,
    pub(super) orders: mpsc::Receiver<Order>,
    pub(super) events: mpsc::Sender<(u64, E)>,
}

/// One call's link at work.
pub(super) struct Pump<P> {
    link: Link,
    dialect: Dialect,
    port: P,
    settings: LinkSettings,
    playout: Playout,
    uplink: Uplink,
    intake: Intake,
    /// Keys to press towards the caller that the ring had no room for yet.
    keys: VecDeque<Down>,
    pulse: Pulse,
    ticked: Instant,
    /// When the play-out queue was last told that 20 ms have passed.
    settled: Instant,
    /// Messages were given to the link that have not all left the process.
    unflushed: bool,
    /// The agent's audio of one message, reused.
    audio: Vec<u8>,
    /// The messages to the agent, written one after the other into the same memory.
    scratch: BytesMut,
    /// What the gateway should be told; at most one of each kind.
    news: Vec<AgentEvent>,
    heard: bool,
    overruns: u64,
    frames_sent: u64,
    messages: u64,
    warnings: [u64; Warning::ALL.len()],
}

impl<P: Port> Pump<P> {
    pub(super) fn new(link: Link, dialect: Dialect, port: P, settings: LinkSettings) -> Pump<P> {
        let limit = usize::try_from(settings.playout_limit_ms.saturating_mul(OCTETS_PER_MS));
        let now = Instant::now();
        Pump {
            link,
            dialect,
            playout: Playout::new(limit.unwrap_or(usize::MAX), port.pushed()),
            uplink: Uplink::new(settings.latency_limit_ms),
            intake: Intake::new(now),
            keys: VecDeque::new(),
            pulse: Pulse::new(&settings, now),
            ticked: now,
            settled: now,
            unflushed: false,
            audio: Vec::new(),
            scratch: BytesMut::with_capacity(SCRATCH_OCTETS),
            news: Vec::new(),
            heard: false,
            overruns: port.overruns(),
            frames_sent: 0,
            messages: 0,
            warnings: [0; Warning::ALL.len()],
            port,
            settings,
        }
    }

    /// Tells the agent about the call. What the caller said while there was no link is history.
    pub(super) async fn open(&mut self, opening: &Opening) -> Result<(), LinkError> {
        while self.port.pull().is_some() {}
        self.overruns = self.port.overruns();
        let budget = Duration::from_millis(self.settings.connect_timeout_ms);
        let messages = self.dialect.open(opening, &mut self.scratch);
        let send = async {
            for wire in messages {
                self.link
                    .feed(into_message(wire)?)
                    .await
                    .map_err(|e| LinkError::of_open_link(&e))?;
            }
            self.link.flush().await.map_err(|e| LinkError::of_open_link(&e))
        };
        timeout(budget, send).await.unwrap_or(Err(LinkError::Timeout))?;
        self.pulse = Pulse::new(&self.settings, Instant::now());
        self.news.push(AgentEvent::Ready);
        Ok(())
    }

    /// Runs the link to its end and says goodbye where there is somebody to say it to.
    pub(super) async fn run<E: From<AgentEvent>>(&mut self, mut wiring: Wiring<E>) -> End {
        let end = self.work(&mut wiring).await;
        match end {
            End::Stopped => self.say_goodbye().await,
            End::Closed { .. } => self.play_tail(&mut wiring).await,
            End::Lost(_) => {}
        }
        for news in self.news.drain(..) {
            // Nobody listens any more: then nobody needs to know.
            let _ = wiring.events.send((wiring.call, E::from(news))).await;
        }
        end
    }

    pub(super) fn report(&self) -> LinkReport {
        LinkReport {
            frames_sent: self.frames_sent,
            frames_dropped: self.uplink.dropped_frames(),
            played_ms: self.port.played() * u64::from(FRAME_MS),
            refused_ms: self.playout.refused_octets() / OCTETS_PER_MS,
            messages: self.messages,
            warnings: self.warnings,
        }
    }

    pub(super) fn into_port(self) -> P {
        self.port
    }

    async fn work<E: From<AgentEvent>>(&mut self, wiring: &mut Wiring<E>) -> End {
        let mut timer = pin!(sleep_until(Instant::now()));
        poll_fn(|cx| {
            let now = Instant::now();
            let turn = self.turn(cx, wiring, (now, timer.is_elapsed()));
            if turn.is_pending() {
                self.set_timer(cx, timer.as_mut(), now);
            }
            turn
        })
        .await
    }

    /// Does what there is to do now. Returns how the link ends, if it does.
    fn turn<E: From<AgentEvent>>(
        &mut self,
        cx: &mut Context<'_>,
        wiring: &mut Wiring<E>,
        (now, is_due): (Instant, bool),
    ) -> Poll<End> {
        wiring.wake.register(cx);
        if wiring.wake.take_orders() && !self.obey_all(&mut wiring.orders) {
            return Poll::Ready(End::Stopped);
        }
        if wiring.wake.take_audio() {
            self.tick(now);
        } else if is_due {
            self.late_tick(now);
        }
        if let Some(end) = self.exchange(cx, now) {
            return Poll::Ready(end);
        }
        self.feed_ring();
        self.tell_news(wiring);
        if self.port.is_closed() {
            return Poll::Ready(End::Stopped);
        }
        if let Err(error) = self.pulse.check(now, &mut self.uplink) {
            return Poll::Ready(End::Lost(error));
        }
        // Marks whose time has come, and pings.
        match self.poll_send(cx) {
            Ok(()) => Poll::Pending,
            Err(error) => Poll::Ready(End::Lost(error)),
        }
    }

    /// Wakes this task at the next deadline. The timer is moved only to come earlier: one that comes too early
    /// finds nothing to do and is set again, which costs less than setting it with every packet.
    fn set_timer(&self, cx: &mut Context<'_>, mut timer: Pin<&mut Sleep>, now: Instant) {
        let deadline = self.deadline(now);
        if deadline < timer.deadline() || timer.is_elapsed() {
            timer.as_mut().reset(deadline);
        }
        if timer.poll(cx).is_ready() {
            cx.waker().wake_by_ref();
        }
    }

    /// The worker has given us something, or would have by now.
    fn tick(&mut self, now: Instant) {
        self.ticked = now;
        self.intake.refill(now);
        if now >= self.settled + FRAME {
            self.settled = now;
            self.playout.tick();
        }
        let dropped = self.uplink.dropped_frames();
        let overruns = self.port.overruns();
        self.uplink.skip(overruns - self.overruns);
        self.overruns = overruns;
        while let Some(up) = self.port.pull() {
            match up {
                Up::Frame(frame) => self.uplink.push_frame(frame),
                Up::Digit { digit, .. } => self.uplink.push_digit(digit),
            }
        }
        if self.uplink.dropped_frames() > dropped {
            self.warn(Warning::Behind);
        }
    }

    /// A deadline has come; it is a tick as well if the worker has sent none for as long.
    fn late_tick(&mut self, now: Instant) {
        if now >= self.ticked + LATE_TICK {
            self.tick(now);
        }
    }

    /// Hands frames to the worker while it has few, and marks back to the agent.
    fn feed_ring(&mut self) {
        while self.port.room() > 0
            && let Some(key) = self.keys.pop_front()
        {
            self.playout.skip_position();
            // There is room: nobody else pushes.
            let _ = self.port.push(key);
        }
        let consumed = self.port.consumed();
        while self.port.room() > 0
            && let Some(codes) = self.playout.next_frame(consumed)
        {
            let _ = self.port.push(Down::Frame(decode(&codes)));
        }
        while let Some(name) = self.playout.next_mark(consumed) {
            self.uplink.push_mark(name);
        }
    }

    /// Obeys all orders that wait; false when there will be no more.
    fn obey_all(&mut self, orders: &mut mpsc::Receiver<Order>) -> bool {
        loop {
            match orders.try_recv() {
                Ok(order) => self.obey(order),
                Err(TryRecvError::Empty) => return true,
                Err(TryRecvError::Disconnected) => return false,
            }
        }
    }

    /// Keys towards the caller wait in front of the audio that is still in the play-out queue; more than can be
    /// meant are for nobody.
    fn obey(&mut self, order: Order) {
        match order {
            Order::Press { digit, duration_ms } if self.keys.len() < MAX_ORDERS => {
                self.keys.push_back(Down::Digit { digit, duration_ms });
            }
            Order::Press { .. } => {}
            // How long a key was held is nothing this queue's dialects can say.
            Order::Pressed { digit, .. } => self.uplink.push_digit(digit),
        }
    }

    /// Takes one message of the agent. Returns how the link ends, if it does.
    fn take_in(&mut self, message: Message, now: Instant) -> Option<End> {
        self.pulse.heard(now);
        self.intake.spend(message.len());
        match message {
            Message::Text(text) => self.apply(Incoming::Text(&text)),
            Message::Binary(bytes) => self.apply(Incoming::Binary(&bytes)),
            Message::Close(frame) => {
                let code = frame.map_or(CLOSED_WITHOUT_CODE, |frame| frame.code.into());
                return Some(End::Closed { code });
            }
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
        }
        None
    }

    fn apply(&mut self, message: Incoming<'_>) {
        self.audio.clear();
        let message = match self.dialect.decode(message, &mut self.audio) {
            Ok(message) => message,
            Err(warning) => return self.warn(warning),
        };
        self.messages += 1;
        match message {
            AgentMessage::Audio => self.play(),
            AgentMessage::Mark(name) => {
                if self.playout.mark(&name).is_err() {
                    self.warn(Warning::MarksFull);
                }
            }
            AgentMessage::Clear => {
                self.port.clear();
                for name in self.playout.clear() {
                    self.uplink.push_mark(name);
                }
            }
            AgentMessage::Hangup => {
                if !self.news.contains(&AgentEvent::Hangup) {
                    self.news.push(AgentEvent::Hangup);
                }
            }
        }
    }

    fn play(&mut self) {
        if self.playout.push(&self.audio) < self.audio.len() {
            self.warn(Warning::QueueFull);
        }
        if !self.heard && !self.audio.is_empty() {
            self.heard = true;
            self.news.push(AgentEvent::FirstAudio);
        }
        self.audio.shrink_to(KEPT_AUDIO_OCTETS);
    }

    fn warn(&mut self, warning: Warning) {
        let kinds = Warning::ALL.iter().zip(&mut self.warnings);
        for (_, count) in kinds.filter(|(kind, _)| **kind == warning) {
            *count += 1;
            if *count == 1 {
                self.news.push(AgentEvent::Warning(warning));
            }
        }
    }

    /// What does not fit into the gateway's queue now is told at the next tick.
    fn tell_news<E: From<AgentEvent>>(&mut self, wiring: &Wiring<E>) {
        let told = self
            .news
            .iter()
            .take_while(|news| wiring.events.try_send((wiring.call, E::from(**news))).is_ok());
        let told = told.count();
        self.news.drain(..told);
    }

    /// Writes what the link takes and reads what has come, up to [`MESSAGES_PER_TURN`]. Returns how the link
    /// ends, if it does.
    fn exchange(&mut self, cx: &mut Context<'_>, now: Instant) -> Option<End> {
        let sent = self.poll_send(cx);
        for _ in 0..MESSAGES_PER_TURN {
            if self.intake.is_spent() {
                return sent.err().map(End::Lost);
            }
            // A close frame that came before the socket broke says more than the broken socket.
            match Pin::new(&mut self.link).poll_next(cx) {
                Poll::Ready(Some(Ok(message))) => {
                    let end = self.take_in(message, now);
                    if end.is_some() {
                        return end;
                    }
                    self.feed_ring();
                }
                Poll::Ready(Some(Err(error))) => {
                    return Some(End::Lost(LinkError::of_open_link(&error)));
                }
                Poll::Ready(None) => {
                    return Some(End::Lost(LinkError::Closed { code: CLOSED_ABNORMALLY }));
                }
                Poll::Pending => return sent.err().map(End::Lost),
            }
        }
        // There may be more: come back after the other calls had their turn.
        cx.waker().wake_by_ref();
        sent.err().map(End::Lost)
    }

    /// Gives the link one batch after the other while it takes them.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Result<(), LinkError> {
        loop {
            if self.unflushed {
                match Pin::new(&mut self.link).poll_flush(cx) {
                    Poll::Ready(result) => result.map_err(|e| LinkError::of_open_link(&e))?,
                    Poll::Pending => {
                        self.pulse.blocked(Instant::now());
                        return Ok(());
                    }
                }
                self.unflushed = false;
                self.pulse.unblocked();
            }
            if self.uplink.len() == 0 {
                return Ok(());
            }
            self.send_batch()?;
        }
    }

    fn send_batch(&mut self) -> Result<(), LinkError> {
        let mut octets = 0;
        while octets < BATCH_OCTETS
            && let Some(item) = self.uplink.pop()
        {
            let Some(message) = self.message(item)? else { continue };
            octets += message.len();
            self.unflushed = true;
            let given = Pin::new(&mut self.link).start_send(message);
            given.map_err(|e| LinkError::of_open_link(&e))?;
        }
        Ok(())
    }

    fn message(&mut self, item: Item) -> Result<Option<Message>, LinkError> {
        let scratch = &mut self.scratch;
        let wire = match item {
            Item::Frame { frame, elapsed_ms } => {
                self.frames_sent += 1;
                Some(self.dialect.audio(&frame, elapsed_ms, scratch))
            }
            Item::Digit(digit) => self.dialect.digit(digit, scratch),
            Item::Mark(name) => self.dialect.mark(&name, scratch),
            Item::Stop => self.dialect.stop(scratch),
            Item::Ping => return Ok(Some(Message::Ping(Bytes::new()))),
        };
        wire.map(into_message).transpose()
    }

    /// When to look again if nothing happens before.
    fn deadline(&self, now: Instant) -> Instant {
        let next = self.pulse.deadline(now);
        let unfinished = self.intake.is_spent()
            || !self.news.is_empty()
            || !self.keys.is_empty()
            || self.playout.is_busy(self.port.consumed());
        if unfinished { next.min(self.ticked + LATE_TICK) } else { next }
    }

    /// Sends `stop`, closes, and waits for the agent to close, all within `close_timeout_ms`.
    async fn say_goodbye(&mut self) {
        self.uplink.push_stop();
        let budget = Duration::from_millis(self.settings.close_timeout_ms);
        let goodbye = async {
            poll_fn(|cx| match self.poll_send(cx) {
                Ok(()) if self.unflushed => Poll::Pending,
                result => Poll::Ready(result),
            })
            .await
            .ok()?;
            let normal = CloseFrame { code: CloseCode::Normal, reason: Utf8Bytes::default() };
            self.link.close(Some(normal)).await.ok()?;
            while let Some(Ok(_)) = self.link.next().await {}
            Some(())
        };
        // An agent that does not answer is left behind: its socket closes with the pump.
        let _ = timeout(budget, goodbye).await;
    }

    /// The agent has hung up and meant it: its last words are still heard, as long as the worker plays them.
    async fn play_tail<E: From<AgentEvent>>(&mut self, wiring: &mut Wiring<E>) {
        let goodbye = self.link.flush();
        let _ = timeout(Duration::from_millis(self.settings.close_timeout_ms), goodbye).await;
        let end = Instant::now() + Duration::from_millis(self.settings.tail_timeout_ms);
        let (mut consumed, mut since) = (self.port.consumed(), Instant::now());
        loop {
            self.tick(Instant::now());
            self.feed_ring();
            self.tell_news(wiring);
            let now = Instant::now();
            if self.port.consumed() > consumed {
                (consumed, since) = (self.port.consumed(), now);
            }
            let stuck = now.duration_since(since) >= STUCK_TAIL || self.port.is_closed();
            if stuck || now >= end || !self.playout.is_busy(consumed) {
                return;
            }
            // Keys are for nobody any more, and there is no stopping twice.
            if wiring.wake.take_orders() && wiring.orders.is_closed() {
                return;
            }
            let _ = timeout((LATE_TICK).min(end - now), wiring.wake.rung()).await;
            wiring.wake.take_audio();
        }
    }
}

fn decode(codes: &[u8; FRAME_OCTETS]) -> Frame {
    let mut frame = Frame::SILENCE;
    for (sample, code) in frame.samples.iter_mut().zip(codes) {
        *sample = g711::ulaw_decode(*code);
    }
    frame
}

fn into_message(wire: Wire) -> Result<Message, LinkError> {
    match wire {
        Wire::Text(bytes) => {
            Utf8Bytes::try_from(bytes).map(Message::Text).map_err(|_| LinkError::Protocol)
        }
        Wire::Binary(bytes) => Ok(Message::Binary(bytes)),
    }
}

/// Messages of the agent that are read before other calls have their turn.
const MESSAGES_PER_TURN: usize = 16;

/// Octets of µ-law per millisecond.
const OCTETS_PER_MS: u64 = 8;

/// About 50 ms of audio messages: what may be between the uplink and the kernel, too late to be dropped.
const BATCH_OCTETS: usize = 1024;

/// Room for a batch, so that its memory is reused and not taken anew.
const SCRATCH_OCTETS: usize = 8 * 1024;

/// Memory kept for the audio of the next message.
const KEPT_AUDIO_OCTETS: usize = 16 * 1024;

/// What the play-out queue goes by: the bell may ring at any time.
const FRAME: Duration = Duration::from_millis(FRAME_MS as u64);

/// A tick the worker did not send, for calls that have something to do: twice 20 ms, so that the worker's own
/// comes first.
const LATE_TICK: Duration = Duration::from_millis(40);

/// Ring not consumed for so long while it should be: nobody plays the tail.
const STUCK_TAIL: Duration = Duration::from_millis(200);

/// No code in the close frame (RFC 6455 §7.1.5).
const CLOSED_WITHOUT_CODE: u16 = 1005;
