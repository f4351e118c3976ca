//! Two organisations with twin objects: nothing of one is to be had with the key of the other.

use axum::http::Method;
use config::api::{self, Access, Route};
use config::credential::{Role, Scope};
use config::ids::OrganisationId;
use serde_json::{Value, json};

use crate::server::{Server, id};

const UNKNOWN: &str = "67e55044-10b1-426f-9247-bb680e5fe0c8";
const UNKNOWN_WORKFLOW: &str = "wf_67e5504410b1426f9247bb680e5fe0c8";

/// One organisation's objects.
pub(crate) struct Things {
    pub(crate) organisation: OrganisationId,
    /// A key that holds all that the role `admin` does, and dials for campaigns.
    pub(crate) credential: String,
    trunk: String,
    agent: String,
    version: String,
    number: &'static str,
    conversation: String,
    key: String,
    member: String,
    child: String,
    webhook: String,
    delivery: String,
    job: String,
    workflow: String,
    execution: String,
}

impl Things {
    async fn of(server: &Server, organisation: OrganisationId, number: &'static str) -> Self {
        let grants = json!({ "name": "twin", "grants": ["admin", "conversations:dial"] });
        let credential = server.key_of(organisation, grants).await;
        let ask = async |method: Method, path: &str, body: Value| {
            server.call(method, path, &credential, &body).await.is(200)
        };
        let post = async |path: &str, body: Value| ask(Method::POST, path, body).await;
        let outbound = json!({ "address": "carrier.example.com", "auth_username": "u",
            "auth_password": "p" });
        let trunk = json!({ "name": "twin", "outbound_config": outbound });
        let trunk = id(&post("/core/trunks", trunk).await);
        let body = json!({ "phone_number": number, "trunk_id": trunk });
        post("/core/phone-numbers", body).await;
        let agent = id(&post("/core/agents", json!({ "name": "twin" })).await);
        let versions = format!("/core/agents/{agent}/versions");
        let version = id(&post(&versions, json!({ "config": {} })).await);
        let publish = format!("{versions}/1/publish");
        post(&publish, json!({ "phone_numbers": [number] })).await;
        let conversation = server.conversation(organisation, |conversation| {
            conversation.user_id = number.to_owned();
            conversation.agent_id = Some(agent.parse().unwrap());
            conversation.agent_version_id = Some(version.parse().unwrap());
            conversation.trunk_id = Some(trunk.parse().unwrap());
            conversation.agent_number = Some(number.to_owned());
        });
        let conversation = conversation.await.id.to_string();
        let key = post("/admin/organization-pats", json!({ "name": "twin" })).await;
        let key = key["key_id"].as_str().unwrap().to_owned();
        let member = json!({ "email": format!("{organisation}@example.com"), "role": "viewer" });
        let member = post("/admin/members", member).await;
        let member = member["user_id"].as_str().unwrap().to_owned();
        let child = id(&post("/admin/organizations", json!({ "name": "child" })).await);
        let site = json!({ "company_website": "https://site.example" });
        let demo = "/core/agents/create-demo";
        let job = server.call(Method::POST, demo, &credential, &site).await.is(202);
        let webhook = json!({ "url": "https://receiver.example" });
        let webhook = id(&post("/core/webhooks", webhook).await);
        let test = format!("/core/webhooks/{webhook}/test");
        let delivery = server.call(Method::POST, &test, &credential, &Value::Null).await.is(202);
        let workflow = json!({ "name": "twin", "definition": deciding(&agent) });
        let workflow = id(&post("/workflow/workflows", workflow).await);
        post(&format!("/workflow/workflows/{workflow}/versions/1/publish"), Value::Null).await;
        let run = json!({ "workflow_id": workflow, "workflow_version": 1 });
        let execution = post("/workflow/workflow-executions", run).await;
        Self {
            organisation,
            credential,
            trunk,
            agent,
            version,
            number,
            conversation,
            key,
            member,
            child,
            webhook,
            delivery: id(&delivery),
            job: job["workflow_id"].as_str().unwrap().to_owned(),
            execution: execution["execution_id"].as_str().unwrap().to_owned(),
            workflow,
        }
    }

    /// A pair with everything twice.
    pub(crate) async fn twins(server: &Server) -> (Self, Self) {
        let (other, _) = server.stranger().await;
        let ours = Self::of(server, server.organisation, "+15550000001").await;
        (ours, Self::of(server, other, "+15550000002").await)
    }

