//! The table of routes: a route exists only together with the scopes that open it.
//!
//! Invariant: [`Table::route`] is the only way a handler comes into the router, and it cannot be
//! called without an [`Access`]; it puts [`guard`] in front of the handler, and nothing but the
//! guard makes a [`Caller`], which every handler that touches an organisation's rows asks for.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use utoipa::openapi::RefOr;
use utoipa::openapi::path::{Parameter, ParameterIn};
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouter, UtoipaMethodRouterExt as _};

use super::error::ApiError;
use super::{Api, extract, origin};
use crate::credential::{Authenticated, Operator, Person, Scope, ScopedTo};
use crate::ids::OrganisationId;
use crate::limits::{API_AUDIT_OBJECT_BYTES, API_CREDENTIAL_CHARACTERS};
use crate::store::Store;

/// Who may use a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Anyone at all; nothing of an organisation is behind it.
    Anyone,
    /// Any valid credential, in whatever organisation it acts.
    AnyKey,
    /// Any user, by a personal access token; no organisation need be named.
    AnyUser,
    /// A credential that holds at least one of these scopes.
    AnyOf(&'static [Scope]),
}

/// One row of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The HTTP method.
    pub method: Method,
    /// The path with `{name}` for its parameters.
    pub path: String,
    /// Who may use it.
    pub access: Access,
}

/// Routes being collected.
pub(crate) struct Table {
    pub(crate) router: OpenApiRouter<Api>,
    pub(crate) rows: Vec<Route>,
}

impl Table {
    pub(crate) fn new() -> Self {
        Self { router: OpenApiRouter::default(), rows: Vec::new() }
    }

    /// Adds one handler, behind a guard that lets `access` through.
    pub(crate) fn route(mut self, access: Access, handler: UtoipaMethodRouter<Api>) -> Self {
        let (mut template, mut takes_query) = (String::new(), false);
        for (path, item) in &handler.1.paths {
            template.clone_from(path);
            let methods = [
                (Method::GET, &item.get),
                (Method::POST, &item.post),
                (Method::PUT, &item.put),
                (Method::PATCH, &item.patch),
                (Method::DELETE, &item.delete),
            ];
            for (method, operation) in methods {
                let Some(operation) = operation else { continue };
                let mut parameters = operation.parameters.iter().flatten();
                takes_query |= parameters.any(is_in_query);
                self.rows.push(Route { method, path: path.clone(), access });
            }
        }
        let post = Post { access, template: template.into(), takes_query };
        let guarded = handler.map(|methods| methods.route_layer(from_fn_with_state(post, guard)));
        self.router = self.router.routes(guarded);
        self
    }
}

fn is_in_query(parameter: &RefOr<Parameter>) -> bool {
    matches!(parameter, RefOr::T(one) if one.parameter_in == ParameterIn::Query)
}

/// Where a guard stands.
#[derive(Clone)]
struct Post {
    access: Access,
    /// The path with `{name}` for its parameters.
    template: Arc<str>,
    /// Whether the handler reads the query, and says itself what of it is wrong.
    takes_query: bool,
}

/// Lets a request through when its credential holds what the route asks for. What it is refused to
/// change, here or behind, goes to the audit log.
async fn guard(State(post): State<Post>, mut request: Request, next: Next) -> Response {
    let access = post.access;
    if access == Access::Anyone {
        return next.run(request).await;
    }
    let Some(api) = request.extensions().get::<Api>().cloned() else {
        let why = "the router has no state in its extensions";
        return ApiError::Bug(why.to_owned()).into_response();
    };
    let admitted = match identify(&api, &request) {
        Ok(admitted) => admitted,
        Err(error) => return error.into_response(),
    };
    let attempt = Attempt::of(&post.template, &request, &admitted);
    let admitted = admit(access, admitted).and_then(|admitted| {
        extract::check_query(request.uri(), post.takes_query).map(|()| admitted)
    });
    let response = match admitted {
        Ok(Admitted::Caller(caller)) => {
            request.extensions_mut().insert(caller);
            request.extensions_mut().insert(access);
            next.run(request).await
        }
        Ok(Admitted::Person(person)) => {
            request.extensions_mut().insert(Bearer(person));
            next.run(request).await
        }
        Err(error) => error.into_response(),
    };
    if let Some(attempt) = attempt.filter(|_| response.status().is_client_error()) {
        attempt.refused(&api.store, response.status()).await;
    }
    response
}

