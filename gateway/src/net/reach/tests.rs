//! On loopback, against peers of the test: datagrams, shared connections, and certificates.

use std::collections::HashMap;

use bytes::Bytes;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams,
    SanType, SerialNumber, date_time_ymd,
};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivatePkcs8KeyDer};
use rustls::{RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, UdpSocket};
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::net::Inbound;
use crate::net::resolve::Options;
use crate::net::target::Policy;

const MESSAGE: &str = "OPTIONS sip:a@127.0.0.1 SIP/2.0\r\nVia: SIP/2.0/TCP 127.0.0.1;branch=z9hG4bK1\r\n\
    From: <sip:b@127.0.0.1>;tag=1\r\nTo: <sip:a@127.0.0.1>\r\nCall-ID: 1\r\nCSeq: 1 OPTIONS\r\n\
    Content-Length: 0\r\n\r\n";

/// Reach, and the shard's ends of everything.
struct Shard {
    reach: Reach,
    outbound: Outbound,
    streams: Streams,
    reached: mpsc::Receiver<Reached>,
    inbound: mpsc::Receiver<Inbound>,
}

struct Setting {
    udp: Vec<&'static str>,
    listeners: Listeners,
    trust: Trust,
    limits: Limits,
}

impl Default for Setting {
    fn default() -> Setting {
        Setting {
            udp: Vec::new(),
            listeners: Listeners::default(),
            trust: Trust::new(RootCertStore::empty(), &[]).expect("a provider"),
            limits: Limits::default(),
        }
    }
}

impl Shard {
    fn new(setting: Setting) -> Shard {
        let (inbound_in, inbound) = mpsc::channel(16);
        let (events, reached) = mpsc::channel(2);
        let bound: Vec<SocketAddr> =
            setting.udp.iter().map(|one| one.parse().expect("an address")).collect();
        let sockets: HashMap<_, _> = crate::net::udp::bind_all(&bound).expect("bound");
        let outbound = Outbound::new(sockets);
        let streams = Streams::new(inbound_in, outbound.clone(), 1, Arc::from([]));
        let policy = Policy { ipv4: true, ipv6: true, allow_private: true };
        let nameservers = vec!["127.0.0.1:9".parse().expect("an address")];
        let options = Options { nameservers, policy, seed: [1; 32] };
        let means = Means {
            resolver: Resolver::new(options).expect("a resolver"),
            streams: streams.clone(),
            outbound: outbound.clone(),
            listeners: setting.listeners,
            trust: setting.trust,
            limits: setting.limits,
        };
        Shard { reach: Reach::new(means, events), outbound, streams, reached, inbound }
    }

    async fn connected(&mut self) -> (u64, Result<Connection, ConnectError>) {
        match self.reached.recv().await.expect("an answer") {
            Reached::Connected { ticket, result } => (ticket, result),
            other @ Reached::Located { .. } => panic!("{other:?}"),
        }
    }

    async fn connect(&mut self, target: &Target) -> Result<Connection, ConnectError> {
        self.reach.connect(7, target.clone(), 0);
        let (ticket, result) = self.connected().await;
        assert_eq!(ticket, 7);
        result
    }

    async fn closed(&mut self) -> Flow {
        match self.inbound.recv().await.expect("news") {
            Inbound::Closed { flow, .. } => flow,
            other => panic!("{other:?}"),
        }
    }
}

fn target(transport: Transport, address: SocketAddr) -> Target {
    Target { transport, address, name: "carrier.example".to_owned() }
}

async fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let address = listener.local_addr().expect("bound");
    (listener, address)
}

#[tokio::test]
async fn a_literal_address_is_located_at_once() {
    let mut shard = Shard::new(Setting::default());
    let destination = Destination {
        host: "[::1]".to_owned(),
        port: None,
        transport: Transport::Tls,
        secure: false,
    };
    shard.reach.locate(3, destination);
    let Some(Reached::Located { ticket: 3, result: Ok(targets) }) = shard.reached.recv().await
    else {
        panic!("not located")
    };
    let expected = "[::1]:5061".parse().expect("an address");
    assert_eq!(
        targets,
        [Target { transport: Transport::Tls, address: expected, name: "::1".to_owned() }]
    );
}

