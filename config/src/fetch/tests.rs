//! Hostile URLs, hostile names, hostile servers.
//!
//! On one machine everything is loopback, so most tests take 127.0.0.1 for the internet and
//! 127.0.0.2 for the inside: a canary listens there and counts whoever comes.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::*;

const INTERNET: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 1);
const INSIDE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// A server that answers each request with what `answer` makes of its head.
struct Site {
    address: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
    connections: Arc<AtomicUsize>,
}

impl Site {
    async fn start(at: Ipv4Addr, answer: fn(&str, SocketAddr) -> Vec<u8>) -> Self {
        Self::on(SocketAddr::from((at, 0)), answer).await
    }

    async fn on(at: SocketAddr, answer: fn(&str, SocketAddr) -> Vec<u8>) -> Self {
        let listener = TcpListener::bind(at).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (heads, connections) = (Arc::default(), Arc::<AtomicUsize>::default());
        let (kept, counted) = (Arc::clone(&heads), Arc::clone(&connections));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(serve(stream, Arc::clone(&kept), answer, address));
            }
        });
        Self { address, heads, connections }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }
}

async fn serve(
    mut stream: TcpStream,
    heads: Arc<Mutex<Vec<String>>>,
    answer: fn(&str, SocketAddr) -> Vec<u8>,
    address: SocketAddr,
) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let Ok(byte) = stream.read_u8().await else { return };
        head.push(byte);
    }
    let head = String::from_utf8(head).unwrap().to_lowercase();
    heads.lock().unwrap().push(head.clone());
    let _ = stream.write_all(&answer(&head, address)).await;
    if head.contains("/stall") {
        std::future::pending::<()>().await;
    }
}

fn plain(_: &str, _: SocketAddr) -> Vec<u8> {
    reply("200 OK", "content-type: text/html; charset=utf-8\r\n", b"hello")
}

fn reply(status: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status}\r\n{headers}content-length: {length}\r\nconnection: close\r\n\r\n"
    );
    [head.as_bytes(), body].concat()
}

fn redirect(status: &str, to: &str) -> Vec<u8> {
    reply(status, &format!("location: {to}\r\n"), b"")
}

/// Settings under which ports of this machine can be reached at all.
fn open() -> FetchSettings {
    FetchSettings {
        allow_plain_http: true,
        allow_any_port: true,
        max_body_bytes: 100_000,
        timeout_seconds: 5,
        ..FetchSettings::default()
    }
}

/// A client for which 127.0.0.1 is the internet, and names lead where `lookup` says.
fn fetcher(settings: &FetchSettings, lookup: fn(&str) -> Vec<IpAddr>) -> Fetcher {
    let lookup: Lookup = Arc::new(move |name| Box::pin(async move { Ok(lookup(&name)) }));
    Fetcher::with(settings, lookup, Arc::new(|address| address == IpAddr::V4(INTERNET))).unwrap()
}

fn nowhere(_: &str) -> Vec<IpAddr> {
    Vec::new()
}

#[tokio::test]
async fn a_page_is_fetched_with_nothing_of_ours_along() {
    let site = Site::start(INTERNET, plain).await;
    let reply = fetcher(&open(), nowhere).fetch(FetchRequest::get(site.url("/a?b=c#d"))).await;
    let reply = reply.unwrap();
    assert_eq!((reply.status.as_u16(), &*reply.text()), (200, "hello"));
    assert_eq!(reply.content_type(), "text/html");
    let head = &site.heads()[0];
    assert!(head.starts_with("get /a?b=c http/1.1\r\n"), "{head}");
    assert!(head.contains("\r\nuser-agent: trunkline-fetch/"), "{head}");
    assert!(head.contains("\r\naccept-encoding: identity\r\n"), "{head}");
    for ours in ["cookie", "authorization", "referer", "proxy"] {
        assert!(!head.contains(ours), "{head}");
    }
}

#[tokio::test]
async fn an_error_status_is_a_reply() {
    let site = Site::start(INTERNET, |_, _| reply("404 Not Found", "", b"{}")).await;
    let reply = fetcher(&open(), nowhere).fetch(FetchRequest::get(site.url("/"))).await.unwrap();
    assert_eq!((reply.status.as_u16(), &*reply.text()), (404, "{}"));
}

