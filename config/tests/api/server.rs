//! A server under test, and what one can ask of it.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Method, Request, StatusCode};
use axum::response::Response;
use config::api::{self, Api, ApiOptions, Waiting};
use config::calls::{
    DialRefused, DialRequest, LiveCall, LiveCalls, NoSuchCall, Reserved, TransferRefused,
    TransferRequest,
};
use config::clock::{Clock, Timestamp};
use config::credential::{Operator, Role, ScopeSet, ScopedTo};
use config::fetch::Fetcher;
use config::ids::{ConversationId, OrganisationId};
use config::jobs::Runner;
use config::journal::{Entry, Journal};
use config::llm::Model;
use config::managed::{Account, Line, Managed, Pool};
use config::model::{
    Conversation, Decision, Direction, Email, InboundConfig, NewApiKey, NewMember,
    NewPersonalToken, NewUser, OutboundConfig,
};
use config::seal::Sealer;
use config::settings::FetchSettings;
use config::store::{Store, StoreOptions};
use config::workflows::Workflows;
use config::workflows::background::{RUN_AFTER_CONVERSATION, RUN_WORKFLOW, RunWorkflow};
use serde_json::{Value, json};
use tower::ServiceExt as _;

use crate::engine::Echo;

/// How long a PostgreSQL server that many tests share may keep one waiting, in milliseconds.
const BUSY_SERVER_MS: u64 = 4_000;

/// A reply, read whole.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Reply {
    /// The body as JSON; an empty body, and one that says it is text, are `null`.
    pub(crate) fn json(&self) -> Value {
        let kind = self.headers.get("content-type").map_or(&b""[..], |kind| kind.as_bytes());
        if self.text.is_empty() || kind.starts_with(b"text/plain") {
            return Value::Null;
        }
        serde_json::from_str(&self.text).unwrap_or_else(|why| panic!("{why}: {}", self.text))
    }

    /// The body, when the status is the one that is expected.
    #[track_caller]
    pub(crate) fn is(self, status: u16) -> Value {
        assert_eq!(self.status.as_u16(), status, "{}", self.text);
        self.json()
    }

    /// The places of a 422's violations, as `body.name`.
    #[track_caller]
    pub(crate) fn places(self) -> Vec<String> {
        let body = self.is(422);
        let all = body["detail"].as_array().unwrap_or_else(|| panic!("{body}"));
        let place = |violation: &Value| {
            let parts = violation["loc"].as_array().unwrap().iter();
            let words = parts.map(|p| p.as_str().map_or(p.to_string(), str::to_owned));
            words.collect::<Vec<_>>().join(".")
        };
        all.iter().map(place).collect()
    }
}

/// A gateway that notes what it is asked and does as it is told.
#[derive(Debug, Default)]
pub(crate) struct Switchboard {
    /// Calls it was asked to place.
    pub(crate) dialled: Arc<Mutex<Vec<DialRequest>>>,
    /// Calls that are up, and it was asked to end.
    pub(crate) hung_up: Mutex<Vec<ConversationId>>,
    /// Calls it was asked to hand on.
    pub(crate) transferred: Mutex<Vec<(ConversationId, TransferRequest)>>,
    /// Calls that are up.
    pub(crate) up: Arc<Mutex<Vec<(OrganisationId, ConversationId)>>>,
    /// What it says to the next calls.
    pub(crate) refusal: Mutex<Option<DialRefused>>,
    /// What it says to the next transfers of calls that are up.
    pub(crate) transfer_refusal: Mutex<Option<TransferRefused>>,
    /// Whether it takes no new calls.
    pub(crate) draining: Mutex<bool>,
}

/// A place for one more call.
struct Place {
    dialled: Arc<Mutex<Vec<DialRequest>>>,
    up: Arc<Mutex<Vec<(OrganisationId, ConversationId)>>>,
}

impl Reserved for Place {
    fn dial(self: Box<Self>, request: DialRequest) {
        self.up.lock().unwrap().push((request.organisation, request.conversation.id));
        self.dialled.lock().unwrap().push(request);
    }
}

impl LiveCalls for Switchboard {
    fn live(&self) -> usize {
        self.up.lock().unwrap().len()
    }