/// Sockets that are new do not know yet that they can be written to.
async fn ready(outbound: &Outbound) {
    for one in outbound.udp.values() {
        one.socket.writable().await.expect("a good socket");
    }
}

#[tokio::test]
async fn datagrams_leave_from_the_socket_whose_address_the_flow_names() {
    let mut one = Shard::new(Setting { udp: vec!["127.0.0.1:0"], ..Setting::default() });
    let remote = UdpSocket::bind("127.0.0.1:0").await.expect("bound");
    let there = target(Transport::Udp, remote.local_addr().expect("bound"));
    let Connection { flow, .. } = one.connect(&there).await.expect("at once");
    let port = flow.local.port();
    // The same port on another address: no longer told apart by the port alone.
    let twin: SocketAddr = format!("127.0.0.2:{port}").parse().expect("an address");
    let sockets = crate::net::udp::bind_all(&[twin]).expect("bound");
    let both: HashMap<_, _> = one
        .outbound
        .udp
        .iter()
        .map(|(bound, one)| (*bound, Arc::clone(&one.socket)))
        .chain(sockets)
        .collect();
    let both = Outbound::new(both);
    assert_eq!(both.datagrams_to(there.address), Some(flow));
    for local in [flow.local, twin] {
        ready(&both).await;
        both.send(&Flow { local, ..flow }, Bytes::from_static(b"x")).expect("sent");
        let (_, from) = remote.recv_from(&mut [0; 8]).await.expect("received");
        assert_eq!(from, local);
    }
}

#[tokio::test]
async fn sockets_behind_one_advertised_port_are_told_apart_by_who_sees_them() {
    let advertise: Arc<[config::settings::Advertise]> = Arc::from([config::settings::Advertise {
        peers: "127.0.0.9/32".parse().expect("a network"),
        address: "198.51.100.7".parse().expect("an address"),
    }]);
    let first =
        crate::net::udp::bind_all(&["127.0.0.1:0".parse().expect("an address")]).expect("bound");
    let port = first.keys().next().expect("one").port();
    let wide = format!("127.0.0.3:{port}").parse().expect("an address");
    let sockets =
        first.into_iter().chain(crate::net::udp::bind_all(&[wide]).expect("bound")).collect();
    let outbound = Outbound::advertised(sockets, &advertise);
    let remote = UdpSocket::bind("127.0.0.9:0").await.expect("bound");
    let flow = outbound.datagrams_to(remote.local_addr().expect("bound")).expect("a way");
    assert_eq!(flow.local, format!("198.51.100.7:{port}").parse().expect("an address"));
    ready(&outbound).await;
    outbound.send(&flow, Bytes::from_static(b"x")).expect("sent");
    remote.recv_from(&mut [0; 8]).await.expect("received");
}

#[tokio::test]
async fn a_family_without_sockets_cannot_be_reached() {
    let mut shard = Shard::new(Setting { udp: vec!["127.0.0.1:0"], ..Setting::default() });
    let six = target(Transport::Udp, "[::1]:5060".parse().expect("an address"));
    assert_eq!(shard.connect(&six).await.err(), Some(ConnectError::NoSocket));
}

#[tokio::test]
async fn those_who_ask_for_the_same_share_one_connection_also_while_it_is_opened() {
    let (listener, address) = listener().await;
    let mut shard = Shard::new(Setting::default());
    let there = target(Transport::Tcp, address);
    for ticket in 0..5 {
        shard.reach.connect(ticket, there.clone(), 0);
    }
    let mut flows = Vec::new();
    for _ in 0..5 {
        flows.push(shard.connected().await.1.expect("connected").flow);
    }
    let (_peer, _) = listener.accept().await.expect("accepted");
    flows.dedup();
    assert_eq!((flows.len(), shard.streams.opened(), shard.streams.open()), (1, 1, 0));
    assert_eq!(shard.connect(&there).await.expect("shared").flow, flows[0]);
    shard.reach.connect(9, there, 1);
    let (_, other) = shard.connected().await;
    assert_ne!(other.expect("connected").flow.connection, flows[0].connection, "another profile");
    assert_eq!(shard.streams.opened(), 2);
}

