//! A stand-in for whoever the gateway calls: a carrier, an agent that is a SIP endpoint, the number
//! that a caller is handed to. It answers one call and reports what it saw.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use media::codec::Codec;
use media::sdp::{Capabilities, Encryption, Local, Negotiation, Plan};
use sip::digest::{Claim, Nonces, Verdict};
use sip::endpoint::{Event, Reply, ServerTx};
use sip::{Endpoint, HeaderName, Method, Request};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::line::Line;
use super::rtp::{self, Heard};
use crate::clock;
use crate::net::tls::ServerIdentity;
use crate::random::{self, Random};

/// How long a desk waits for its call, and then for the call's end.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where the desk is called.
enum Door {
    /// Over UDP.
    Datagrams(Line),
    /// Over TLS.
    Secure(TcpListener, ServerIdentity),
}

/// What the desk does with its call.
pub struct Manner {
    /// The user and password it demands (RFC 7616), if it does.
    pub credentials: Option<(&'static str, &'static str)>,
    /// Whether audio is encrypted.
    pub encryption: Encryption,
    /// What it says; without anything it says back what it hears.
    pub say: Option<Vec<i16>>,
}

/// What the desk saw.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// The user part and host that called, as From says.
    pub from: String,
    /// INVITEs without credentials that were turned back.
    pub challenged: u32,
    /// The right credentials came.
    pub authenticated: bool,
    /// Audio is SRTP.
    pub secured: bool,
    /// The value of X-Conversation-Id, when there is one.
    pub conversation: Option<String>,
    /// What its media saw.
    pub heard: Heard,
}

/// Somebody who can be called.
pub struct Desk {
    door: Door,
    /// Where it is called.
    pub address: SocketAddr,
}

impl Desk {
    /// A desk that is called over UDP.
    ///
    /// # Errors
    /// When no socket can be had.
    pub async fn over_udp() -> io::Result<Self> {
        let line = Line::called().await?;
        let address = line.flow.local;
        Ok(Desk { door: Door::Datagrams(line), address })
    }

    /// A desk that is called over TLS and shows this certificate.
    ///
    /// # Errors
    /// When no socket can be had.
    pub async fn over_tls(identity: ServerIdentity) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        Ok(Desk { door: Door::Secure(listener, identity), address })
    }

    /// Waits for one call on a task of its own and sees it through.
    #[must_use]
    pub fn answer(self, manner: Manner) -> JoinHandle<io::Result<Seen>> {
        tokio::spawn(async move {
            let line = match self.door {
                Door::Datagrams(line) => line,
                Door::Secure(listener, identity) => {
                    let accepted = Line::accepted(&listener, &identity);
                    tokio::time::timeout(PATIENCE, accepted).await??
                }
            };
            Shift::new(line, manner)?.work().await
        })
    }
}

/// One call at a desk.
struct Shift {
    line: Line,
    manner: Manner,
    endpoint: Endpoint,
    nonces: Nonces,
    random: Random,
    seen: Seen,
    media: Option<(std::net::UdpSocket, Plan)>,
    talking: Option<JoinHandle<io::Result<Heard>>>,
    stop: Arc<AtomicBool>,
    over: bool,
}

impl Shift {
    fn new(line: Line, manner: Manner) -> io::Result<Self> {
        let mut random = Random::new(random::seed()?);
        let nonces = Nonces::new(random.bytes(), "carrier.example");
        Ok(Shift {
            line,
            manner,
            endpoint: Endpoint::new(sip::Options::default(), random.bytes()),
            nonces: nonces.map_err(io::Error::other)?,
            random,
            seen: Seen::default(),
            media: None,
            talking: None,
            stop: Arc::default(),
            over: false,
        })
    }

