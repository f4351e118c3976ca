//! A stand-in PBX: places one call through real sockets, talks, listens, hangs up.
//!
//! Its media path is its own (a plain thread with one socket), so that what it measures is what a
//! caller gets, and not what the gateway believes.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use bytes::Bytes;
use media::codec::Codec;
use media::sdp::{Capabilities, Encryption, Local, Negotiation, Plan};
use sip::endpoint::{ClientTx, Content, DialogId, Event, Invite};
use sip::{Endpoint, Transport};
use tokio::task::JoinHandle;

use super::files::Capture;
use super::line::Line;
use super::rtp::{self, Heard};
use crate::clock;
use crate::random::{self, Random};

/// How long the phone waits for a final answer before it believes in silence.
const PATIENCE: Duration = Duration::from_secs(10);

/// One call to place.
pub struct Dial {
    /// UDP, TCP or TLS.
    pub transport: Transport,
    /// The phone's own address.
    pub from: IpAddr,
    /// The gateway's listener.
    pub to: SocketAddr,
    /// What stands in the request line.
    pub request_uri: String,
    /// The calling number.
    pub caller: String,
    /// SRTP or not.
    pub encryption: Encryption,
    /// Who may have signed the gateway's certificate, for TLS.
    pub roots: rustls::RootCertStore,
    /// What the phone says, 8 kHz PCM.
    pub say: Vec<i16>,
    /// How long to wait for an answer.
    pub patience: Duration,
    /// Where packets are noted, when they are wanted.
    pub capture: Option<Capture>,
}

impl Dial {
    /// A call with default patience, unencrypted and uncaptured.
    #[must_use]
    pub fn new(transport: Transport, to: SocketAddr, request_uri: String, say: Vec<i16>) -> Self {
        Dial {
            transport,
            from: to.ip(),
            to,
            request_uri,
            caller: "+15550100001".to_owned(),
            encryption: Encryption::Disable,
            roots: rustls::RootCertStore::empty(),
            say,
            patience: PATIENCE,
            capture: None,
        }
    }
}

/// How a call went, as the phone saw it.
#[derive(Debug)]
pub enum Outcome {
    /// Answered; talked to the end.
    Talked(Box<Talked>),
    /// A final response other than 200.
    Refused {
        /// The status code.
        status: u16,
        /// The reason phrase.
        reason: String,
        /// The Warning header, when there was one.
        warning: Option<String>,
    },
    /// Nothing at all came back.
    Silence,
}

/// An answered call.
#[derive(Debug)]
pub struct Talked {
    /// INVITE to 180, in milliseconds.
    pub ringing_ms: f32,
    /// INVITE to 200, in milliseconds.
    pub set_up_ms: f32,
    /// What the phone's media saw.
    pub heard: Heard,
    /// The Call-ID of the call.
    pub sip_call_id: String,
}

/// Places the call and sees it through.
///
/// # Errors
/// When sockets cannot be opened, or the gateway's SDP cannot be used.
pub async fn call(dial: Dial) -> io::Result<Outcome> {
    let mut line = Line::to_gateway(&dial).await?;
    let mut random = Random::new(random::seed()?);
    let mut endpoint = Endpoint::new(sip::Options::default(), random.bytes());
    let media = std::net::UdpSocket::bind((dial.from, 0))?;
    let local = Local {
        address: dial.from,
        port: media.local_addr()?.port(),
        session_id: u64::from_be_bytes(random.bytes()) >> 2,
    };
    let capabilities = Capabilities {
        codecs: vec![Codec::Pcmu, Codec::Pcma],
        dtmf: true,
        encryption: dial.encryption,
    };
    let mut negotiation = Negotiation::new(capabilities, local);
    let offer = negotiation.offer(&mut |bytes| random.fill(bytes));
    let started = clock::now();
    let own = format!("<sip:{}@{}>", dial.caller, line.flow.local);
    let invite = Invite {
        flow: line.flow,
        request_uri: &dial.request_uri,
        from: &own,
        to: &format!("<{}>", dial.request_uri),
        contact: &own,
        headers: &[("Max-Forwards", "70"), ("User-Agent", "Trunkline demo phone")],
        body: Some(("application/sdp", &offer)),
        call_id: None,
    };
    let tx = endpoint.invite(started, invite).map_err(io::Error::other)?;
    let mut setup = Setup { tx, ringing: None, outcome: None };
    while setup.outcome.is_none() && started.elapsed() < dial.patience {
        line.step(&mut endpoint, Duration::from_millis(200)).await?;
        while let Some(event) = endpoint.poll_event() {
            setup.handle(event);
        }
    }
    match setup.outcome {
        None => Ok(Outcome::Silence),
        Some(Err(refused)) => {
            line.step(&mut endpoint, Duration::ZERO).await?;
            Ok(refused)
        }
        Some(Ok(answered)) => {
            let set_up = started.elapsed();
            endpoint.ack(clock::now(), answered.dialog, None).map_err(io::Error::other)?;
            line.step(&mut endpoint, Duration::ZERO).await?;
            let plan =
                negotiation.accept(&answered.body).map_err(|why| io::Error::other(why.text()))?;
            let heard = talk(&mut line, &mut endpoint, (media, plan), &dial).await?;
            hang_up(&mut line, &mut endpoint, answered.dialog).await?;
            Ok(Outcome::Talked(Box::new(Talked {
                ringing_ms: millis(setup.ringing.map_or(set_up, |at| at - started)),
                set_up_ms: millis(set_up),
                heard,
                sip_call_id: answered.sip_call_id,
            })))
        }
    }
}

