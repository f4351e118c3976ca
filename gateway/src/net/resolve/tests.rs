//! Against a name server on loopback whose answers each test writes down.

use std::net::Ipv4Addr;

use hickory_resolver::proto::op::{Message, MessageType, OpCode, ResponseCode};
use hickory_resolver::proto::rr::rdata::{A, AAAA, CNAME, SRV};
use hickory_resolver::proto::rr::{Record, RecordType};
use sip::Transport;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, UdpSocket};

use super::*;

/// What the name server does with a question.
enum Reply {
    Records(Vec<Record>),
    Code(ResponseCode),
    /// Wrong answers first: other identifier, other question; then the right one.
    Forged(Vec<Record>),
    Silence,
}

type Script = Box<dyn Fn(&str, RecordType) -> Reply + Send>;

/// The name server, and what it was asked.
struct Zone {
    script: Mutex<Script>,
    asked: Mutex<Vec<String>>,
}

impl Zone {
    fn answers(&self, script: impl Fn(&str, RecordType) -> Reply + Send + 'static) {
        *self.script.lock().expect("not poisoned") = Box::new(script);
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("not poisoned").clone()
    }

    fn replies(&self, query: &[u8]) -> Vec<Message> {
        let query = Message::from_vec(query).expect("a query");
        let question = query.queries[0].clone();
        let name = question.name().to_ascii().trim_end_matches('.').to_owned();
        let kind = question.query_type();
        self.asked.lock().expect("not poisoned").push(format!("{kind} {name}"));
        let respond = |id: u16, code, records: Vec<Record>| {
            let mut message = Message::new(id, MessageType::Response, OpCode::Query);
            message.metadata.response_code = code;
            message.metadata.recursion_available = true;
            message.add_query(question.clone());
            message.add_answers(records);
            message
        };
        let id = query.metadata.id;
        let evil = || vec![record(&name, 60, RData::A(A(Ipv4Addr::new(203, 0, 113, 66))))];
        match (self.script.lock().expect("not poisoned"))(&name, kind) {
            Reply::Records(records) => vec![respond(id, ResponseCode::NoError, records)],
            Reply::Code(code) => vec![respond(id, code, Vec::new())],
            Reply::Forged(records) => {
                let mut other = respond(id, ResponseCode::NoError, evil());
                other.queries[0].set_name(Name::from_ascii("evil.example.").expect("a name"));
                vec![
                    respond(id.wrapping_add(1), ResponseCode::NoError, evil()),
                    other,
                    respond(id, ResponseCode::NoError, records),
                ]
            }
            Reply::Silence => Vec::new(),
        }
    }
}

async fn serve_udp(socket: UdpSocket, zone: Arc<Zone>) {
    let mut buffer = vec![0; 4096];
    while let Ok((length, peer)) = socket.recv_from(&mut buffer).await {
        for message in zone.replies(&buffer[..length]) {
            let mut bytes = message.to_vec().expect("printable");
            if bytes.len() > 1200 {
                bytes = message.truncate().to_vec().expect("printable");
            }
            let _ = socket.send_to(&bytes, peer).await;
        }
    }
}

async fn serve_tcp(listener: TcpListener, zone: Arc<Zone>) {
    while let Ok((mut stream, _)) = listener.accept().await {
        let zone = Arc::clone(&zone);
        tokio::spawn(async move {
            while let Ok(length) = stream.read_u16().await {
                let mut query = vec![0; usize::from(length)];
                stream.read_exact(&mut query).await.expect("a whole query");
                for message in zone.replies(&query) {
                    let bytes = message.to_vec().expect("printable");
                    let length = u16::try_from(bytes.len()).expect("fits");
                    stream.write_u16(length).await.expect("sent");
                    stream.write_all(&bytes).await.expect("sent");
                }
            }
        });
    }
}

const OPEN: Policy = Policy { ipv4: true, ipv6: false, allow_private: true };

/// A name server and a resolver that asks it.
async fn dns(policy: Policy) -> (Arc<Zone>, Resolver) {
    let zone = Arc::new(Zone {
        script: Mutex::new(Box::new(|_, _| Reply::Code(ResponseCode::NXDomain))),
        asked: Mutex::default(),
    });
    let udp = UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
    let address = udp.local_addr().expect("bound");
    tokio::spawn(serve_udp(udp, Arc::clone(&zone)));
    if let Ok(tcp) = TcpListener::bind(address).await {
        tokio::spawn(serve_tcp(tcp, Arc::clone(&zone)));
    }
    let options = Options { nameservers: vec![address], policy, seed: [7; 32] };
    (zone, Resolver::new(options).expect("a resolver"))
}

