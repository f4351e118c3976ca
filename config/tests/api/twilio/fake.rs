//! A server with the shapes of Twilio's REST API: paths, form fields, statuses and bodies as its public
//! reference describes them. It keeps what it is told, and fails where it is told to.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode};
use axum::response::Response;
use serde_json::{Map, Value, json};
use tokio::sync::Notify;

/// The account and what opens it, as Basic credentials.
pub(crate) const SID: &str = "AC00000000000000000000000000000001";
pub(crate) const TOKEN: &str = "canary-token";

/// How a request fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mishap {
    /// It is never answered, and nothing was done.
    Unheard,
    /// It is never answered, and it was done.
    Unanswered,
    /// It is answered with this status and error code, and nothing was done.
    Status(u16, u64),
}

/// A request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) fields: Map<String, Value>,
}

#[derive(Default)]
struct World {
    asked: Vec<Asked>,
    for_sale: Vec<&'static str>,
    /// Everything there is: kind, parent's SID, and the thing itself.
    things: Vec<(&'static str, String, Value)>,
    /// Which request fails, counted from 0, and how.
    mishap: Option<(usize, Mishap)>,
    /// The account is refused.
    shut: bool,
}

/// The server. It runs on a thread of its own, so that it outlives what is killed in a test.
#[derive(Clone)]
pub(crate) struct Fake {
    pub(crate) url: String,
    world: Arc<Mutex<World>>,
    /// Rung when a request is left without an answer.
    pub(crate) silent: Arc<Notify>,
}

impl Fake {
    pub(crate) fn start() -> Self {
        let world = Arc::new(Mutex::new(World {
            for_sale: vec!["+14155550100", "+14155550101"],
            ..World::default()
        }));
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address: SocketAddr = listener.local_addr().unwrap();
        let fake =
            Self { url: format!("http://{address}"), world, silent: Arc::new(Notify::new()) };
        let router = Router::new().fallback(answer).with_state(fake.clone());
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                axum::serve(listener, router).await.unwrap();
            });
        });
        fake
    }

    /// The request after `skip` others fails like this, and only it.
    pub(crate) fn fail(&self, skip: usize, mishap: Mishap) {
        let mut world = self.world.lock().unwrap();
        world.mishap = Some((world.asked.len() + skip, mishap));
    }

    pub(crate) fn shut(&self, shut: bool) {
        self.world.lock().unwrap().shut = shut;
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.world.lock().unwrap().asked.clone()
    }

    /// Things of a kind.
    pub(crate) fn things(&self, kind: &str) -> Vec<Value> {
        let world = self.world.lock().unwrap();
        let of_kind = world.things.iter().filter(|(is, _, _)| *is == kind);
        of_kind.map(|(_, _, thing)| thing.clone()).collect()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.world.lock().unwrap().things.is_empty()
    }

    /// Somebody else has a number of the same account.
    pub(crate) fn hold(&self, number: &str) {
        let thing = json!({ "sid": "PN0", "phone_number": number, "friendly_name": "other" });
        self.world.lock().unwrap().things.push(("number", String::new(), thing));
    }
}

async fn answer(State(fake): State<Fake>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, 1 << 20).await.unwrap();
    let form = if body.is_empty() { parts.uri.query().unwrap_or("") } else { text(&body) };
    let asked = Asked {
        method: parts.method.clone(),
        path: parts.uri.path().to_owned(),
        fields: fields(form),
    };
    let expected = format!("Basic {}", base64(&format!("{SID}:{TOKEN}")));
    let known = parts.headers.get("authorization").is_some_and(|given| given == &*expected);
    let (mishap, shut) = {
        let mut world = fake.world.lock().unwrap();
        let at = world.asked.len();
        world.asked.push(asked.clone());
        (world.mishap.filter(|(when, _)| *when == at).map(|(_, how)| how), world.shut)
    };
    let (status, body) = match mishap {
        Some(Mishap::Unheard) => return silence(&fake).await,
        Some(Mishap::Status(status, code)) => error(status, code),
        _ if !known || shut => error(401, 20_003),
        _ => fake.world.lock().unwrap().serve(&asked),
    };
    if mishap == Some(Mishap::Unanswered) {
        return silence(&fake).await;
    }
    let body = if body.is_null() { Body::empty() } else { Body::from(body.to_string()) };
    Response::builder().status(StatusCode::from_u16(status).unwrap()).body(body).unwrap()
}

async fn silence(fake: &Fake) -> Response {
    fake.silent.notify_one();
    std::future::pending().await
}

fn error(status: u16, code: u64) -> (u16, Value) {
    let more = format!("https://www.twilio.com/docs/errors/{code}");
    (status, json!({ "code": code, "message": "no", "more_info": more, "status": status }))
}