    fn draining(&self) -> bool {
        *self.draining.lock().unwrap()
    }

    fn list(&self, _organisation: OrganisationId) -> Vec<LiveCall> {
        Vec::new()
    }

    fn reserve(
        &self,
        _organisation: OrganisationId,
        _id: ConversationId,
    ) -> Result<Box<dyn Reserved>, DialRefused> {
        let refusal = *self.refusal.lock().unwrap();
        let place = Place { dialled: Arc::clone(&self.dialled), up: Arc::clone(&self.up) };
        refusal.map_or_else(|| Ok(Box::new(place) as Box<dyn Reserved>), Err)
    }

    fn hang_up(&self, organisation: OrganisationId, id: ConversationId) -> Result<(), NoSuchCall> {
        if !self.up.lock().unwrap().contains(&(organisation, id)) {
            return Err(NoSuchCall);
        }
        self.hung_up.lock().unwrap().push(id);
        Ok(())
    }

    fn transfer(
        &self,
        organisation: OrganisationId,
        id: ConversationId,
        request: TransferRequest,
    ) -> Result<(), TransferRefused> {
        if !self.up.lock().unwrap().contains(&(organisation, id)) {
            return Err(TransferRefused::NoSuchCall);
        }
        if let Some(refusal) = *self.transfer_refusal.lock().unwrap() {
            return Err(refusal);
        }
        self.transferred.lock().unwrap().push((id, request));
        Ok(())
    }
}

/// Three numbers of San Francisco and one of New York, on the operator's carrier.
pub(crate) fn pool() -> Pool {
    let numbers = ["+14155550100", "+14155550101", "+14155550102", "+12125550100"];
    let outbound = OutboundConfig::to("carrier.example.net", "operator", "canary".into());
    let line = Line { inbound: InboundConfig::default(), outbound };
    Pool::new(numbers.map(|number| number.parse().unwrap()), "US", line)
}

/// The API over a store of its own, with one organisation.
pub(crate) struct Server {
    pub(crate) router: Router,
    pub(crate) store: Store,
    /// The gateway behind it.
    pub(crate) calls: Arc<Switchboard>,
    pub(crate) organisation: OrganisationId,
    /// The key of the organisation; it is the operator's too.
    pub(crate) key: String,
    /// The runs that requests wait for.
    pub(crate) waiting: Waiting,
    /// Microseconds that its clock is ahead of the machine's.
    ahead: Arc<AtomicI64>,
}

