//! The table of routes: a route exists only together with the scopes that open it.
//!
//! Invariant: [`Table::route`] is the only way a handler comes into the router, and it cannot be
//! called without an [`Access`]; it puts [`guard`] in front of the handler, and nothing but the
//! guard makes a [`Caller`], which every handler that touches an organisation's rows asks for.

use axum::body::Body;
use axum::extract::{FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouter, UtoipaMethodRouterExt as _};

use super::Api;
use super::error::ApiError;
use crate::credential::{Authenticated, Operator, Scope, ScopedTo};
use crate::ids::OrganisationId;
use crate::limits::API_CREDENTIAL_CHARACTERS;

/// Who may use a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Anyone at all; nothing of an organisation is behind it.
    Anyone,
    /// Any valid key.
    AnyKey,
    /// A key that holds at least one of these scopes.
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
        for (path, item) in &handler.1.paths {
            let methods = [
                (Method::GET, item.get.is_some()),
                (Method::POST, item.post.is_some()),
                (Method::PUT, item.put.is_some()),
                (Method::PATCH, item.patch.is_some()),
                (Method::DELETE, item.delete.is_some()),
            ];
            let present = methods.into_iter().filter_map(|(method, is)| is.then_some(method));
            self.rows.extend(present.map(|method| Route { method, path: path.clone(), access }));
        }
        let guarded = handler.map(|methods| methods.route_layer(from_fn_with_state(access, guard)));
        self.router = self.router.routes(guarded);
        self
    }
}

/// Lets a request through when its key holds what the route asks for.
async fn guard(State(access): State<Access>, mut request: Request, next: Next) -> Response {
    match admit(access, &request) {
        Ok(Some(caller)) => {
            request.extensions_mut().insert(caller);
            request.extensions_mut().insert(access);
            next.run(request).await
        }
        Ok(None) => next.run(request).await,
        Err(error) => error.into_response(),
    }
}

fn admit(access: Access, request: &Request) -> Result<Option<Caller>, ApiError> {
    let scopes = match access {
        Access::Anyone => return Ok(None),
        Access::AnyKey => None,
        Access::AnyOf(scopes) => Some(scopes),
    };
    let Some(api) = request.extensions().get::<Api>() else {
        return Err(ApiError::Bug("the router has no state in its extensions".to_owned()));
    };
    let key = bearer(request.headers())?;
    let authenticated = api.authenticate(key)?;
    same_organisation(request.headers(), authenticated.organisation().organisation())?;
    match scopes {
        Some(scopes) if !authenticated.scopes().holds_any(scopes) => {
            let words: Vec<&str> = scopes.iter().map(|scope| scope.as_str()).collect();
            Err(ApiError::Forbidden(format!("Requires any one of: {}", words.join(", "))))
        }
        _ => Ok(Some(Caller { authenticated })),
    }
}

/// The key in the Authorization header (RFC 6750 §2.1).
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
    if token.starts_with("pat_") && !headers.contains_key(ORGANISATION_HEADER) {
        return Err(ApiError::Unauthenticated("Token is missing organization claim."));
    }
    Ok(token)
}

/// A key is bound to one organisation; naming another one beside it is refused.
fn same_organisation(headers: &HeaderMap, own: OrganisationId) -> Result<(), ApiError> {
    let named = headers.get_all(ORGANISATION_HEADER).iter();
    let foreign = |value: &axum::http::HeaderValue| {
        value.to_str().ok().and_then(|text| text.parse::<OrganisationId>().ok()) != Some(own)
    };
    if named.into_iter().any(foreign) {
        let why = "The key does not belong to the organization in X-Anyreach-Org";
        return Err(ApiError::Forbidden(why.to_owned()));
    }
    Ok(())
}

const ORGANISATION_HEADER: &str = "x-anyreach-org";

/// Who is asking. Made by the guard of the route and by nothing else.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Caller {
    authenticated: Authenticated,
}

impl Caller {
    /// The proof that opens the rows of the caller's organisation.
    pub(crate) const fn organisation(&self) -> ScopedTo<OrganisationId> {
        self.authenticated.organisation()
    }

    /// Whether the key holds this scope.
    pub(crate) const fn holds(&self, scope: Scope) -> bool {
        self.authenticated.scopes().holds(scope)
    }

    /// The proof that opens the whole node, or 403.
    pub(crate) fn operator(&self) -> Result<Operator, ApiError> {
        self.authenticated.operator_read().ok_or_else(|| {
            ApiError::Forbidden("Requires any one of: operator:read, operator:manage".to_owned())
        })
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

/// The door a request came through, for replies that last: whether it would still open.
pub(crate) struct Door {
    access: Access,
    parts: Parts,
}

impl Door {
    /// Who is asking, if the same request would be let in now.
    pub(crate) fn opens(&self) -> Option<Caller> {
        let request = Request::from_parts(self.parts.clone(), Body::empty());
        admit(self.access, &request).ok().flatten()
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