/// Every way to write an IPv4 address into a URL that some parser has been known to accept.
fn spellings(address: Ipv4Addr) -> Vec<String> {
    let [a, b, c, d] = address.octets();
    let number = u32::from(address);
    let low = number & 0x00FF_FFFF;
    let wide = |text: String| -> String {
        text.chars()
            .map(|c| match c {
                '0'..='9' => char::from_u32(u32::from(c) - 0x30 + 0xFF10).unwrap(),
                '.' => '\u{3002}',
                other => other,
            })
            .collect()
    };
    vec![
        format!("{address}"),
        format!("{address}."),
        format!("{number}"),
        format!("{number:#x}"),
        format!("0{number:o}"),
        format!("{a:#x}.{b:#x}.{c:#x}.{d:#x}"),
        format!("0{a:o}.0{b:o}.0{c:o}.0{d:o}"),
        format!("{a}.{low}"),
        format!("{a:#x}.{low:#x}"),
        wide(format!("{address}")),
        format!("{a}%2E{b}%2e{c}.{d}"),
        format!("%{:02X}{}", address.to_string().as_bytes()[0], &address.to_string()[1..]),
        format!("[::ffff:{address}]"),
        format!("[::ffff:{:x}:{:x}]", number >> 16, number & 0xFFFF),
        format!("[::{address}]"),
        format!("[64:ff9b::{address}]"),
        format!("[2002:{:x}:{:x}::1]", number >> 16, number & 0xFFFF),
        format!("user:password@{address}"),
        format!("@{address}"),
        format!("8.8.8.8@{address}"),
    ]
}

#[tokio::test]
async fn no_spelling_of_an_inside_address_is_fetched() {
    // The real rule, and a resolver that would lead every name to the inside.
    let settings = FetchSettings { allow_plain_http: true, ..FetchSettings::default() };
    let lookup: Lookup = Arc::new(|_| Box::pin(async { Ok(vec![IpAddr::V4(INSIDE)]) }));
    let fetcher = Fetcher::with(&settings, lookup, Arc::new(guard::is_public)).unwrap();
    let mut tried = 0;
    for address in
        ["127.0.0.2", "169.254.169.254", "10.0.0.1", "100.64.0.1", "192.168.1.1", "0.0.0.0"]
    {
        for host in spellings(address.parse().unwrap()) {
            for scheme in ["http", "https"] {
                let url = format!("{scheme}://{host}/latest/meta-data/");
                let outcome = fetcher.fetch(FetchRequest::get(&url)).await;
                let why = outcome.expect_err(&url);
                assert!(
                    matches!(
                        why,
                        FetchError::NotPublic | FetchError::BadUrl | FetchError::Credentials
                    ),
                    "{url}: {why:?}"
                );
                tried += 1;
            }
        }
    }
    assert!(tried >= 120, "{tried}");
}

#[tokio::test]
async fn what_is_no_public_web_address_is_refused_before_anyone_is_asked() {
    use FetchError::{BadUrl, Credentials, NotPublic, Port, Scheme};
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    let lookup: Lookup = Arc::new(move |_| {
        counted.fetch_add(1, Ordering::Relaxed);
        Box::pin(async { Ok(Vec::new()) })
    });
    let fetcher =
        Fetcher::with(&FetchSettings::default(), lookup, Arc::new(guard::is_public)).unwrap();
    let long = format!("https://example.com/{}", "x".repeat(2_100));
    for (url, why) in [
        ("", BadUrl),
        ("example.com", BadUrl),
        ("/etc/passwd", BadUrl),
        ("//example.com/", BadUrl),
        ("https:example.com", BadUrl),
        ("https:/example.com", BadUrl),
        ("https:///example.com", BadUrl),
        ("https://", BadUrl),
        ("https://exa mple.com/", BadUrl),
        ("https://example.com/\r\nx: y", BadUrl),
        ("https://example.com\\@10.0.0.1/", BadUrl),
        ("\u{a0}https://example.com/", BadUrl),
        ("https://exam\tple.com/", BadUrl),
        ("https://[fe80::1%25eth0]/", BadUrl),
        ("https://[::1/", BadUrl),
        ("https://1.2.3.4.5/", BadUrl),
        ("https://256.1.1.1/", BadUrl),
        ("https://example.com:99999/", BadUrl),
        (long.as_str(), BadUrl),
        ("http://example.com/", Scheme),
        ("ftp://example.com/", Scheme),
        ("file:///etc/passwd", BadUrl),
        ("gopher://example.com/", Scheme),
        ("javascript://example.com/%0aalert(1)", Scheme),
        ("https://user@example.com/", Credentials),
        ("https://:secret@example.com/", Credentials),
        ("https://example.com@127.0.0.1/", Credentials),
        ("https://example.com:22/", Port),
        ("https://example.com:8443/", Port),
        ("https://example.com:0/", Port),
        ("https://[::]/", NotPublic),
        ("https://[::1]/", NotPublic),
        ("https://[fe80::1]/", NotPublic),
        ("https://[fd00:ec2::254]/", NotPublic),
        ("https://[ff02::1]/", NotPublic),
        ("https://[2001:db8::1]/", NotPublic),
        ("https://0/", NotPublic),
        ("https://127.1/", NotPublic),
        ("https://255.255.255.255/", NotPublic),
        ("https://224.0.0.1/", NotPublic),
    ] {
        assert_eq!(fetcher.fetch(FetchRequest::get(url)).await.unwrap_err(), why, "{url:.60}");
        assert_eq!(fetcher.check_url(url), Err(why), "{url:.60}");
    }
    assert_eq!(asked.load(Ordering::Relaxed), 0);
    assert_eq!(fetcher.check_url("https://example.com/hook?x=1"), Ok(()));
    assert_eq!(fetcher.check_url("https://bücher.example/"), Ok(()));
    assert_eq!(fetcher.check_site("http://example.com/"), Ok(()));
}