/// Judges web addresses as a node does whose settings say nothing.
fn fetcher() -> Fetcher {
    Fetcher::new(&FetchSettings::default()).unwrap()
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::with(ApiOptions::default()).await
    }

    pub(crate) async fn with(options: ApiOptions) -> Self {
        let url = crate::postgres::schema().await;
        Self::over(url.as_deref().unwrap_or("sqlite::memory:"), options).await
    }

    pub(crate) async fn over(url: &str, options: ApiOptions) -> Self {
        Self::equipped(url, options, (fetcher(), None)).await
    }

    /// With somebody who writes texts.
    pub(crate) async fn with_model(options: ApiOptions, model: Option<Model>) -> Self {
        Self::equipped("sqlite::memory:", options, (fetcher(), model)).await
    }

    /// With another judge of web addresses.
    pub(crate) async fn with_fetcher(fetcher: Fetcher) -> Self {
        Self::equipped("sqlite::memory:", ApiOptions::default(), (fetcher, None)).await
    }

    async fn equipped(
        url: &str,
        options: ApiOptions,
        (fetcher, model): (Fetcher, Option<Model>),
    ) -> Self {
        let ahead = Arc::<AtomicI64>::default();
        let (system, offset) = (Clock::system(), Arc::clone(&ahead));
        let now =
            move || Timestamp::from_micros(system.now().micros() + offset.load(Ordering::Relaxed));
        let mut store = StoreOptions::new(Sealer::ephemeral().unwrap(), "sip.example.com");
        store.max_phone_numbers = 20;
        if url.starts_with("postgres") {
            store.busy_budget_ms = BUSY_SERVER_MS;
        }
        store.clock = Clock::from_fn(now);
        let store = Store::open(url, store).await.unwrap();
        let (organisation, key) = store.bootstrap().await.unwrap().unwrap();
        let calls = Arc::new(Switchboard::default());
        let gateway = Arc::clone(&calls) as Arc<dyn LiveCalls>;
        let workflows = Arc::new(Echo);
        let managed = Managed::new(store.clone(), vec![Account::pool(pool())]);
        let waiting = Waiting::default();
        let api = Api {
            store: store.clone(),
            options,
            calls: gateway,
            workflows,
            waiting: waiting.clone(),
            managed,
            fetcher,
            model,
        };
        let (organisation, key) = (organisation.id, key.expose().clone());
        Self { router: api::router(api), store, calls, organisation, key, waiting, ahead }
    }

    /// The same server with an engine for workflows.
    pub(crate) fn with_engine(&self, workflows: Arc<dyn Workflows>) -> Self {
        self.rebuilt(workflows, Managed::new(self.store.clone(), Vec::new()))
    }

    /// The same server, whose new organisations are given a number of this country of the pool.
    pub(crate) fn with_first_numbers(&self, country: &str) -> Self {
        let managed = Managed::new(self.store.clone(), vec![Account::pool(pool())]);
        self.rebuilt(Arc::new(Echo), managed.with_first_numbers("pool", country))
    }

    fn rebuilt(&self, workflows: Arc<dyn Workflows>, managed: Managed) -> Self {
        let api = Api {
            store: self.store.clone(),
            options: ApiOptions::default(),
            calls: Arc::clone(&self.calls) as _,
            workflows,
            waiting: self.waiting.clone(),
            managed,
            fetcher: fetcher(),
            model: None,
        };
        Self {
            router: api::router(api),
            store: self.store.clone(),
            calls: Arc::clone(&self.calls),
            organisation: self.organisation,
            key: self.key.clone(),
            waiting: self.waiting.clone(),
            ahead: Arc::clone(&self.ahead),
        }
    }

    /// Lets time pass.
    pub(crate) fn pass(&self, time: Duration) {
        self.ahead.fetch_add(i64::try_from(time.as_micros()).unwrap(), Ordering::Relaxed);
    }

    /// A reply that is not read yet.
    pub(crate) async fn stream(&self, request: Request<Body>) -> Response {
        self.router.clone().oneshot(request).await.unwrap()
    }

    /// Does the jobs that are due.
    pub(crate) async fn run_jobs(&self) {
        let work = Arc::new(RunWorkflow::new(self.store.clone(), Arc::new(Echo)));
        let runner = Runner::new(self.store.clone()).with(RUN_WORKFLOW, Arc::clone(&work) as _);
        runner.with(RUN_AFTER_CONVERSATION, work).run_due().await;
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> Reply {
        let (parts, body) = self.stream(request).await.into_parts();
        if parts.headers.get("content-type").is_some_and(|kind| kind == "text/event-stream") {
            // It has no end; what is in it is for the tests of streams.
            return Reply { status: parts.status, headers: parts.headers, text: String::new() };
        }
        let bytes = to_bytes(body, usize::MAX).await.unwrap();
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        Reply { status: parts.status, headers: parts.headers, text }
    }

    /// A request with a key and a JSON body; `Value::Null` sends no body.
    pub(crate) async fn call(&self, method: Method, path: &str, key: &str, body: &Value) -> Reply {
        self.call_in(method, path, (key, None), body).await
    }

    /// The same, with a credential and the organisation that is named beside it.
    pub(crate) async fn call_in(
        &self,
        method: Method,
        path: &str,
        (key, organisation): (&str, Option<&str>),
        body: &Value,
    ) -> Reply {
        let name = method.to_string();
        let mut request = Request::builder().method(method).uri(path);
        if !key.is_empty() {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        if let Some(organisation) = organisation {
            request = request.header("x-anyreach-org", organisation);
        }
        let body = if body.is_null() { Body::empty() } else { Body::from(body.to_string()) };
        let reply = self.send(request.body(body).unwrap()).await;
        crate::conform::check(&name, path, reply.status.as_u16(), &reply.json());
        reply
    }

    pub(crate) async fn get(&self, path: &str) -> Reply {
        self.call(Method::GET, path, &self.key, &Value::Null).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Reply {
        self.call(Method::POST, path, &self.key, &body).await
    }

    pub(crate) async fn put(&self, path: &str, body: Value) -> Reply {
        self.call(Method::PUT, path, &self.key, &body).await
    }

    pub(crate) async fn patch(&self, path: &str, body: Value) -> Reply {
        self.call(Method::PATCH, path, &self.key, &body).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Reply {
        self.call(Method::DELETE, path, &self.key, &Value::Null).await
    }

    /// A key of this organisation with exactly these grants.
    pub(crate) async fn key_with(&self, grants: &[&str]) -> String {
        self.key_of(self.organisation, json!({ "name": "test", "grants": grants })).await
    }

    pub(crate) async fn key_of(&self, organisation: OrganisationId, new: Value) -> String {
        let new: NewApiKey = serde_json::from_value(new).unwrap();
        let by = Operator::by_process();
        let (_, text) = self.store.create_key_for(&by, organisation, new).await.unwrap();
        text.expose().clone()
    }

    /// Another organisation and its key.
    pub(crate) async fn stranger(&self) -> (OrganisationId, String) {
        let by = Operator::by_process();
        let other = self.store.create_organisation(&by, "other", None).await.unwrap();
        (other.id, self.key_of(other.id, json!({ "name": "other" })).await)
    }

    /// A personal access token of the user with this address, a member of these organisations.
    pub(crate) async fn token_of(
        &self,
        email: &str,
        roles: &[(OrganisationId, Role)],
        expires_at: Option<i64>,
    ) -> String {
        let by = Operator::by_process();
        let email: Email = email.parse().unwrap();
        let _ = self.store.create_user(&by, NewUser { email: email.clone() }).await;
        for (organisation, role) in roles {
            let new = NewMember { email: email.clone(), name: String::new(), role: *role };
            let scope = by.within(*organisation);
            self.store.add_member(&scope, ScopeSet::all(), new).await.unwrap();
        }
        let user = self.store.user_with_email(&by, &email).await.unwrap();
        let new = NewPersonalToken { name: "test".to_owned(), expires_at };
        let (_, text) = self.store.create_token_for(&by, user.id, new).await.unwrap();
        text.expose().clone()
    }

    /// A trunk named `name`; its id.
    pub(crate) async fn trunk(&self, name: &str) -> String {
        id(&self.post("/core/trunks", json!({ "name": name })).await.is(200))
    }

    /// An agent named `name` with one draft; its id.
    pub(crate) async fn agent(&self, name: &str) -> String {
        let agent = id(&self.post("/core/agents", json!({ "name": name })).await.is(200));
        let path = format!("/core/agents/{agent}/versions");
        self.post(&path, json!({ "config": { "instructions": "hello" } })).await.is(200);
        agent
    }

    /// A number on a trunk.
    pub(crate) async fn number(&self, number: &str, trunk: &str) {
        let body = json!({ "phone_number": number, "trunk_id": trunk });
        self.post("/core/phone-numbers", body).await.is(200);
    }

    /// A conversation that is recorded as a call would record it.
    pub(crate) async fn conversation(
        &self,
        organisation: OrganisationId,
        change: impl FnOnce(&mut Conversation),
    ) -> Conversation {
        let at = Clock::system().now();
        let mut new = Conversation::begun(organisation, Direction::Inbound, at);
        new.user_id = "+4930123456".to_owned();
        change(&mut new);
        let scope = ScopedTo::by_gateway(organisation);
        self.store.open_conversation(&scope, new).await.unwrap().conversation
    }

    /// Decisions that are recorded as calls would record them.
    pub(crate) async fn decisions(&self, all: Vec<Decision>) {
        let (journal, writer) = Journal::new(100);
        for decision in all {
            journal.record(Entry::Decision(Box::new(decision)));
        }
        journal.finish();
        writer.run(self.store.clone()).await;
    }
}

/// The `id` of an object.
#[track_caller]
pub(crate) fn id(object: &Value) -> String {
    object["id"].as_str().unwrap_or_else(|| panic!("no id: {object}")).to_owned()
}

/// A moment of a reply.
#[track_caller]
pub(crate) fn moment(value: &Value) -> Timestamp {
    value.as_str().unwrap().parse().unwrap()
}