/// Whose credential it is, and in which organisation.
enum Admitted {
    Caller(Caller),
    /// A user who names no organisation.
    Person(Person),
}

/// Finds out who asks. A credential that opens nothing learns nothing more than that.
fn identify(api: &Api, request: &Request) -> Result<Admitted, ApiError> {
    let text = bearer(request.headers())?;
    let source = origin::source(request, &api.options.trusted_proxies);
    let refused = |_| ApiError::Unauthenticated("Invalid, expired or revoked token");
    if text.starts_with(TOKEN_PREFIX) {
        let person = api.store.identify(text).map_err(refused)?.seen_at(source);
        return Ok(match named_organisation(request.headers())? {
            Some(named) => {
                let member = named.and_then(|named| api.store.member_of(&person, named));
                Admitted::Caller(Caller { authenticated: member.ok_or_else(not_yours)? })
            }
            None => Admitted::Person(person),
        });
    }
    let authenticated = api.store.authenticate(text).map_err(refused)?.seen_at(source);
    let own = authenticated.organisation().organisation();
    match named_organisation(request.headers())? {
        Some(named) if named != Some(own) => Err(not_yours()),
        _ => Ok(Admitted::Caller(Caller { authenticated })),
    }
}

/// Lets in whoever the route is for.
fn admit(access: Access, admitted: Admitted) -> Result<Admitted, ApiError> {
    let person = match &admitted {
        Admitted::Person(person) => Some(*person),
        Admitted::Caller(caller) => caller.authenticated.person(),
    };
    match (access, admitted) {
        (Access::AnyUser, _) => match person {
            Some(person) => Ok(Admitted::Person(person)),
            None => Err(ApiError::Forbidden("Requires a personal access token".to_owned())),
        },
        (_, Admitted::Person(_)) => {
            Err(ApiError::Unauthenticated("Token is missing organization claim."))
        }
        (Access::AnyOf(scopes), Admitted::Caller(caller))
            if !caller.authenticated.scopes().holds_any(scopes) =>
        {
            let words: Vec<&str> = scopes.iter().map(|scope| scope.as_str()).collect();
            Err(ApiError::Forbidden(format!("Requires any one of: {}", words.join(", "))))
        }
        (_, admitted) => Ok(admitted),
    }
}

/// The credential in the Authorization header (RFC 6750 §2.1).
fn bearer(headers: &HeaderMap) -> Result<&str, ApiError> {
    const MALFORMED: ApiError = ApiError::Unauthenticated("Malformed Authorization header");
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let Some(value) = values.next() else {
        return Err(ApiError::Unauthenticated("Missing bearer token"));
    };
    if values.next().is_some() || value.len() > API_CREDENTIAL_CHARACTERS.value_usize() {
        return Err(MALFORMED);
    }
    let (scheme, token) =
        value.to_str().ok().and_then(|text| text.split_once(' ')).ok_or(MALFORMED)?;
    let token = token.trim();
    if !scheme.eq_ignore_ascii_case("bearer") || token.is_empty() {
        return Err(MALFORMED);
    }
    Ok(token)
}

/// The organisation that is named beside the credential: none is, or this one, or what is no id.
fn named_organisation(headers: &HeaderMap) -> Result<Option<Option<OrganisationId>>, ApiError> {
    let mut named = headers.get_all(ORGANISATION_HEADER).iter();
    let Some(first) = named.next() else { return Ok(None) };
    let id = first.to_str().ok().and_then(|text| text.parse().ok());
    // Two that say the same are one.
    if named.all(|other| other == first) { Ok(Some(id)) } else { Err(not_yours()) }
}