#[tokio::test]
async fn a_name_that_leads_inside_is_refused_whole() {
    let canary = Site::start(INSIDE, plain).await;
    let port = canary.address.port();
    for lookup in [
        (|_| vec![INSIDE.into()]) as fn(&str) -> Vec<IpAddr>,
        |_| vec![INTERNET.into(), INSIDE.into()],
        |_| vec!["::1".parse().unwrap()],
        |_| Vec::new(),
    ] {
        let request = FetchRequest::get(format!("http://inside.example:{port}/"));
        let outcome = fetcher(&open(), lookup).fetch(request).await;
        assert_eq!(outcome.unwrap_err(), FetchError::NotPublic);
    }
    assert_eq!(canary.connections(), 0);
}

#[tokio::test]
async fn a_name_that_changes_its_mind_is_believed_only_where_it_was_judged() {
    let site = Site::start(INTERNET, plain).await;
    let canary = Site::on((INSIDE, site.address.port()).into(), plain).await;
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    let lookup: Lookup = Arc::new(move |_| {
        let turn = counted.fetch_add(1, Ordering::Relaxed);
        let address = if turn.is_multiple_of(2) { INTERNET } else { INSIDE };
        Box::pin(async move { Ok(vec![IpAddr::V4(address)]) })
    });
    let allowed: Allowed = Arc::new(|address| address == IpAddr::V4(INTERNET));
    let fetcher = Fetcher::with(&open(), lookup, allowed).unwrap();
    let url = format!("http://rebinding.example:{}/", site.address.port());
    for turn in 0..6 {
        let outcome = fetcher.fetch(FetchRequest::get(&url)).await;
        let wanted = if turn % 2 == 0 { None } else { Some(FetchError::NotPublic) };
        assert_eq!(outcome.err(), wanted, "{turn}");
    }
    // One look-up for one connection: there is none between the check and the use.
    assert_eq!((asked.load(Ordering::Relaxed), site.connections()), (6, 3));
    assert_eq!(canary.connections(), 0);
}

#[tokio::test]
async fn redirects_are_judged_like_the_first_url() {
    fn answer(head: &str, me: SocketAddr) -> Vec<u8> {
        let path = head.split(' ').nth(1).unwrap_or_default();
        let inside = format!("{INSIDE}:{}", me.port());
        match path {
            "/1" => redirect("302 Found", "/2"),
            "/2" => redirect("301 Moved", "3?x=y"),
            "/3?x=y" => redirect("308 Permanent Redirect", &format!("http://{me}/end")),
            "/4" => redirect("307 Temporary Redirect", "/1"),
            "/loop" => redirect("302 Found", "/loop"),
            "/inside" => redirect("302 Found", &format!("http://{inside}/")),
            "/scheme-relative" => redirect("302 Found", &format!("//{inside}/")),
            "/decimal" => {
                redirect("302 Found", &format!("http://{}:{}/", u32::from(INSIDE), me.port()))
            }
            "/named" => redirect("302 Found", &format!("http://inside.example:{}/", me.port())),
            "/file" => redirect("302 Found", "file:///etc/passwd"),
            "/userinfo" => redirect("302 Found", &format!("http://a:b@{me}/end")),
            "/backslash" => redirect("302 Found", &format!("http://{me}\\@{inside}/")),
            _ => reply("200 OK", "", b"end"),
        }
    }
    let site = Site::start(INTERNET, answer).await;
    let canary = Site::on((INSIDE, site.address.port()).into(), plain).await;
    let fetcher = fetcher(&open(), |_| vec![INSIDE.into()]);
    let get = async |path: &str| fetcher.fetch(FetchRequest::get(site.url(path))).await;
    let reply = get("/1").await.unwrap();
    assert_eq!((&*reply.text(), &reply.url), ("end", &site.url("/end")));
    for (path, why) in [
        ("/4", FetchError::TooManyRedirects),
        ("/loop", FetchError::TooManyRedirects),
        ("/inside", FetchError::NotPublic),
        ("/scheme-relative", FetchError::NotPublic),
        ("/decimal", FetchError::NotPublic),
        ("/named", FetchError::NotPublic),
        ("/file", FetchError::BadUrl),
        ("/userinfo", FetchError::Credentials),
        ("/backslash", FetchError::BadUrl),
    ] {
        assert_eq!(get(path).await.unwrap_err(), why, "{path}");
    }
    assert_eq!(canary.connections(), 0);
}