    /// All ids there are, in an order that is the same for twins.
    fn ids(&self) -> Vec<String> {
        let ids = [&self.trunk, &self.agent, &self.version, &self.conversation, &self.key];
        let ids = ids.into_iter().chain([&self.member, &self.child]);
        let ids = ids.chain([&self.webhook, &self.delivery, &self.job]);
        let ids = ids.chain([&self.workflow, &self.execution]).cloned();
        ids.chain([self.number.to_owned(), self.organisation.to_string()]).collect()
    }

    /// What a path names after this segment.
    fn named(&self, segment: &str, route: &str) -> String {
        match segment {
            "trunks" => self.trunk.clone(),
            "phone-numbers" | "agent-assist" => self.number.to_owned(),
            "agents" => self.agent.clone(),
            "versions" => "1".to_owned(),
            "conversations" => self.conversation.clone(),
            "organization-pats" => self.key.clone(),
            "members" => self.member.clone(),
            "organizations" => self.child.clone(),
            "scaffolding" => self.job.clone(),
            "workflows" => self.workflow.clone(),
            "workflow-executions" => self.execution.clone(),
            "webhooks" => self.webhook.clone(),
            "deliveries" => self.delivery.clone(),
            // The same for all organisations: the operator's.
            "managed-accounts" => "pool".to_owned(),
            _ => panic!("{route}: give the twins a thing of this kind, and name it here"),
        }
    }

    /// A query that names whatever a list can be filtered by.
    fn query(&self, parameter: &str) -> Option<String> {
        let value = match parameter {
            "trunk_id" => self.trunk.clone(),
            "agent_id" => self.agent.clone(),
            "workflow_id" => self.workflow.clone(),
            "conversation_id" => self.conversation.clone(),
            "agent_version_id" => self.version.clone(),
            "phone_number" | "agent_number" | "called_number" => self.number.replace('+', "%2B"),
            "object_id" => self.conversation.clone(),
            "actor_id" => self.key.clone(),
            name if name.ends_with("_id") && name != "user_id" && name != "web_widget_id" => {
                panic!("{name}: give the twins a thing of this kind, and name it here")
            }
            _ => return None,
        };
        Some(format!("{parameter}={value}"))
    }

    /// A body that the owner's request would succeed with, ids of every kind in it.
    fn body(&self, route: &str) -> Value {
        let Self { trunk, agent, version, number, .. } = self;
        match route {
            "POST /core/trunks" | "PUT /core/trunks/{id}" => json!({ "name": "taken" }),
            "POST /core/phone-numbers" => {
                json!({ "phone_number": "+15550000009", "trunk_id": trunk })
            }
            "PATCH /core/phone-numbers/{phone_number}" => json!({ "outbound_shareable": true }),
            "PUT /core/default-runtime" => json!({ "runtime": { "type": "builtin" } }),
            "PUT /campaign/concurrency-settings" => json!({ "concurrency_limit": 20 }),
            "POST /core/agents" | "PUT /core/agents/{id}" => json!({ "name": "taken" }),
            "POST /core/agents/{id}/versions" | "PUT /core/agents/{id}/versions/{version}" => {
                json!({ "config": {} })
            }
            "POST /core/agents/{id}/versions/{version}/publish" => {
                json!({ "phone_numbers": [number], "unassign_phone_numbers": [number] })
            }
            "POST /core/conversations" | "POST /core/conversations/dial" => {
                json!({ "channel": "telephone",
                "user_id": "+4930123456", "agent_version_id": version, "agent_number": number })
            }
            "PATCH /core/conversations/{conversation_id}" => json!({ "summary": "taken" }),
            "POST /core/conversations/{conversation_id}/transfer" => {
                json!({ "transfer_number": "+15550000009" })
            }
            "POST /core/agents/{id}/versions/compare" => {
                json!({ "from_version": 1, "to_version": 1 })
            }
            "POST /core/agents/create-from-website" => {
                json!({ "company_name": "C", "company_website": "https://site.example",
                    "existing_agent_id": agent })
            }
            "POST /core/agents/create-demo" => json!({ "company_website": "https://site.example" }),
            "POST /core/conversations/{conversation_id}/messages" => json!({ "text": "hello" }),
            "POST /core/webhooks/{id}/rotate-secret" => Value::Null,
            "POST /core/inbound-routing-config" | "PUT /core/inbound-routing-config" => json!({
                "workflow_definition": deciding(agent), "fallback_agent_id": agent,
            }),
            "POST /core/inbound-routing-config/dry-run" => json!({
                "caller_number": "+4930123456", "called_number": number, "trunk_id": trunk,
                "timestamp": "2026-01-01T00:00:00Z",
                "workflow_definition": deciding(agent),
            }),
            "POST /core/webhooks" | "PUT /core/webhooks/{id}" => {
                json!({ "url": "https://taken.example" })
            }
            "POST /core/managed-accounts/{account_id}/purchase-number"
            | "POST /core/managed-accounts/{account_id}/release-number" => {
                json!({ "phone_number": number })
            }
            "POST /admin/organization-pats"
            | "POST /admin/organizations/{id}/organization-pats" => json!({ "name": "taken" }),
            "POST /admin/members" | "POST /admin/organizations/{id}/members" => {
                json!({ "email": "new@example.com", "role": "viewer" })
            }
            "PATCH /admin/members/{user_id}" => json!({ "role": "admin" }),
            "POST /admin/organizations" => json!({ "name": "taken", "parent_id": self.child }),
            "PATCH /admin/organizations/{id}" => json!({ "name": "taken" }),
            "POST /workflow/workflows" => {
                json!({ "name": "taken", "definition": deciding("nobody") })
            }
            "PUT /workflow/workflows/{workflow_id}" => json!({ "name": "taken" }),
            "POST /workflow/workflows/{workflow_id}/versions"
            | "PUT /workflow/workflows/{workflow_id}/versions/{version}" => {
                json!({ "definition": deciding("nobody") })
            }
            "POST /workflow/workflow-executions" | "POST /workflow/workflow-executions/async" => {
                json!({ "workflow_id": self.workflow, "workflow_version": 1 })
            }
            _ => panic!("{route}: give this test a body that would succeed"),
        }
    }
}