impl Resolver {
    /// With less patience, for tests of silence.
    fn hurried(self, deadline: Duration) -> Resolver {
        let Ok(mut inner) = Arc::try_unwrap(self.inner) else { panic!("in use already") };
        inner.deadline = deadline;
        Resolver { inner: Arc::new(inner) }
    }

    async fn texts(&self, host: &str) -> Result<Vec<String>, LocateError> {
        self.of(host, None, Transport::Udp).await
    }

    async fn of(
        &self,
        host: &str,
        port: Option<u16>,
        transport: Transport,
    ) -> Result<Vec<String>, LocateError> {
        let destination = Destination { host: host.to_owned(), port, transport, secure: false };
        let found = self.locate(&destination).await?;
        assert!(found.len() <= MAX_TARGETS);
        assert!(found.iter().all(|target| target.name == host && target.transport == transport));
        Ok(found.iter().map(|target| target.address.to_string()).collect())
    }
}

fn name(text: &str) -> Name {
    let mut name = Name::from_ascii(text).expect("a name");
    name.set_fqdn(true);
    name
}

fn record(of: &str, ttl: u32, data: RData) -> Record {
    Record::from_rdata(name(of), ttl, data)
}

fn a(of: &str, ttl: u32, address: &str) -> Record {
    record(of, ttl, RData::A(A(address.parse().expect("an address"))))
}

fn srv(of: &str, priority: u16, weight: u16, port: u16, target: &str) -> Record {
    record(of, 60, RData::SRV(SRV::new(priority, weight, port, name(target))))
}

fn cname(of: &str, target: &str) -> Record {
    record(of, 60, RData::CNAME(CNAME(name(target))))
}

/// A carrier with two hosts in reserve order, whose A records differ.
fn carrier(host: &str, kind: RecordType) -> Reply {
    let service = "_sip._udp.carrier.example";
    match (host, kind) {
        (_, RecordType::SRV) if host == service => Reply::Records(vec![
            srv(service, 20, 0, 5080, "two.carrier.example"),
            srv(service, 10, 0, 5070, "one.carrier.example"),
        ]),
        ("one.carrier.example", RecordType::A) => {
            Reply::Records(vec![a(host, 60, "192.0.2.1"), a(host, 60, "192.0.2.11")])
        }
        ("two.carrier.example", RecordType::A) => Reply::Records(vec![a(host, 60, "192.0.2.2")]),
        ("carrier.example", RecordType::A) => Reply::Records(vec![a(host, 60, "192.0.2.9")]),
        _ => Reply::Code(ResponseCode::NXDomain),
    }
}

#[tokio::test]
async fn srv_records_give_hosts_and_ports_in_order() {
    let (zone, resolver) = dns(OPEN).await;
    zone.answers(carrier);
    let found = resolver.texts("carrier.example").await;
    assert_eq!(
        found,
        Ok(["192.0.2.1:5070", "192.0.2.11:5070", "192.0.2.2:5080"].map(str::to_owned).to_vec())
    );
    let asked = zone.asked();
    assert!(!asked.contains(&"A carrier.example".to_owned()), "{asked:?}");
    assert!(asked.iter().all(|one| !one.starts_with("NAPTR") && !one.starts_with("AAAA")));
}

#[tokio::test]
async fn a_written_port_asks_for_no_srv_and_no_srv_means_the_default_port() {
    let (zone, resolver) = dns(OPEN).await;
    zone.answers(carrier);
    let explicit = resolver.of("carrier.example", Some(5099), Transport::Udp).await;
    assert_eq!(explicit, Ok(vec!["192.0.2.9:5099".to_owned()]));
    assert_eq!(zone.asked(), ["A carrier.example"]);
    let tls = resolver.of("carrier.example", None, Transport::Tls).await;
    assert_eq!(tls, Ok(vec!["192.0.2.9:5061".to_owned()]));
    assert_eq!(zone.asked()[1..], ["SRV _sips._tcp.carrier.example"]);
}

#[tokio::test]
async fn a_root_target_means_that_there_is_no_service() {
    let (zone, resolver) = dns(OPEN).await;
    zone.answers(|host, _| Reply::Records(vec![srv(host, 0, 0, 0, ".")]));
    assert_eq!(resolver.texts("carrier.example").await, Err(LocateError::NoService));
}

#[tokio::test]
async fn an_answer_is_asked_for_once_in_its_time_whoever_wants_it() {
    let (zone, resolver) = dns(OPEN).await;
    zone.answers(carrier);
    let all = (0..100).map(|_| resolver.texts("carrier.example"));
    for found in futures_util::future::join_all(all).await {
        assert_eq!(found.expect("found").len(), 3);
    }
    resolver.texts("carrier.example").await.expect("found");
    assert_eq!(zone.asked().len(), 3, "{:?}", zone.asked());
}