#[tokio::test]
async fn a_post_is_not_redirected_unless_it_is_asked_for() {
    fn answer(head: &str, me: SocketAddr) -> Vec<u8> {
        let other = format!("http://other.example:{}/end", me.port());
        match head.split(' ').nth(1).unwrap_or_default() {
            "/303" => redirect("303 See Other", "/end"),
            "/307" => redirect("307 Temporary Redirect", "/end"),
            "/other" => redirect("307 Temporary Redirect", &other),
            _ => reply("200 OK", "", b"end"),
        }
    }
    let site = Site::start(INTERNET, answer).await;
    let fetcher = fetcher(&open(), |_| vec![INTERNET.into()]);
    let post = |path: &str| {
        FetchRequest::post(site.url(path), HeaderValue::from_static("text/plain"), "body")
            .header(header::AUTHORIZATION, HeaderValue::from_static("Bearer canary"))
    };
    assert_eq!(fetcher.fetch(post("/303")).await.unwrap().status.as_u16(), 303);
    for (path, line, keeps_key) in [
        ("/303", "get /end http/1.1", true),
        ("/307", "post /end http/1.1", true),
        ("/other", "post /end http/1.1", false),
    ] {
        assert_eq!(fetcher.fetch(post(path).following(3)).await.unwrap().text(), "end");
        let head = site.heads().pop().unwrap();
        assert!(head.starts_with(line), "{path}: {head}");
        assert_eq!(head.contains("bearer canary"), keeps_key, "{path}: {head}");
        assert_eq!(head.contains("content-length: 4"), line.starts_with("post"), "{head}");
    }
}

#[tokio::test]
async fn headers_that_frame_the_message_and_odd_methods_are_refused() {
    let fetcher = fetcher(&open(), nowhere);
    for name in ["host", "content-length", "transfer-encoding", "connection", "proxy-connection"] {
        let name = axum::http::HeaderName::from_static(name);
        let request = FetchRequest::get("http://127.0.0.1/");
        let request = request.header(name, HeaderValue::from_static("x"));
        assert_eq!(fetcher.fetch(request).await.unwrap_err(), FetchError::Header);
    }
    for method in [axum::http::Method::CONNECT, axum::http::Method::TRACE] {
        let request = FetchRequest::new(method, "http://127.0.0.1/");
        assert_eq!(fetcher.fetch(request).await.unwrap_err(), FetchError::Method);
    }
}

