//! What one packet costs in a session, without the system calls. With an echo or an agent it is
//! received, held, decoded, handed over, encoded and sent: one operation is one datagram and one
//! tick. Between two legs it is relayed as it comes: one operation is one datagram.

mod measure;

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use measure::Bench;
use media::clock::WallAnchor;
use media::codec::Codec;
use media::command::{Event, Far, LegOptions, SessionKey};
use media::frame::{FRAME_SAMPLES, Frame};
use media::packet::rtp::{self, Header};
use media::port::{AgentPort, Down, agent_port};
use media::sdp::{Plan, SrtpKeys};
use media::session::{Channel, DATAGRAM_BYTES, Datagram, Outlet, Session};
use media::srtp::{Context, MASTER_BYTES, MasterKey, Suite};

const PEER_IP: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
const PEER: SocketAddr = SocketAddr::new(PEER_IP, 4_000);
const SUITE: Suite = Suite::AesCm128HmacSha1_80;
/// No more than a leg takes at once.
const BATCH: usize = 250;

fn main() {
    let bench = Bench::from_arguments();
    for (name, secure, clean) in [
        ("echo-plain", false, false),
        ("echo-srtp", true, false),
        ("echo-srtp-noise-cancellation", true, true),
    ] {
        let call = Call::new(Far::Echo, secure, clean);
        bench.case((name, BATCH), call, Call::refill, Call::turn);
    }
    let (port, agent) = agent_port(100);
    let call = (Call::new(Far::Agent(port), true, false), agent);
    bench.case(("agent-srtp", BATCH), call, |(call, _)| call.refill(), with_agent);
    let law = |codec| move |plan: Plan| Plan { codec, payload_type: codec.payload_type(), ..plan };
    for (name, (secure_a, a), (secure_b, b)) in [
        ("relay-plain-to-plain", (false, Codec::Pcmu), (false, Codec::Pcmu)),
        ("relay-plain-to-srtp", (false, Codec::Pcmu), (true, Codec::Pcmu)),
        ("relay-srtp-to-plain", (true, Codec::Pcmu), (false, Codec::Pcmu)),
        ("relay-srtp-to-srtp", (true, Codec::Pcmu), (true, Codec::Pcmu)),
        ("relay-alaw-to-ulaw", (false, Codec::Pcma), (false, Codec::Pcmu)),
    ] {
        let mut from = Call::of(Far::Nobody, law(a)(plan(secure_a)), false);
        let mut to = Call::of(Far::Nobody, law(b)(plan(secure_b)), false);
        from.session.bridge(&mut to.session);
        let legs = (from, to);
        bench.case((name, BATCH), legs, |(from, _)| from.refill_after_a_second(), relay);
    }
}

/// One packet from leg to leg.
fn relay((from, to): &mut (Call, Call), at: usize) {
    let Some((buffer, len)) = from.packets.get_mut(at) else { return };
    let (len, waited) = (*len, Duration::ZERO);
    let datagram = Datagram { channel: Channel::Rtp, from: PEER, waited, buffer, len };
    let crossing = from.session.handle_datagram(from.now, datagram, &mut Nowhere);
    let crossing = crossing.expect("the leg is bridged");
    to.session.cross(&crossing, buffer, &mut Nowhere);
}

/// The agent takes one frame and gives one, as it does with each tick.
fn with_agent((call, agent): &mut (Call, AgentPort), at: usize) {
    let _ = agent.push(Down::Frame(Frame::SILENCE));
    call.turn(at);
    while let Some(up) = agent.pull() {
        black_box(up);
    }
}

/// A call whose next packets are ready, protected before the clock runs.
struct Call {
    session: Session,
    now: Instant,
    peer: Option<Context>,
    payload_type: u8,
    sent: u64,
    packets: Vec<([u8; DATAGRAM_BYTES], usize)>,
}

impl Call {
    fn new(far: Far, secure: bool, noise_cancellation: bool) -> Self {
        Self::of(far, plan(secure), noise_cancellation)
    }

    fn of(far: Far, plan: Plan, noise_cancellation: bool) -> Self {
        let options = LegOptions { noise_cancellation, ..LegOptions::new(PEER_IP, [7; 32]) };
        let anchor = WallAnchor::now();
        let mut session = Session::new(SessionKey(1), &plan, far, &options, anchor);
        session.gate(anchor.at, true);
        let secure = plan.srtp.is_some();
        let payload_type = plan.payload_type;
        let peer = secure.then(|| Context::new(SUITE, &MasterKey::new([2; MASTER_BYTES])));
        Self { session, now: anchor.at, peer, payload_type, sent: 0, packets: Vec::new() }
    }

    #[expect(clippy::cast_possible_truncation, reason = "sequence and timestamp wrap")]
    fn refill(&mut self) {
        self.packets.clear();
        for _ in 0..BATCH {
            let mut buffer = [0x90; DATAGRAM_BYTES];
            let (sequence, timestamp) = (self.sent as u16, (self.sent * 160) as u32);
            let payload_type = self.payload_type;
            let header = Header { payload_type, marker: false, sequence, timestamp, ssrc: 9 };
            rtp::write_header(&mut buffer, header).expect("the buffer is long enough");
            let mut len = rtp::HEADER_BYTES + FRAME_SAMPLES;
            if let Some(peer) = &mut self.peer {
                len = peer.protect(&mut buffer, len).expect("the packet is well-formed");
            }
            self.packets.push((buffer, len));
            self.sent += 1;
        }
    }

    /// So that there is room for a batch in what the leg may receive.
    fn refill_after_a_second(&mut self) {
        self.refill();
        self.session.handle_tick(self.now, 50, &mut Nowhere);
    }

    fn turn(&mut self, at: usize) {
        let Some((buffer, len)) = self.packets.get_mut(at) else { return };
        let (len, waited) = (*len, Duration::ZERO);
        let datagram = Datagram { channel: Channel::Rtp, from: PEER, waited, buffer, len };
        self.session.handle_datagram(self.now, datagram, &mut Nowhere);
        self.now += Duration::from_millis(20);
        self.session.handle_tick(self.now, 0, &mut Nowhere);
    }
}

struct Nowhere;

impl Outlet for Nowhere {
    fn send(&mut self, _: Channel, _: SocketAddr, datagram: &[u8]) {
        black_box(datagram);
    }

    fn event(&mut self, _: Event) {}
}

fn plan(secure: bool) -> Plan {
    let (local, remote) = (MasterKey::new([1; MASTER_BYTES]), MasterKey::new([2; MASTER_BYTES]));
    let keys = SrtpKeys { suite: SUITE, local, remote, local_epoch: 1, remote_epoch: 1 };
    Plan {
        codec: Codec::Pcmu,
        payload_type: 0,
        dtmf_payload: None,
        dtmf_receive_payload: None,
        ptime_ms: 20,
        send: true,
        receive: true,
        remote: PEER,
        remote_rtcp: SocketAddr::new(PEER_IP, 4_001),
        rtcp_mux: false,
        srtp: secure.then_some(keys),
    }
}