#[tokio::test]
async fn messages_go_both_ways_and_the_end_is_told_after_which_there_is_a_new_connection() {
    let (listener, address) = listener().await;
    let mut shard = Shard::new(Setting::default());
    let there = target(Transport::Tcp, address);
    let Connection { flow, hold } = shard.connect(&there).await.expect("connected");
    let (mut peer, _) = listener.accept().await.expect("accepted");
    shard.outbound.send(&flow, Bytes::from_static(b"hello")).expect("sent");
    let mut heard = [0; 5];
    peer.read_exact(&mut heard).await.expect("heard");
    peer.write_all(MESSAGE.as_bytes()).await.expect("said");
    let Some(Inbound::Message { flow: on, bytes, .. }) = shard.inbound.recv().await else {
        panic!("no message")
    };
    assert_eq!((on, &*bytes), (flow, MESSAGE.as_bytes()));
    drop(peer);
    assert_eq!(shard.closed().await, flow);
    assert!(shard.outbound.send(&flow, Bytes::from_static(b"late")).is_err());
    let again = shard.connect(&there).await.expect("connected again").flow;
    assert_ne!(again.connection, flow.connection);
    drop(hold);
}

#[tokio::test]
async fn the_flow_tells_the_peer_where_we_listen_and_comes_from_there() {
    let (listener, address) = listener().await;
    let ours: SocketAddr = "127.0.0.4:5099".parse().expect("an address");
    let listeners = Listeners { tcp: vec![ours], tls: Vec::new() };
    let mut shard = Shard::new(Setting { listeners, ..Setting::default() });
    let connection = shard.connect(&target(Transport::Tcp, address)).await.expect("connected");
    let (_peer, from) = listener.accept().await.expect("accepted");
    assert_eq!(connection.flow.local, ours);
    assert_eq!(from.ip(), ours.ip());
    assert_ne!(from.port(), ours.port());
}

#[tokio::test]
async fn without_a_listener_the_stream_comes_from_the_address_of_the_datagrams() {
    let (listener, address) = listener().await;
    let mut shard = Shard::new(Setting { udp: vec!["127.0.0.5:0"], ..Setting::default() });
    let connection = shard.connect(&target(Transport::Tcp, address)).await.expect("connected");
    let (_peer, from) = listener.accept().await.expect("accepted");
    assert_eq!(from.ip().to_string(), "127.0.0.5");
    assert_eq!(connection.flow.local, from, "nobody could call back: the port is the connection's");
}

#[tokio::test]
async fn who_does_not_listen_or_not_answer_is_told_apart_and_frees_the_place() {
    let (listener, address) = listener().await;
    let limits =
        Limits { handshake: Duration::from_millis(50), max_connections: 1, ..Limits::default() };
    let mut shard = Shard::new(Setting { limits, ..Setting::default() });
    let silent = target(Transport::Tls, address);
    assert_eq!(shard.connect(&silent).await.err(), Some(ConnectError::HandshakeTimeout));
    assert_eq!(shard.streams.opened(), 0);
    let held = shard.connect(&target(Transport::Tcp, address)).await.expect("connected");
    assert_eq!(shard.connect(&silent).await.err(), Some(ConnectError::NoPlace));
    drop((listener, held));
    let mut fresh = Shard::new(Setting::default());
    let refused = fresh.connect(&target(Transport::Tcp, address)).await;
    assert_eq!(refused.err(), Some(ConnectError::Refused));
}

#[tokio::test]
async fn a_peer_that_speaks_no_tls_is_told_so() {
    let (listener, address) = listener().await;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.write_all(b"SIP/2.0 400 Bad Request\r\n\r\n").await;
        }
    });
    let mut shard = Shard::new(Setting::default());
    let result = shard.connect(&target(Transport::Tls, address)).await;
    assert_eq!(result.err(), Some(ConnectError::Tls(TlsFault::NotTls)));
}

/// An issuer of certificates.
type Issuer = CertifiedIssuer<'static, KeyPair>;

fn issuer(name: &str) -> Issuer {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("signed")
}