impl World {
    fn serve(&mut self, asked: &Asked) -> (u16, Value) {
        let account = format!("/2010-04-01/Accounts/{SID}/");
        let path = asked.path.trim_end_matches(".json");
        let field = |name: &str| asked.fields.get(name).and_then(Value::as_str).unwrap_or("");
        let parts: Vec<&str> = match path.strip_prefix(&account) {
            Some(rest) => rest.split('/').collect(),
            None => path.trim_start_matches("/v1/").split('/').collect(),
        };
        match (asked.method.as_str(), parts.as_slice()) {
            ("GET", ["AvailablePhoneNumbers", "US", "Local"]) => self.search(field("AreaCode")),
            ("POST", ["IncomingPhoneNumbers"]) => self.buy(asked),
            ("GET", ["IncomingPhoneNumbers"]) => {
                let wanted = field("PhoneNumber");
                let mut list = self.list("number", "");
                list.retain(|one| one["phone_number"] == wanted);
                (200, json!({ "incoming_phone_numbers": list, "next_page_uri": null }))
            }
            ("POST", ["IncomingPhoneNumbers", sid]) => self.change(sid, field("TrunkSid")),
            ("DELETE", [.., sid]) => self.delete(sid),
            ("POST", ["SIP", "CredentialLists"]) => self.make("credential list", "CL", "", asked),
            ("GET", ["SIP", "CredentialLists"]) => {
                let list = self.list("credential list", "");
                (200, json!({ "credential_lists": list, "next_page_uri": null }))
            }
            ("POST", ["SIP", "CredentialLists", list, "Credentials"]) => {
                self.make("credential", "CR", list, asked)
            }
            ("GET", ["SIP", "CredentialLists", list, "Credentials"]) => {
                (200, json!({ "credentials": self.list("credential", list) }))
            }
            ("POST", ["Trunks"]) => self.make("trunk", "TK", "", asked),
            ("GET", ["Trunks"]) => self.page("trunks", "trunk", ""),
            ("POST", ["Trunks", trunk, "CredentialLists"]) => {
                let sid = field("CredentialListSid");
                let thing = json!({ "sid": sid, "trunk_sid": trunk });
                self.things.push(("trunk's credential list", (*trunk).to_owned(), thing.clone()));
                (201, thing)
            }
            ("GET", ["Trunks", trunk, "CredentialLists"]) => {
                self.page("credential_lists", "trunk's credential list", trunk)
            }
            ("POST", ["Trunks", trunk, "OriginationUrls"]) => {
                self.make("origination", "OU", trunk, asked)
            }
            ("GET", ["Trunks", trunk, "OriginationUrls"]) => {
                self.page("origination_urls", "origination", trunk)
            }
            _ => error(404, 20_404),
        }
    }

    fn search(&self, area: &str) -> (u16, Value) {
        let prefix = format!("+1{area}");
        let free = self.for_sale.iter().filter(|number| number.starts_with(&prefix));
        let list: Vec<Value> = free
            .map(|number| {
                json!({ "friendly_name": number, "phone_number": number, "lata": "722",
                    "locality": "San Francisco", "rate_center": "SNFC CNTRL", "region": "CA",
                    "postal_code": null, "iso_country": "US", "address_requirements": "none",
                    "beta": false,
                    "capabilities": { "voice": true, "SMS": true, "MMS": false } })
            })
            .collect();
        (200, json!({ "available_phone_numbers": list }))
    }

    fn buy(&mut self, asked: &Asked) -> (u16, Value) {
        let number = asked.fields["PhoneNumber"].as_str().unwrap();
        let held = self.list("number", "").iter().any(|one| one["phone_number"] == number);
        if held || !self.for_sale.contains(&number) {
            return error(400, 21_422);
        }
        self.make("number", "PN", "", asked)
    }

    fn change(&mut self, sid: &str, trunk: &str) -> (u16, Value) {
        let found = self.things.iter_mut().find(|(_, _, thing)| thing["sid"] == sid);
        let Some((_, _, thing)) = found else { return error(404, 20_404) };
        thing["trunk_sid"] = json!(trunk);
        (200, thing.clone())
    }

    fn delete(&mut self, sid: &str) -> (u16, Value) {
        let before = self.things.len();
        self.things.retain(|(_, parent, thing)| thing["sid"] != sid && parent != sid);
        if self.things.len() == before { error(404, 20_404) } else { (204, Value::Null) }
    }

    /// Makes a thing of the fields, named as the API returns them.
    fn make(
        &mut self,
        kind: &'static str,
        prefix: &str,
        parent: &str,
        asked: &Asked,
    ) -> (u16, Value) {
        let sid = format!("{prefix}{:032x}", self.asked.len());
        let mut thing = Map::from_iter([("sid".to_owned(), json!(sid))]);
        for (name, value) in asked.fields.iter().filter(|(name, _)| *name != "Password") {
            let mut snake = String::new();
            for letter in name.chars() {
                if letter.is_ascii_uppercase() && !snake.is_empty() {
                    snake.push('_');
                }
                snake.push(letter.to_ascii_lowercase());
            }
            thing.insert(snake, value.clone());
        }
        self.things.push((kind, parent.to_owned(), Value::Object(thing.clone())));
        (201, Value::Object(thing))
    }

    fn list(&self, kind: &str, parent: &str) -> Vec<Value> {
        let of = self.things.iter().filter(|(is, of, _)| *is == kind && of == parent);
        of.map(|(_, _, thing)| thing.clone()).collect()
    }

    fn page(&self, key: &str, kind: &str, parent: &str) -> (u16, Value) {
        let meta = json!({ "page": 0, "next_page_url": null, "key": key });
        (200, json!({ key: self.list(kind, parent), "meta": meta }))
    }
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// Reads `application/x-www-form-urlencoded`.
fn fields(form: &str) -> Map<String, Value> {
    let pairs = form.split('&').filter_map(|pair| pair.split_once('='));
    pairs.map(|(name, value)| (decode(name), json!(decode(value)))).collect()
}

fn decode(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digits = [rest.next().unwrap(), rest.next().unwrap()];
                u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap()
            }
            other => other,
        });
    }
    String::from_utf8(bytes).unwrap()
}

fn base64(text: &str) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(text)
}