fn not_yours() -> ApiError {
    let why = "The credential does not belong to the organization in X-Anyreach-Org";
    ApiError::Forbidden(why.to_owned())
}

/// A request that would change something, as the audit log tells of it when it is refused.
struct Attempt {
    by: Authenticated,
    action: String,
    object_id: Option<String>,
}

impl Attempt {
    fn of(path: &str, request: &Request, admitted: &Admitted) -> Option<Self> {
        let Admitted::Caller(caller) = admitted else { return None };
        if request.method().is_safe() {
            return None;
        }
        let mut named = path.split('/').zip(request.uri().path().split('/'));
        let named = named.find(|(template, _)| template.starts_with('{'));
        let fits = |text: &&str| text.len() <= API_AUDIT_OBJECT_BYTES.value_usize();
        let object_id =
            named.map(|(_, text)| text).filter(fits).map(|text| text.replace("%2B", "+"));
        let action = format!("{} {path}", request.method());
        Some(Self { by: caller.authenticated, action, object_id })
    }

    async fn refused(self, store: &Store, status: StatusCode) {
        let status = status.as_u16();
        store.note_refusal(&self.by, self.action, self.object_id, status).await;
    }
}

const TOKEN_PREFIX: &str = "pat_";
const ORGANISATION_HEADER: &str = "x-anyreach-org";

/// Who is asking, and in which organisation. Made by the guard of the route and by nothing else.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Caller {
    authenticated: Authenticated,
}

impl Caller {
    /// The proof that opens the rows of the caller's organisation.
    pub(crate) const fn organisation(&self) -> ScopedTo<OrganisationId> {
        self.authenticated.organisation()
    }

    /// Whether the credential holds this scope.
    pub(crate) const fn holds(&self, scope: Scope) -> bool {
        self.authenticated.scopes().holds(scope)
    }

    /// The proof that opens the whole node to look at, or 403.
    pub(crate) fn operator(&self) -> Result<Operator, ApiError> {
        self.authenticated.operator_read().ok_or_else(|| {
            ApiError::Forbidden("Requires any one of: operator:read, operator:manage".to_owned())
        })
    }

    /// The proof that opens the whole node to change, or 403.
    pub(crate) fn operator_manage(&self) -> Result<Operator, ApiError> {
        let forbidden = || ApiError::Forbidden("Requires operator:manage".to_owned());
        self.authenticated.operator_manage().ok_or_else(forbidden)
    }

    pub(crate) const fn authenticated(&self) -> &Authenticated {
        &self.authenticated
    }
}

impl FromRequestParts<Api> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &Api) -> Result<Self, ApiError> {
        let caller = parts.extensions.get::<Self>().copied();
        caller.ok_or_else(|| ApiError::Bug("a handler asks who calls behind Anyone".to_owned()))
    }
}

/// The user who is asking, behind [`Access::AnyUser`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bearer(pub(crate) Person);

impl FromRequestParts<Api> for Bearer {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &Api) -> Result<Self, ApiError> {
        let person = parts.extensions.get::<Self>().copied();
        person.ok_or_else(|| ApiError::Bug("a handler asks for a user behind a key".to_owned()))
    }
}

/// The door a request came through, for replies that last: whether it would still open.
pub(crate) struct Door {
    access: Access,
    parts: Parts,
}

impl Door {
    /// Who is asking, if the same request would be let in now.
    pub(crate) fn opens(&self) -> Option<Caller> {
        let request = Request::from_parts(self.parts.clone(), Body::empty());
        let api = request.extensions().get::<Api>()?.clone();
        match admit(self.access, identify(&api, &request).ok()?) {
            Ok(Admitted::Caller(caller)) => Some(caller),
            Ok(Admitted::Person(_)) | Err(_) => None,
        }
    }
}

impl FromRequestParts<Api> for Door {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &Api) -> Result<Self, ApiError> {
        let access = parts.extensions.get::<Access>().copied();
        let access = access.ok_or_else(|| ApiError::Bug("a door behind Anyone".to_owned()))?;
        Ok(Self { access, parts: parts.clone() })
    }
}