    async fn work(mut self) -> io::Result<Seen> {
        let since = clock::now();
        while !self.over && since.elapsed() < PATIENCE {
            self.line.step(&mut self.endpoint, Duration::from_millis(20)).await?;
            while let Some(event) = self.endpoint.poll_event() {
                self.handle(event)?;
            }
        }
        self.line.step(&mut self.endpoint, Duration::ZERO).await?;
        self.stop.store(true, Ordering::Relaxed);
        if let Some(talking) = self.talking.take() {
            self.seen.heard = talking.await.map_err(io::Error::other)??;
        }
        Ok(self.seen)
    }

    fn handle(&mut self, event: Event) -> io::Result<()> {
        match event {
            Event::Invite { tx, request, .. } => self.invited(tx, &request),
            Event::Acked { .. } => {
                self.talk();
                Ok(())
            }
            Event::InDialog { tx, request, .. } => {
                self.over |= request.method() == Method::Bye;
                self.reply(tx, Reply::new(200))
            }
            Event::Cancelled { .. } => {
                self.over = true;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn reply(&mut self, tx: ServerTx, reply: Reply<'_>) -> io::Result<()> {
        self.endpoint.respond(clock::now(), tx, reply).map(drop).map_err(io::Error::other)
    }

    fn invited(&mut self, tx: ServerTx, request: &Request) -> io::Result<()> {
        if !self.admits(request) {
            self.seen.challenged += 1;
            let challenges = self.nonces.challenge(clock::unix_seconds(), false);
            let headers: Vec<(&str, &str)> =
                challenges.iter().map(|value| ("WWW-Authenticate", value.as_str())).collect();
            return self.reply(tx, Reply { headers: &headers, ..Reply::new(401) });
        }
        self.seen.from = String::from_utf8_lossy(request.from().uri_bytes).into_owned();
        self.seen.conversation = request
            .extension("X-Conversation-Id")
            .map(|value| String::from_utf8_lossy(value).into_owned());
        let contact = format!("<sip:desk@{}>", self.line.flow.local);
        let ringing = Reply { contact: Some(&contact), ..Reply::new(180) };
        self.reply(tx, ringing)?;
        let socket = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        let local = Local {
            address: Ipv4Addr::LOCALHOST.into(),
            port: socket.local_addr()?.port(),
            session_id: u64::from_be_bytes(self.random.bytes()) >> 2,
        };
        let capabilities = Capabilities {
            codecs: vec![Codec::Pcmu, Codec::Pcma],
            dtmf: true,
            encryption: self.manner.encryption,
        };
        let random = &mut self.random;
        let answered = Negotiation::new(capabilities, local)
            .answer(request.body(), &mut |bytes| random.fill(bytes));
        let Ok((answer, plan)) = answered else {
            self.over = true;
            return self.reply(tx, Reply::new(488));
        };
        self.seen.secured = plan.srtp.is_some();
        self.media = Some((socket, plan));
        let body = Some(("application/sdp", answer.as_slice()));
        self.reply(tx, Reply { contact: Some(&contact), body, ..Reply::new(200) })
    }

    /// Whether the credentials are right, where some are demanded.
    fn admits(&mut self, request: &Request) -> bool {
        let Some((user, password)) = self.manner.credentials else { return true };
        let now = clock::unix_seconds();
        let good = request.lines(HeaderName::Authorization).any(|credentials| {
            let (method, uri) = (request.method_token(), request.uri_bytes());
            let claim = Claim { credentials, method, uri };
            let of = |name: &str| (name == user).then_some(password);
            matches!(self.nonces.verify(claim, of, now), Verdict::Ok { .. })
        });
        self.seen.authenticated |= good;
        good
    }

    /// Talks, or says back, on a thread of its own.
    fn talk(&mut self) {
        let Some((socket, plan)) = self.media.take() else { return };
        let (say, stop) = (self.manner.say.take(), Arc::clone(&self.stop));
        self.talking = Some(tokio::task::spawn_blocking(move || match say {
            Some(say) => rtp::talk(&socket, plan, &say, None),
            None => rtp::echo(&socket, plan, &stop),
        }));
    }
}