#[tokio::test]
async fn an_answer_without_time_is_asked_for_again_and_changes() {
    let (zone, resolver) = dns(OPEN).await;
    zone.answers(|host, kind| match kind {
        RecordType::A => Reply::Records(vec![a(host, 0, "192.0.2.1")]),
        _ => Reply::Code(ResponseCode::NXDomain),
    });
    assert_eq!(resolver.texts("c.example").await, Ok(vec!["192.0.2.1:5060".to_owned()]));
    zone.answers(|host, kind| match kind {
        RecordType::A => Reply::Records(vec![a(host, 0, "192.0.2.2")]),
        _ => Reply::Code(ResponseCode::NXDomain),
    });
    assert_eq!(resolver.texts("c.example").await, Ok(vec!["192.0.2.2:5060".to_owned()]));
}

#[tokio::test]
async fn what_was_known_is_used_when_no_name_server_answers_any_more() {
    let broken: [(fn() -> Reply, bool); 3] = [
        (|| Reply::Code(ResponseCode::ServFail), true),
        (|| Reply::Code(ResponseCode::Refused), true),
        (|| Reply::Silence, false),
    ];
    for (broken, at_once) in broken {
        let (zone, resolver) = dns(OPEN).await;
        zone.answers(|host, kind| match kind {
            RecordType::A => Reply::Records(vec![a(host, 0, "192.0.2.1")]),
            _ => Reply::Records(vec![record(
                host,
                0,
                RData::SRV(SRV::new(1, 1, 5070, name("h.example"))),
            )]),
        });
        let before = resolver.texts("c.example").await;
        assert_eq!(before, Ok(vec!["192.0.2.1:5070".to_owned()]));
        zone.answers(move |_, _| broken());
        assert_eq!(resolver.texts("c.example").await, before);
        let asked = zone.asked().len();
        assert_eq!(resolver.texts("c.example").await, before);
        // Silence is known to be one only when the last attempt is over.
        let quiet = !at_once || zone.asked().len() == asked;
        assert!(quiet, "a name server that fails is not asked at every call");
    }
}

#[tokio::test]
async fn a_failure_is_remembered_for_a_while() {
    let (zone, resolver) = dns(OPEN).await;
    zone.answers(|_, _| Reply::Code(ResponseCode::ServFail));
    let literal = |port| resolver.of("c.example", Some(port), Transport::Udp);
    assert_eq!(literal(5060).await, Err(LocateError::Unavailable));
    let asked = zone.asked().len();
    for _ in 0..10 {
        assert_eq!(literal(5060).await, Err(LocateError::Unavailable));
    }
    assert_eq!(zone.asked().len(), asked);
}

#[tokio::test]
async fn a_name_server_that_knows_no_srv_is_taken_to_have_none() {
    for code in [ResponseCode::ServFail, ResponseCode::NotImp, ResponseCode::Refused] {
        let (zone, resolver) = dns(OPEN).await;
        zone.answers(move |host, kind| match kind {
            RecordType::A => Reply::Records(vec![a(host, 60, "192.0.2.1")]),
            _ => Reply::Code(code),
        });
        let found = resolver.texts("c.example").await;
        assert_eq!(found, Ok(vec!["192.0.2.1:5060".to_owned()]), "{code}");
    }
}

#[tokio::test]
async fn silence_is_over_by_the_deadline() {
    let (zone, resolver) = dns(OPEN).await;
    zone.answers(|_, _| Reply::Silence);
    let resolver = resolver.hurried(Duration::from_millis(50));
    let begun = clock::now();
    assert_eq!(resolver.texts("c.example").await, Err(LocateError::Unavailable));
    assert!(clock::now() - begun < Duration::from_millis(500));
}

#[tokio::test]
async fn a_host_that_is_slow_to_be_found_does_not_keep_the_others_waiting() {
    let (zone, resolver) = dns(OPEN).await;
    zone.answers(|host, kind| match host {
        "two.carrier.example" => Reply::Silence,
        _ => carrier(host, kind),
    });
    let begun = clock::now();
    let found = resolver.texts("carrier.example").await.expect("the first host is there");
    assert_eq!(found, ["192.0.2.1:5070", "192.0.2.11:5070"]);
    assert!(clock::now() - begun < Duration::from_millis(1500));
}