fn millis(duration: Duration) -> f32 {
    duration.as_secs_f32() * 1000.0
}

/// A 200 to our INVITE.
struct Answered {
    dialog: DialogId,
    body: Bytes,
    sip_call_id: String,
}

/// What became of the INVITE so far.
struct Setup {
    tx: ClientTx,
    ringing: Option<Instant>,
    outcome: Option<Result<Answered, Outcome>>,
}

impl Setup {
    fn handle(&mut self, event: Event) {
        match event {
            Event::Response { tx, response, dialog } if tx == self.tx => {
                match (response.status(), dialog) {
                    (100, _) => {}
                    (..200, _) => self.ringing = self.ringing.or_else(|| Some(clock::now())),
                    (200..300, Some(dialog)) => {
                        self.outcome = Some(Ok(Answered {
                            dialog,
                            body: response.body_bytes(),
                            sip_call_id: String::from_utf8_lossy(response.call_id()).into_owned(),
                        }));
                    }
                    (status, _) => {
                        let warning = response.extension("Warning");
                        self.outcome = Some(Err(Outcome::Refused {
                            status,
                            reason: String::from_utf8_lossy(response.reason()).into_owned(),
                            warning: warning.map(|text| String::from_utf8_lossy(text).into_owned()),
                        }));
                    }
                }
            }
            Event::Failed { tx, .. } if tx == self.tx => self.outcome = Some(Err(Outcome::Silence)),
            _ => {}
        }
    }
}

/// Talks on a thread of its own while signalling goes on here.
async fn talk(
    line: &mut Line,
    endpoint: &mut Endpoint,
    (socket, plan): (std::net::UdpSocket, Plan),
    dial: &Dial,
) -> io::Result<Heard> {
    let (say, capture) = (dial.say.clone(), dial.capture.clone());
    let talking: JoinHandle<io::Result<Heard>> =
        tokio::task::spawn_blocking(move || rtp::talk(&socket, plan, &say, capture.as_ref()));
    while !talking.is_finished() {
        line.step(endpoint, Duration::from_millis(50)).await?;
        while endpoint.poll_event().is_some() {}
    }
    talking.await.map_err(io::Error::other)?
}

async fn hang_up(line: &mut Line, endpoint: &mut Endpoint, dialog: DialogId) -> io::Result<()> {
    let bye = endpoint.request(clock::now(), dialog, sip::Method::Bye, Content::default());
    let Ok(bye) = bye else { return Ok(()) };
    let since = clock::now();
    while since.elapsed() < Duration::from_secs(2) {
        line.step(endpoint, Duration::from_millis(50)).await?;
        while let Some(event) = endpoint.poll_event() {
            if matches!(event, Event::Response { tx, .. } | Event::Failed { tx, .. } if tx == bye) {
                return Ok(());
            }
        }
    }
    Ok(())
}
