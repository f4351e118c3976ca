//! The matrix of routes and credentials, taken from the table itself.

use axum::body::Body;
use axum::http::{Method, Request};
use config::api::{self, Access};
use config::credential::{Role, Scope, ScopeSet};
use serde_json::{Value, json};

use crate::server::Server;

const ID: &str = "67e55044-10b1-426f-9247-bb680e5fe0c8";

/// A path with every parameter filled in by something that does not exist.
fn filled(path: &str) -> String {
    let fill = |part: &str| match part {
        "{workflow_id}" if path.starts_with("/workflow/") => format!("wf_{}", ID.replace('-', "")),
        "{phone_number}" => "+15550001111".to_owned(),
        "{version}" => "1".to_owned(),
        part if part.starts_with('{') => ID.to_owned(),
        part => part.to_owned(),
    };
    path.split('/').map(fill).collect::<Vec<_>>().join("/")
}

/// What a credential is to a route.
#[derive(Clone, Copy, Debug)]
enum Expected {
    /// 401, whatever the route holds, with this detail if one is named.
    Nobody(Option<&'static str>),
    /// 403, whatever the route holds.
    Elsewhere,
    /// A key with these scopes.
    Key(ScopeSet),
    /// A user with these scopes in the organisation that is named.
    Member(ScopeSet),
    /// A user who names no organisation.
    Person,
}

impl Expected {
    /// The status the guard answers with; `None` lets the request through.
    fn status(self, access: Access) -> Option<u16> {
        let by_scope = |held: ScopeSet| match access {
            Access::AnyOf(scopes) if !held.holds_any(scopes) => Some(403),
            _ => None,
        };
        match (access, self) {
            (Access::Anyone, _) => None,
            (_, Self::Nobody(_)) => Some(401),
            (_, Self::Elsewhere) => Some(403),
            (Access::AnyUser, Self::Key(_)) => Some(403),
            (Access::AnyUser, Self::Member(_) | Self::Person) => None,
            (_, Self::Person) => Some(401),
            (_, Self::Key(held) | Self::Member(held)) => by_scope(held),
        }
    }
}

/// A credential, the organisation that is named beside it, and what it is to every route.
struct Cell {
    name: String,
    key: String,
    organisation: Option<String>,
    expected: Expected,
}

impl Cell {
    fn new(name: &str, key: &str, expected: Expected) -> Self {
        Self { name: name.to_owned(), key: key.to_owned(), organisation: None, expected }
    }