#[tokio::test]
async fn chains_of_aliases_are_followed_and_loops_are_not() {
    let (zone, resolver) = dns(OPEN).await;
    zone.answers(|host, kind| match (host, kind) {
        ("alias.example", _) => Reply::Records(vec![cname(host, "real.example")]),
        ("real.example", RecordType::A) => Reply::Records(vec![a(host, 60, "192.0.2.1")]),
        ("loop.example", _) => Reply::Records(vec![cname(host, "pool.example")]),
        ("pool.example", _) => Reply::Records(vec![cname(host, "loop.example")]),
        _ => Reply::Code(ResponseCode::NXDomain),
    });
    let alias = resolver.of("alias.example", Some(5060), Transport::Udp).await;
    assert_eq!(alias, Ok(vec!["192.0.2.1:5060".to_owned()]));
    assert!(resolver.of("loop.example", Some(5060), Transport::Udp).await.is_err());
    assert!(zone.asked().len() < 40, "{:?}", zone.asked());
}

#[tokio::test]
async fn a_thousand_records_are_sixteen_targets_at_most() {
    let (zone, resolver) = dns(OPEN).await;
    zone.answers(|host, kind| match kind {
        RecordType::SRV => {
            let hosts = (0..1000u16).map(|n| srv(host, n / 4, n, 5060, &format!("h{n}.example")));
            Reply::Records(hosts.collect())
        }
        RecordType::A => Reply::Records(
            (1..=20)
                .map(|last| record(host, 60, RData::A(A(Ipv4Addr::new(10, 0, 0, last)))))
                .collect(),
        ),
        _ => Reply::Code(ResponseCode::NXDomain),
    });
    assert_eq!(resolver.texts("many.example").await.expect("found").len(), MAX_TARGETS);
    assert!(zone.asked().len() <= 2 + MAX_TARGETS, "{:?}", zone.asked());
}

#[tokio::test]
async fn addresses_that_must_not_be_sent_to_are_no_targets() {
    let closed = Policy { allow_private: false, ..OPEN };
    let (zone, resolver) = dns(closed).await;
    zone.answers(|host, kind| match (host, kind) {
        ("mixed.example", RecordType::A) => Reply::Records(
            ["127.0.0.1", "10.0.0.1", "0.0.0.0", "169.254.169.254", "9.9.9.9"]
                .map(|address| a(host, 60, address))
                .to_vec(),
        ),
        ("inside.example", RecordType::A) => Reply::Records(vec![a(host, 60, "192.168.1.1")]),
        _ => Reply::Code(ResponseCode::NXDomain),
    });
    assert_eq!(resolver.texts("mixed.example").await, Ok(vec!["9.9.9.9:5060".to_owned()]));
    assert_eq!(resolver.texts("inside.example").await, Err(LocateError::Forbidden));
    assert_eq!(resolver.texts("127.0.0.1").await, Err(LocateError::Forbidden));
    assert_eq!(resolver.texts("localhost").await, Err(LocateError::Forbidden));
    let before = zone.asked().len();
    assert_eq!(resolver.texts("0x7f000001").await, Err(LocateError::BadName));
    assert_eq!(zone.asked().len(), before, "nothing is asked for a name that is none");
}

#[tokio::test]
async fn both_families_are_asked_for_when_both_are_in_use() {
    let (zone, resolver) = dns(Policy { ipv6: true, ..OPEN }).await;
    zone.answers(|host, kind| match kind {
        RecordType::A => Reply::Records(vec![a(host, 60, "192.0.2.1"), a(host, 60, "192.0.2.2")]),
        RecordType::AAAA => {
            let address = "2001:db8::1".parse().expect("an address");
            Reply::Records(vec![record(host, 60, RData::AAAA(AAAA(address)))])
        }
        _ => Reply::Code(ResponseCode::NXDomain),
    });
    let expected = ["192.0.2.1:5060", "[2001:db8::1]:5060", "192.0.2.2:5060"];
    assert_eq!(resolver.texts("c.example").await, Ok(expected.map(str::to_owned).to_vec()));
}

#[tokio::test]
async fn forged_answers_are_not_believed() {
    let (zone, resolver) = dns(OPEN).await;
    zone.answers(|host, kind| match kind {
        RecordType::A => Reply::Forged(vec![a(host, 60, "192.0.2.1")]),
        _ => Reply::Code(ResponseCode::NXDomain),
    });
    let found = resolver.of("c.example", Some(5060), Transport::Udp).await;
    assert!(
        matches!(&found, Ok(found) if found == &["192.0.2.1:5060"])
            || found == Err(LocateError::Unavailable),
        "{found:?}"
    );
}

#[tokio::test]
async fn a_name_without_any_address_has_none() {
    let (zone, resolver) = dns(OPEN).await;
    zone.answers(|_, _| Reply::Records(Vec::new()));
    assert_eq!(resolver.texts("c.example").await, Err(LocateError::NoAddress));
    zone.answers(|_, _| Reply::Code(ResponseCode::NXDomain));
    assert_eq!(resolver.texts("d.example").await, Err(LocateError::NoAddress));
}