/// A workflow that names an agent.
fn deciding(agent: &str) -> Value {
    json!({ "steps": [
        { "id": "trigger", "type": "input", "next": "n1" },
        { "id": "n1", "type": "output", "fields": { "agent_id": agent } },
    ] })
}

/// A request of the owner's.
#[derive(Clone)]
pub(crate) struct Ask {
    pub(crate) method: Method,
    /// The path's template.
    pub(crate) route: String,
    pub(crate) path: String,
    pub(crate) body: Value,
}

impl Ask {
    /// The same, with one text for another in one of its places.
    fn with(&self, place: Place, from: &str, to: &str) -> Self {
        let mut ask = self.clone();
        match place {
            Place::Path => ask.path = swap(&self.path, from, to),
            Place::Body => {
                let body = self.body.to_string().replace(from, to);
                ask.body = serde_json::from_str(&body).unwrap();
            }
        }
        ask
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Place {
    /// With the query.
    Path,
    Body,
}

/// In a URL, where a plus may be escaped.
fn swap(url: &str, from: &str, to: &str) -> String {
    url.replace(from, to).replace(&from.replace('+', "%2B"), &to.replace('+', "%2B"))
}

/// The operator's routes and a user's own name nothing of an organisation's.
fn is_of_an_organisation(route: &Route) -> bool {
    let node = [Scope::OperatorRead, Scope::OperatorManage];
    match route.access {
        Access::Anyone | Access::AnyUser => false,
        Access::AnyKey => true,
        Access::AnyOf(scopes) => scopes.iter().any(|scope| !node.contains(scope)),
    }
}

/// Every request of the table, as the owner of these things would make it.
pub(crate) fn requests(things: &Things) -> Vec<Ask> {
    let each = api::routes().into_iter().filter(is_of_an_organisation).map(|route| {
        let name = format!("{} {}", route.method, route.path);
        let method = route.method.as_str().to_ascii_lowercase();
        let operation = &api::openapi()["paths"][&route.path][method];
        let segments: Vec<&str> = route.path.split('/').collect();
        let fill = |(index, part): (usize, &&str)| match part.starts_with('{') {
            true => things.named(segments[index - 1], &name),
            false => (*part).to_owned(),
        };
        let path = segments.iter().enumerate().map(fill).collect::<Vec<_>>().join("/");
        let parameters = operation["parameters"].as_array().into_iter().flatten();
        let queries = parameters.filter(|one| one["in"] == "query");
        let queries = queries.filter_map(|one| things.query(one["name"].as_str().unwrap()));
        let mut paths: Vec<_> = queries.map(|query| format!("{path}?{query}")).collect();
        paths.push(path);
        let has_body = operation.get("requestBody").is_some();
        let body = if has_body { things.body(&name) } else { Value::Null };
        let ask = |path| Ask {
            method: route.method.clone(),
            route: route.path.clone(),
            path,
            body: body.clone(),
        };
        paths.into_iter().map(ask).collect::<Vec<_>>()
    });
    let mut all: Vec<_> = each.flatten().collect();
    // What is refused to be written comes to stand in one's own audit log.
    all.sort_by_key(|ask| ask.method != Method::GET);
    all
}

/// Everything the owner can see.
async fn portrait(server: &Server, things: &Things) -> Vec<Value> {
    let mut seen = Vec::new();
    for path in [
        "/core/trunks".to_owned(),
        "/core/phone-numbers".to_owned(),
        format!("/core/agents/{}", things.agent),
        "/core/conversations".to_owned(),
        "/admin/members".to_owned(),
        "/admin/organizations".to_owned(),
        format!("/core/webhooks/{}", things.webhook),
    ] {
        seen.push(server.get(&path).await.is(200));
    }
    seen
}

#[tokio::test]
#[expect(clippy::excessive_nesting, reason = "every request, id, place and credential")]
async fn an_id_of_another_organisation_is_an_unknown_id_wherever_it_stands() {
    let server = Server::start().await;
    let (ours, theirs) = Things::twins(&server).await;
    let token = [(theirs.organisation, Role::Admin)];
    let token = server.token_of("thief@example.com", &token, None).await;
    let named = theirs.organisation.to_string();
    let before = portrait(&server, &ours).await;
    let mut swaps = 0;
    for ask in requests(&theirs) {
        for (own, foreign) in theirs.ids().iter().zip(ours.ids()) {
            let never = match own.as_str() {
                number if number.starts_with('+') => "+15559999999",
                workflow if workflow.starts_with("wf_") => UNKNOWN_WORKFLOW,
                _ => UNKNOWN,
            };
            for place in [Place::Path, Place::Body] {
                let (foreign_ask, never_ask) =
                    (ask.with(place, own, &foreign), ask.with(place, own, never));
                if foreign_ask.path == ask.path && foreign_ask.body == ask.body {
                    continue; // it does not stand there
                }
                for credential in [(&*theirs.credential, None), (&*token, Some(&*named))] {
                    if credential.1.is_some() && ask.route.ends_with("/dial") {
                        continue; // no role has its scope
                    }
                    let send = async |ask: &Ask| {
                        server.call_in(ask.method.clone(), &ask.path, credential, &ask.body).await
                    };
                    let (got, expected) = (send(&foreign_ask).await, send(&never_ask).await);
                    let name = format!("{} {} {}", ask.method, foreign_ask.path, foreign_ask.body);
                    let names_it = foreign_ask.path.split('?').next() != ask.path.split('?').next();
                    assert!(!names_it || got.status == 404, "{name}: {} {}", got.status, got.text);
                    assert_eq!(got.status, expected.status, "{name}: {}", got.text);
                    assert_ne!(got.status, 403, "{name}");
                    let (got, expected) =
                        (got.text.replace(&foreign, "X"), expected.text.replace(never, "X"));
                    assert_eq!(got, expected, "{name}");
                    swaps += 1;
                }
            }
        }
    }
    assert!(swaps > 70, "{swaps}");
    assert_eq!(portrait(&server, &ours).await, before);
}

#[tokio::test]
async fn nothing_one_can_read_shows_anything_of_another_organisation() {
    let server = Server::start().await;
    let (ours, theirs) = Things::twins(&server).await;
    for route in api::routes().iter().filter(|route| route.method == Method::GET) {
        if !is_of_an_organisation(route) || route.path.contains('{') {
            continue;
        }
        let ask =
            async |path: &str, key: &str| server.call(Method::GET, path, key, &Value::Null).await;
        let mut paths = vec![route.path.clone()];
        let first = ask(&format!("{}?limit=1", route.path), &ours.credential).await;
        if let Some(cursor) = first.headers.get("x-next-cursor") {
            paths.push(format!("{}?cursor={}", route.path, cursor.to_str().unwrap()));
        }
        for path in paths {
            let shown = ask(&path, &theirs.credential).await;
            assert_eq!(shown.status, 200, "{path}: {}", shown.text);
            for id in ours.ids() {
                assert!(!shown.text.contains(&id), "{path} shows {id}");
            }
        }
    }
}

#[tokio::test]
async fn an_id_of_another_organisation_in_a_body_is_unknown_too() {
    let server = Server::start().await;
    let things = Things::of(&server, server.organisation, "+15550000001").await;
    let (_, foreign) = server.stranger().await;
    let ask =
        async |path: &str, body: Value| server.call(Method::POST, path, &foreign, &body).await;

    let body = json!({ "phone_number": "+15550000002", "trunk_id": things.trunk });
    assert_eq!(ask("/core/phone-numbers", body).await.is(404)["detail"], "Trunk not found");
    let agent = id(&ask("/core/agents", json!({ "name": "thief" })).await.is(200));
    ask(&format!("/core/agents/{agent}/versions"), json!({ "config": {} })).await.is(200);
    let before = server.get("/core/phone-numbers").await.is(200);
    let publish = format!("/core/agents/{agent}/versions/1/publish");
    for list in ["phone_numbers", "unassign_phone_numbers"] {
        let theirs = ask(&publish, json!({ list: [things.number] })).await.is(404);
        let never = ask(&publish, json!({ list: ["+15559999999"] })).await.is(404);
        let theirs = theirs["detail"].as_str().unwrap().replace(things.number, "N");
        assert_eq!(theirs, never["detail"].as_str().unwrap().replace("+15559999999", "N"));
    }
    assert_eq!(server.get("/core/phone-numbers").await.is(200), before);
}

#[tokio::test]
async fn nothing_of_another_organisation_can_be_dialled_with() {
    let server = Server::start().await;
    let things = Things::of(&server, server.organisation, "+15550000001").await;
    let version = server.get(&format!("/core/agents/{}/versions/1", things.agent)).await.is(200);
    let (other, foreign) = server.stranger().await;
    let ask = async |mut body: Value| {
        body["channel"] = json!("telephone");
        body["user_id"] = json!("+4930123456");
        server.call(Method::POST, "/core/conversations", &foreign, &body).await
    };
    let dial = async |field: &str, theirs: &str, never: &str| {
        let (theirs, never) =
            (ask(json!({ field: theirs })).await, ask(json!({ field: never })).await);
        assert_eq!(theirs.text, never.text, "{field}");
        theirs.status.as_u16()
    };
    assert_eq!(dial("agent_id", &things.agent, UNKNOWN).await, 404);
    assert_eq!(dial("agent_version_id", &id(&version), UNKNOWN).await, 404);
    assert_eq!(dial("agent_number", things.number, "+15559999999").await, 400);
    let numbered = json!({ "agent_id": things.agent, "version": 1 });
    assert_eq!(ask(numbered).await.is(404)["detail"], "Agent not found");
    assert!(server.calls.dialled.lock().unwrap().is_empty());

    // An id that is taken there is refused, and says no more.
    let trunk = json!({ "name": "t", "outbound_config": { "address": "h.example.com",
        "auth_username": "u", "auth_password": "p" } });
    let trunk = server.call(Method::POST, "/core/trunks", &foreign, &trunk).await.is(200);
    let number = json!({ "phone_number": "+15550000002", "trunk_id": id(&trunk) });
    server.call(Method::POST, "/core/phone-numbers", &foreign, &number).await.is(200);
    let inline = json!({ "id": things.conversation, "agent_number": "+15550000002",
        "agent_config": {} });
    assert_eq!(ask(inline).await.is(409)["detail"], "id is already taken");
    assert!(server.calls.dialled.lock().unwrap().is_empty());
    let list = server.call(Method::GET, "/core/conversations", &foreign, &Value::Null).await;
    assert_eq!(list.is(200), json!([]), "{other}");
}

#[tokio::test]
async fn lists_and_filters_show_only_ones_own() {
    let server = Server::start().await;
    let things = Things::of(&server, server.organisation, "+15550000001").await;
    let (_, foreign) = server.stranger().await;
    let cursor = server.get("/core/trunks?limit=1").await.headers["x-next-cursor"].clone();
    let version = server.get(&format!("/core/agents/{}/versions/1", things.agent)).await.is(200);
    for path in [
        "/core/trunks".to_owned(),
        "/core/trunks?name=twin".to_owned(),
        format!("/core/trunks?cursor={}", cursor.to_str().unwrap()),
        "/core/phone-numbers".to_owned(),
        format!("/core/phone-numbers?trunk_id={}", things.trunk),
        format!("/core/phone-numbers?phone_number={}", &things.number[1..]),
        "/core/agents".to_owned(),
        "/core/agents?name=twin".to_owned(),
        "/core/conversations".to_owned(),
        format!("/core/conversations?agent_version_id={}", id(&version)),
        format!("/core/conversations?agent_id={}", things.agent),
        format!("/core/conversations?trunk_id={}", things.trunk),
        "/core/calls/decisions".to_owned(),
    ] {
        let list = server.call(Method::GET, &path, &foreign, &Value::Null).await.is(200);
        assert_eq!(list, json!([]), "{path}");
    }
    let keys = server.call(Method::GET, "/admin/organization-pats", &foreign, &Value::Null).await;
    assert_eq!(keys.is(200).as_array().unwrap().len(), 1);
}