    fn beside(self, organisation: impl ToString) -> Self {
        Self { organisation: Some(organisation.to_string()), ..self }
    }
}

const INVALID: Expected = Expected::Nobody(Some("Invalid, expired or revoked token"));

/// Credentials that open nothing at all.
async fn dead(server: &Server) -> Vec<Cell> {
    let here = server.organisation;
    let expired = json!({ "name": "old", "expires_at": 1 });
    let expired = server.key_of(here, expired).await;
    let revoked = server.post("/admin/organization-pats", json!({ "name": "gone" })).await.is(200);
    let path = format!("/admin/organization-pats/{}", revoked["key_id"].as_str().unwrap());
    server.delete(&path).await.is(204);
    let old = server.token_of("old@example.com", &[(here, Role::Admin)], Some(1)).await;
    let gone = server.token_of("gone@example.com", &[(here, Role::Admin)], None).await;
    let ask = async |method, path: &str| {
        server.call_in(method, path, (gone.as_str(), None), &Value::Null).await
    };
    let own = ask(Method::GET, "/admin/personal-access-tokens").await.is(200);
    let path = format!("/admin/personal-access-tokens/{}", own[0]["token_id"].as_str().unwrap());
    ask(Method::DELETE, &path).await.is(204);

    let mut cells = vec![Cell::new("nothing", "", Expected::Nobody(Some("Missing bearer token")))];
    let (mistyped, _) = server.key.split_at(server.key.len() - 1);
    for garbage in ["garbage", "pat_", "pat_x", "pat_x.y", "ak_", "ak_x.y", mistyped] {
        cells.push(Cell::new(&format!("garbage {garbage}"), garbage, INVALID));
        cells.push(Cell::new(&format!("garbage {garbage}, here"), garbage, INVALID).beside(here));
    }
    let revoked = revoked["pat_key"].as_str().unwrap();
    for (name, key) in [("expired", &*expired), ("revoked", revoked)] {
        cells.push(Cell::new(&format!("{name} key"), key, INVALID));
    }
    for (name, key) in [("expired", &old), ("revoked", &gone)] {
        cells.push(Cell::new(&format!("{name} token"), key, INVALID));
        cells.push(Cell::new(&format!("{name} token, here"), key, INVALID).beside(here));
    }
    cells
}

/// Credentials that open what they hold.
async fn living(server: &Server) -> Vec<Cell> {
    let here = server.organisation;
    let (there, foreign) = server.stranger().await;
    let admin = Role::Admin.scopes();
    let mut cells = vec![Cell::new("another's key", &foreign, Expected::Key(admin))];
    for scope in Scope::ALL {
        let key = server.key_with(&[scope.as_str()]).await;
        let expected = Expected::Key(ScopeSet::of(&[*scope]));
        cells.push(Cell::new(scope.as_str(), &key, expected));
        let others: Vec<_> = Scope::ALL.iter().filter(|other| *other != scope).copied().collect();
        let names: Vec<_> = others.iter().map(|scope| scope.as_str()).collect();
        let key = server.key_with(&names).await;
        let expected = Expected::Key(ScopeSet::of(&others));
        cells.push(Cell::new(&format!("all but {scope}"), &key, expected));
    }
    let key = server.key_with(&["admin"]).await;
    cells.push(Cell::new("key, here", &key, Expected::Key(admin)).beside(here));
    for elsewhere in [there.to_string(), ID.to_owned(), "x".to_owned(), String::new()] {
        cells.push(Cell::new("key, elsewhere", &key, Expected::Elsewhere).beside(elsewhere));
    }
    for role in [Role::Admin, Role::Viewer] {
        let email = format!("{role:?}@example.com");
        let token = server.token_of(&email, &[(here, role)], None).await;
        let name = format!("token of {role:?}");
        let expected = Expected::Member(role.scopes());
        cells.push(Cell::new(&format!("{name}, here"), &token, expected).beside(here));
        cells.push(Cell::new(&name, &token, Expected::Person));
        for elsewhere in [there.to_string(), ID.to_owned(), "x".to_owned(), String::new()] {
            let cell = Cell::new(&format!("{name}, elsewhere"), &token, Expected::Elsewhere);
            cells.push(cell.beside(elsewhere));
        }
    }
    let nowhere = server.token_of("nowhere@example.com", &[], None).await;
    cells.push(Cell::new("token of nobody's member", &nowhere, Expected::Person));
    let cell = Cell::new("token of nobody's member, here", &nowhere, Expected::Elsewhere);
    cells.push(cell.beside(here));
    cells
}

#[tokio::test]
async fn every_cell_of_route_and_credential_is_right() {
    let server = Server::start().await;
    let mut cells = dead(&server).await;
    cells.extend(living(&server).await);
    for route in api::routes() {
        let path = filled(&route.path);
        for cell in &cells {
            let credential = (cell.key.as_str(), cell.organisation.as_deref());
            let reply = server.call_in(route.method.clone(), &path, credential, &Value::Null).await;
            let name = format!("{} {} with {}", route.method, route.path, cell.name);
            let status = reply.status.as_u16();
            match cell.expected.status(route.access) {
                Some(expected) => assert_eq!(status, expected, "{name}: {}", reply.text),
                None => assert!(
                    ![401, 403].contains(&status) && status < 500,
                    "{name}: {status} {}",
                    reply.text
                ),
            }
            match cell.expected {
                Expected::Nobody(Some(detail)) if status == 401 => {
                    assert_eq!(reply.json()["detail"], detail, "{name}");
                }
                Expected::Person if status == 401 => {
                    let detail = "Token is missing organization claim.";
                    assert_eq!(reply.json()["detail"], detail, "{name}");
                }
                _ => {}
            }
        }
    }
}

#[tokio::test]
async fn a_read_is_opened_by_manage_too_and_a_write_never_by_read() {
    for route in api::routes() {
        let Access::AnyOf(scopes) = route.access else { continue };
        let name = format!("{} {}", route.method, route.path);
        let reads = scopes.iter().any(|scope| scope.as_str().contains(":read"));
        // What is sensitive is not opened by manage; internal dialling is opened by its own scope alone.
        if let [alone @ (Scope::ConversationsReadSensitive | Scope::ConversationsDial)] = scopes {
            let reads = *alone == Scope::ConversationsReadSensitive;
            assert_eq!(reads, route.method == Method::GET, "{name}");
            continue;
        }
        let manages = scopes.iter().any(|scope| scope.as_str().ends_with(":manage"));
        assert!(manages, "{name}");
        // To listen in is to read, though a token is made for it; a comparison has a body because it names
        // two things, and writes nothing.
        let only_reads =
            ["/listener-token", "/compare"].iter().any(|end| route.path.ends_with(end));
        assert!(!reads || only_reads || route.method == Method::GET, "{name}");
    }
}

#[tokio::test]
async fn credentials_that_are_no_bearer_tokens_are_401() {
    let server = Server::start().await;
    let key = &server.key;
    for value in [
        format!("Basic {key}"),
        key.clone(),
        "Bearer".to_owned(),
        "Bearer  ".to_owned(),
        format!("Bearer {key}{}", "x".repeat(1000)),
        "Bearer \u{e9}".to_owned(),
    ] {
        let request = Request::get("/core/trunks").header("authorization", value.as_bytes());
        let reply = server.send(request.body(Body::empty()).unwrap()).await;
        assert_eq!(reply.headers["www-authenticate"], "Bearer");
        assert!(reply.is(401)["detail"].is_string());
    }
    let twice = Request::get("/core/trunks")
        .header("authorization", format!("Bearer {key}"))
        .header("authorization", format!("Bearer {key}"));
    server.send(twice.body(Body::empty()).unwrap()).await.is(401);
    let lower = Request::get("/core/trunks").header("authorization", format!("bearer {key}"));
    server.send(lower.body(Body::empty()).unwrap()).await.is(200);
}

#[tokio::test]
async fn an_organisation_that_is_named_twice_is_one_when_both_are_the_same() {
    let server = Server::start().await;
    let own = server.organisation.to_string();
    for (first, second, status) in [(&*own, &*own, 200), (&own, ID, 403), (ID, &own, 403)] {
        let request = Request::get("/core/trunks")
            .header("authorization", format!("Bearer {}", server.key))
            .header("x-anyreach-org", first)
            .header("x-anyreach-org", second);
        server.send(request.body(Body::empty()).unwrap()).await.is(status);
    }
}