/// A server's certificate for these names, with its key.
type Identity = (CertificateDer<'static>, PrivatePkcs8KeyDer<'static>);

fn identity(issuer: Option<&Issuer>, adjust: impl FnOnce(&mut CertificateParams)) -> Identity {
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![dns("carrier.example")];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    adjust(&mut params);
    let key = KeyPair::generate().expect("a key");
    let certificate = match issuer {
        Some(issuer) => params.signed_by(&key, issuer),
        None => params.self_signed(&key),
    };
    (certificate.expect("signed").der().clone(), PrivatePkcs8KeyDer::from(key.serialize_der()))
}

fn dns(name: &str) -> SanType {
    SanType::DnsName(name.try_into().expect("ASCII"))
}

fn uri(uri: &str) -> SanType {
    SanType::URI(uri.try_into().expect("ASCII"))
}

fn names(params: &mut CertificateParams, names: Vec<SanType>) {
    params.subject_alt_names = names;
}

/// A server that shows this certificate to whoever comes.
async fn show((certificate, key): Identity) -> SocketAddr {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key.into())
        .expect("an identity");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let (listener, address) = listener().await;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                if let Ok(mut stream) = acceptor.accept(stream).await {
                    let _ = stream.read(&mut [0; 64]).await;
                }
            });
        }
    });
    address
}

/// What comes of connecting to `host` when it shows a certificate: the customer's words, or "connected".
async fn verdict(trust: &Trust, host: &str, identity: Identity) -> String {
    let address = show(identity).await;
    let mut shard = Shard::new(Setting { trust: trust.clone(), ..Setting::default() });
    let target = Target { transport: Transport::Tls, address, name: host.to_owned() };
    match shard.connect(&target).await {
        Ok(connection) => {
            assert_eq!(connection.flow.transport, Transport::Tls);
            "connected".to_owned()
        }
        Err(why) => {
            assert_eq!(shard.streams.opened(), 0);
            why.to_string()
        }
    }
}

const REVOKED: u64 = 77;

/// Believes `issuer`, which has taken back the certificate with the number [`REVOKED`].
fn trust(issuer: &Issuer) -> Trust {
    let serial = || SerialNumber::from(REVOKED);
    let list = CertificateRevocationListParams {
        this_update: date_time_ymd(2024, 1, 1),
        next_update: date_time_ymd(2096, 1, 1),
        crl_number: SerialNumber::from(1),
        issuing_distribution_point: None,
        revoked_certs: vec![RevokedCertParams {
            serial_number: serial(),
            revocation_time: date_time_ymd(2024, 1, 1),
            reason_code: None,
            invalidity_date: None,
        }],
        key_identifier_method: KeyIdMethod::Sha256,
    };
    let list = list.signed_by(issuer).expect("signed");
    let mut roots = RootCertStore::empty();
    roots.add(issuer.der().clone()).expect("a root");
    let list = CertificateRevocationListDer::from(list.der().to_vec());
    Trust::new(roots, &[list]).expect("a trust")
}

#[tokio::test]
async fn certificates_that_are_good_connect() {
    let ours = issuer("ours");
    let trust = trust(&ours);
    let good: [(&str, Vec<SanType>); 7] = [
        ("carrier.example", vec![dns("carrier.example")]),
        ("Carrier.Example", vec![dns("other.example"), dns("carrier.example")]),
        ("carrier.example.", vec![dns("carrier.example")]),
        ("sbc.carrier.example", vec![dns("*.carrier.example")]),
        ("127.0.0.1", vec![SanType::IpAddress("127.0.0.1".parse().expect("an address"))]),
        ("carrier.example", vec![uri("sip:carrier.example")]),
        ("carrier.example", vec![uri("https://carrier.example"), uri("sip:Carrier.Example")]),
    ];
    for (host, san) in good {
        let told = format!("{san:?}");
        let verdict =
            verdict(&trust, host, identity(Some(&ours), |params| names(params, san))).await;
        assert_eq!(verdict, "connected", "{host} {told}");
    }
}