#[tokio::test]
async fn bodies_end_at_the_limit_whatever_is_promised() {
    fn answer(head: &str, _: SocketAddr) -> Vec<u8> {
        match head.split(' ').nth(1).unwrap_or_default() {
            "/declared" => b"HTTP/1.1 200 OK\r\ncontent-length: 1073741824\r\n\r\n".to_vec(),
            "/until-close" => [b"HTTP/1.1 200 OK\r\n\r\n".to_vec(), vec![b'x'; 200_000]].concat(),
            "/chunked" => {
                let head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
                let chunk = [b"4000\r\n".to_vec(), vec![b'x'; 0x4000], b"\r\n".to_vec()].concat();
                [head, chunk.repeat(9)].concat()
            }
            "/gzip" => reply("200 OK", "content-encoding: gzip\r\n", &[0x1F, 0x8B, 8, 0]),
            _ => reply("200 OK", "", &vec![b'x'; 100_000]),
        }
    }
    let site = Site::start(INTERNET, answer).await;
    let fetcher = fetcher(&open(), nowhere);
    let get = |path: &str| fetcher.fetch(FetchRequest::get(site.url(path)));
    assert_eq!(get("/").await.unwrap().body.len(), 100_000);
    assert_eq!(get("/declared").await.unwrap_err(), FetchError::TooLarge);
    assert_eq!(get("/until-close").await.unwrap_err(), FetchError::TooLarge);
    assert_eq!(get("/chunked").await.unwrap_err(), FetchError::TooLarge);
    assert_eq!(get("/gzip").await.unwrap_err(), FetchError::Encoded);
    let within = |bytes: usize| FetchRequest::get(site.url("/")).at_most(bytes);
    assert_eq!(fetcher.fetch(within(99_999)).await.unwrap_err(), FetchError::TooLarge);
    assert_eq!(fetcher.fetch(within(100_000)).await.unwrap().body.len(), 100_000);
    let until_close = FetchRequest::get(site.url("/until-close")).at_most(200_000);
    let longer = fetcher.fetch(until_close).await;
    assert_eq!(longer.unwrap_err(), FetchError::TooLarge, "the settings' limit stays");
    let request = FetchRequest::get(site.url("/declared")).status_only();
    assert_eq!(fetcher.fetch(request).await.unwrap().status.as_u16(), 200);
}

#[tokio::test]
async fn only_the_types_that_are_wanted_are_read() {
    fn answer(head: &str, _: SocketAddr) -> Vec<u8> {
        match head.split(' ').nth(1).unwrap_or_default() {
            "/html" => reply("200 OK", "content-type: Text/HTML; charset=x\r\n", b"a"),
            "/error" => reply("404 Not Found", "content-type: image/png\r\n", b"b"),
            "/none" => reply("200 OK", "", b"c"),
            _ => reply("200 OK", "content-type: image/png\r\n", b"d"),
        }
    }
    let site = Site::start(INTERNET, answer).await;
    let fetcher = fetcher(&open(), nowhere);
    let get = |path: &str| fetcher.fetch(FetchRequest::get(site.url(path)).only(&["text/html"]));
    assert_eq!(get("/html").await.unwrap().text(), "a");
    assert_eq!(get("/error").await.unwrap().text(), "b");
    assert_eq!(get("/none").await.unwrap_err(), FetchError::ContentType);
    assert_eq!(get("/image").await.unwrap_err(), FetchError::ContentType);
}

#[tokio::test]
async fn a_server_that_never_finishes_is_left_in_time() {
    fn answer(head: &str, _: SocketAddr) -> Vec<u8> {
        if head.contains("/stall-in-body") {
            return b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc".to_vec();
        }
        Vec::new()
    }
    let site = Site::start(INTERNET, answer).await;
    let fetcher = fetcher(&open(), nowhere);
    for path in ["/stall", "/stall-in-body"] {
        let request = FetchRequest::get(site.url(path)).within(Duration::from_millis(50));
        assert_eq!(fetcher.fetch(request).await.unwrap_err(), FetchError::TimedOut, "{path}");
    }
}

#[tokio::test]
async fn what_goes_wrong_on_the_way_is_told_in_words_without_addresses() {
    let listener = TcpListener::bind((INTERNET, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.write_all(b"SSH-2.0-OpenSSH\r\n\r\n").await;
            // All of it: a connection that is closed with octets unread is reset, and looks broken off.
            let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
        }
    });
    let fetcher = fetcher(&open(), |_| vec![INTERNET.into()]);
    let url = format!("http://{address}/");
    let broken = fetcher.fetch(FetchRequest::get(url)).await.unwrap_err();
    assert_eq!(broken, FetchError::Broken);
    let port = {
        let closed = TcpListener::bind((INTERNET, 0)).await.unwrap();
        closed.local_addr().unwrap().port()
    };
    let url = format!("http://gone.example:{port}/");
    let unreachable = fetcher.fetch(FetchRequest::get(url)).await.unwrap_err();
    assert_eq!(unreachable, FetchError::Unreachable);
    let no_tls = format!("https://plain.example:{}/", address.port());
    let no_tls = fetcher.fetch(FetchRequest::get(no_tls)).await.unwrap_err();
    assert_eq!(no_tls, FetchError::Broken);
    for error in [broken, unreachable, no_tls] {
        assert!(error.is_passing() && !error.to_string().contains("127"), "{error}");
    }
}

#[test]
fn nothing_of_a_request_is_printed_but_its_method() {
    let request = FetchRequest::get("https://h.example/canary")
        .header(header::AUTHORIZATION, HeaderValue::from_static("canary"));
    assert!(!format!("{request:?}").contains("canary"));
}
