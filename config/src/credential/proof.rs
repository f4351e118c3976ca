//! Proofs: values that exist only because a credential was checked, and who it was.

use std::net::IpAddr;

use super::{Scope, ScopeSet};
use crate::ids::{KeyId, OrganisationId, TokenId, UserId};

/// Who does something, and from where: what the audit log writes down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Actor {
    /// Who.
    pub who: Who,
    /// The address the request came from, if it came over the network.
    pub source: Option<IpAddr>,
}

/// Whoever can do something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// The bearer of an organisation's key.
    Key(KeyId),
    /// A user, by one of their tokens.
    User {
        /// The user.
        user: UserId,
        /// The token.
        token: TokenId,
    },
    /// Somebody at the command line of the machine, or the program itself at its start.
    Process,
    /// The gateway, in the course of a call or of its own work.
    Gateway,
}

impl Actor {
    const fn local(who: Who) -> Self {
        Self { who, source: None }
    }
}

/// Proof that the bearer may act within one `T`.
///
/// Verbs of the store that touch an organisation's rows take one, so that no row of another can be
/// reached by naming it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScopedTo<T> {
    within: T,
    by: Actor,
}

impl ScopedTo<OrganisationId> {
    /// On the gateway's own authority: it knows the organisation from the trunk a call came over.
    #[must_use]
    pub const fn by_gateway(organisation: OrganisationId) -> Self {
        Self { within: organisation, by: Actor::local(Who::Gateway) }
    }

    /// Only the store makes one, when it has found the bearer to be over this organisation.
    pub(crate) const fn by(actor: Actor, organisation: OrganisationId) -> Self {
        Self { within: organisation, by: actor }
    }

    /// Which organisation.
    #[must_use]
    pub const fn organisation(&self) -> OrganisationId {
        self.within
    }

    /// Who acts.
    #[must_use]
    pub const fn actor(&self) -> Actor {
        self.by
    }
}

/// Proof that the bearer may act on the whole node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Operator(Actor);

impl Operator {
    /// On the program's own authority, as at the command line.
    #[must_use]
    pub const fn by_process() -> Self {
        Self(Actor::local(Who::Process))
    }

    /// One organisation of the node's.
    #[must_use]
    pub const fn within(&self, organisation: OrganisationId) -> ScopedTo<OrganisationId> {
        ScopedTo { within: organisation, by: self.0 }
    }

    /// Who acts.
    #[must_use]
    pub const fn actor(&self) -> Actor {
        self.0
    }
}

/// Proof that the bearer is this user, in whatever organisation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Person {
    user: UserId,
    token: TokenId,
    source: Option<IpAddr>,
}

impl Person {
    /// Only the store makes one, when it has compared a token.
    pub(crate) const fn by_token(user: UserId, token: TokenId) -> Self {
        Self { user, token, source: None }
    }

    /// The same, with the address the request came from.
    #[must_use]
    pub const fn seen_at(self, source: Option<IpAddr>) -> Self {
        Self { source, ..self }
    }

    /// Which user.
    #[must_use]
    pub const fn user(&self) -> UserId {
        self.user
    }

    /// By which of their tokens.
    #[must_use]
    pub const fn token(&self) -> TokenId {
        self.token
    }

    /// Who acts.
    #[must_use]
    pub const fn actor(&self) -> Actor {
        Actor { who: Who::User { user: self.user, token: self.token }, source: self.source }
    }
}

/// An accepted credential, in one organisation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Authenticated {
    organisation: ScopedTo<OrganisationId>,
    scopes: ScopeSet,
}

impl Authenticated {
    /// Only the store makes one, when it has compared a key.
    pub(crate) const fn by_key(key: KeyId, organisation: OrganisationId, scopes: ScopeSet) -> Self {
        Self { organisation: ScopedTo::by(Actor::local(Who::Key(key)), organisation), scopes }
    }

    /// Only the store makes one, when it has found the user to be a member.
    pub(crate) const fn by_member(
        person: &Person,
        organisation: OrganisationId,
        scopes: ScopeSet,
    ) -> Self {
        Self { organisation: ScopedTo::by(person.actor(), organisation), scopes }
    }

    /// The same, with the address the request came from.
    #[must_use]
    pub const fn seen_at(self, source: Option<IpAddr>) -> Self {
        let actor = Actor { who: self.organisation.by.who, source };
        Self { organisation: ScopedTo::by(actor, self.organisation.within), ..self }
    }

    /// Who acts.
    #[must_use]
    pub const fn actor(&self) -> Actor {
        self.organisation.by
    }

    /// The organisation it acts in.
    #[must_use]
    pub const fn organisation(&self) -> ScopedTo<OrganisationId> {
        self.organisation
    }

    /// The user, if it is a user's.
    #[must_use]
    pub const fn person(&self) -> Option<Person> {
        match self.actor() {
            Actor { who: Who::User { user, token }, source } => {
                Some(Person { user, token, source })
            }
            _ => None,
        }
    }

    /// What it may do.
    #[must_use]
    pub const fn scopes(&self) -> ScopeSet {
        self.scopes
    }

    /// The whole node to look at, if it may.
    #[must_use]
    pub fn operator_read(&self) -> Option<Operator> {
        let may = self.scopes.holds_any(&[Scope::OperatorRead, Scope::OperatorManage]);
        may.then_some(Operator(self.actor()))
    }

    /// The whole node to change, if it may.
    #[must_use]
    pub fn operator_manage(&self) -> Option<Operator> {
        self.scopes.holds(Scope::OperatorManage).then_some(Operator(self.actor()))
    }
}

/// The credential is missing, malformed, unknown, wrong, expired or revoked: a caller never learns
/// which.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the credential is not valid")]
pub struct Unauthenticated;