#[tokio::test]
async fn certificates_that_are_not_good_are_refused_in_words() {
    let (ours, theirs) = (issuer("ours"), issuer("theirs"));
    let trust = trust(&ours);
    let of = |adjust: fn(&mut CertificateParams)| identity(Some(&ours), adjust);
    let unknown = "no TLS with the destination: the certificate's issuer is not known";
    let other = |presented: &str| {
        format!(
            "no TLS with the destination: the certificate is for {presented}, not carrier.example"
        )
    };
    let table: Vec<(&str, Identity, String)> = vec![
        ("other issuer", identity(Some(&theirs), |_| {}), unknown.to_owned()),
        ("self-signed", identity(None, |_| {}), unknown.to_owned()),
        (
            "expired",
            of(|params| params.not_after = date_time_ymd(2001, 1, 1)),
            "no TLS with the destination: the certificate has expired".to_owned(),
        ),
        (
            "not yet",
            of(|params| params.not_before = date_time_ymd(2095, 1, 1)),
            "no TLS with the destination: the certificate is not valid yet".to_owned(),
        ),
        ("wrong name", of(|params| names(params, vec![dns("x.example")])), other("x.example")),
        (
            "common name only",
            of(|params| {
                names(params, Vec::new());
                params.distinguished_name.push(DnType::CommonName, "carrier.example");
            }),
            other("no host name"),
        ),
        ("no name", of(|params| names(params, Vec::new())), other("no host name")),
        (
            "wildcards that do not fit",
            of(|params| names(params, vec![dns("*.example"), dns("*.carrier.example")])),
            other("*.carrier.example"),
        ),
        (
            "NUL in the name",
            of(|params| names(params, vec![dns("carrier.example\0.evil.example")])),
            other("no host name"),
        ),
        (
            "NUL in a URI",
            of(|params| names(params, vec![uri("sip:carrier.example\0.evil.example")])),
            other("sip:carrier.example?.evil.example"),
        ),
        (
            "a user's URI",
            of(|params| names(params, vec![uri("sip:me@carrier.example")])),
            other("sip:me@carrier.example"),
        ),
        (
            "an address",
            of(|params| {
                names(params, vec![SanType::IpAddress("127.0.0.1".parse().expect("an address"))]);
            }),
            other("no host name"),
        ),
        (
            "revoked",
            of(|params| params.serial_number = Some(SerialNumber::from(REVOKED))),
            "no TLS with the destination: the certificate has been revoked".to_owned(),
        ),
    ];
    for (case, identity, expected) in table {
        assert_eq!(verdict(&trust, "carrier.example", identity).await, expected, "{case}");
    }
}

#[tokio::test]
async fn a_wildcard_stands_for_one_label_and_a_clients_certificate_for_no_server() {
    let ours = issuer("ours");
    let trust = trust(&ours);
    let wild = identity(Some(&ours), |params| names(params, vec![dns("*.carrier.example")]));
    let two = verdict(&trust, "a.b.carrier.example", wild).await;
    assert!(two.ends_with("is for *.carrier.example, not a.b.carrier.example"), "{two}");
    let named = identity(Some(&ours), |params| names(params, vec![dns("carrier.example")]));
    let literal = verdict(&trust, "127.0.0.1", named).await;
    assert!(literal.ends_with("is for carrier.example, not 127.0.0.1"), "{literal}");
    let client = identity(Some(&ours), |params| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    });
    let client = verdict(&trust, "carrier.example", client).await;
    assert!(
        client.starts_with("no TLS with the destination: the certificate is not usable"),
        "{client}"
    );
}

#[tokio::test]
async fn a_connection_is_shared_only_by_those_who_want_the_same_name() {
    let ours = issuer("ours");
    let both =
        identity(Some(&ours), |params| names(params, vec![dns("a.example"), dns("b.example")]));
    let address = show(both).await;
    let mut shard = Shard::new(Setting { trust: trust(&ours), ..Setting::default() });
    let mut of = async |name: &str| {
        let target = Target { transport: Transport::Tls, address, name: name.to_owned() };
        shard.connect(&target).await.map(|connection| connection.flow.connection)
    };
    let (a, b) = (of("a.example").await, of("b.example").await);
    assert!(a.is_ok() && b.is_ok() && a != b);
    assert_eq!(of("a.example").await, a);
    assert!(of("c.example").await.is_err());
}
