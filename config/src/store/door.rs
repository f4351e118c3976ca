//! The table in memory that opens the door: every credential that is good, and who belongs where.
//!
//! Credentials are few and asked for at every request, so all of them are kept in memory: a request
//! is let in or turned away without the database, also while that is down, and a revoked credential
//! is out at once.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::{After, Store, StoreError, keys, memberships, tokens};
use crate::clock::Timestamp;
use crate::credential::{
    self, Authenticated, KeyHash, Person, Presented, Role, ScopeSet, Unauthenticated, Who,
};
use crate::ids::{KeyId, OrganisationId, TokenId, UserId};

/// How exactly it is remembered when a credential was last used, in microseconds: a minute.
const LAST_USED_GRAIN_US: i64 = 60_000_000;

/// Most credentials of a kind whose last use is written down in one transaction.
const LAST_USED_BATCH: usize = 1_000;

/// Compared with when there is no such credential, so that the answer takes as long.
const NO_HASH: KeyHash = [0; 32];

/// What an API key is good for.
#[derive(Clone, Copy)]
pub(super) struct KeyPowers {
    pub(super) organisation: OrganisationId,
    pub(super) scopes: ScopeSet,
}

/// An API key in memory.
pub(super) type KeyEntry = Entry<KeyId, KeyPowers>;

/// A personal access token in memory.
pub(super) type TokenEntry = Entry<TokenId, UserId>;

/// A credential in memory.
pub(super) struct Entry<I, G> {
    pub(super) id: I,
    /// What it is good for.
    pub(super) good_for: G,
    pub(super) hash: KeyHash,
    pub(super) expires_at_ms: Option<i64>,
    /// Microseconds; 0 is never.
    last_used: AtomicI64,
    /// Up to when the database knows it, in microseconds.
    written: AtomicI64,
}

impl<I, G> Entry<I, G> {
    pub(super) const fn new(id: I, good_for: G, hash: KeyHash, expires_at_ms: Option<i64>) -> Self {
        let (last_used, written) = (AtomicI64::new(0), AtomicI64::new(0));
        Self { id, good_for, hash, expires_at_ms, last_used, written }
    }

    fn is_expired(&self, now: Timestamp) -> bool {
        self.expires_at_ms.is_some_and(|at| at <= now.millis())
    }

    /// When it was last used, in microseconds and to the minute; `None` is never.
    fn last_used_us(&self) -> Option<i64> {
        let micros = self.last_used.load(Ordering::Relaxed);
        (micros > 0).then(|| micros - micros % LAST_USED_GRAIN_US)
    }
}

/// All credentials of one kind that are good.
struct Credentials<I, G>(RwLock<HashMap<I, Entry<I, G>>>);

impl<I, G> Default for Credentials<I, G> {
    fn default() -> Self {
        Self(RwLock::default())
    }
}

impl<I: Copy + Eq + Hash, G: Copy> Credentials<I, G> {
    fn read(&self) -> RwLockReadGuard<'_, HashMap<I, Entry<I, G>>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, HashMap<I, Entry<I, G>>> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// These and no others; when the ones that stay were last used is kept.
    fn replace(&self, entries: Vec<Entry<I, G>>) {
        let mut all = self.write();
        let old = std::mem::take(&mut *all);
        for entry in entries {
            if let Some(known) = old.get(&entry.id) {
                let (used, written) = (&known.last_used, &known.written);
                entry.last_used.fetch_max(used.load(Ordering::Relaxed), Ordering::Relaxed);
                entry.written.fetch_max(written.load(Ordering::Relaxed), Ordering::Relaxed);
            }
            all.insert(entry.id, entry);
        }
    }

    /// What the credential with this id and text is good for.
    fn check(&self, id: I, text: &str, now: Timestamp) -> Result<G, Unauthenticated> {
        let hash = credential::hash(text);
        let all = self.read();
        let entry = all.get(&id);
        let right = credential::hashes_match(&hash, entry.map_or(&NO_HASH, |entry| &entry.hash));
        let entry = entry.filter(|entry| right && !entry.is_expired(now)).ok_or(Unauthenticated)?;
        entry.last_used.fetch_max(now.micros(), Ordering::Relaxed);
        Ok(entry.good_for)
    }

    /// What a credential that was accepted before is good for by now.
    fn again(&self, id: I, now: Timestamp) -> Result<G, Unauthenticated> {
        let all = self.read();
        let entry = all.get(&id).filter(|entry| !entry.is_expired(now));
        entry.map(|entry| entry.good_for).ok_or(Unauthenticated)
    }

    fn last_used(&self, id: I) -> Option<Timestamp> {
        self.read().get(&id)?.last_used_us().map(Timestamp::from_micros)
    }

    /// Some of those whose last use the database does not know yet.
    fn unwritten(&self) -> Vec<(I, i64)> {
        let all = self.read();
        let news = |entry: &Entry<I, G>| {
            let used = entry.last_used_us()?;
            (used > entry.written.load(Ordering::Relaxed)).then_some((entry.id, used))
        };
        all.values().filter_map(news).take(LAST_USED_BATCH).collect()
    }

    fn written(&self, used: &[(I, i64)]) {
        let all = self.read();
        for (id, at_us) in used {
            if let Some(entry) = all.get(id) {
                entry.written.fetch_max(*at_us, Ordering::Relaxed);
            }
        }
    }
}

/// What one write changes about who may come in.
pub(super) enum DoorChange {
    /// This key is good from now on.
    KeyAdded(KeyEntry),
    /// This key is no longer good.
    KeyRevoked(KeyId),
    /// This token is good from now on.
    TokenAdded(TokenEntry),
    /// This token is no longer good.
    TokenRevoked(TokenId),
    /// The user has this role in the organisation, or none any more.
    Member(UserId, OrganisationId, Option<Role>),
    /// There is no such user any more.
    UserRemoved(UserId),
}

/// Everything the door knows, as the database has it.
struct DoorList {
    keys: Vec<KeyEntry>,
    tokens: Vec<TokenEntry>,
    members: Vec<((UserId, OrganisationId), Role)>,
}

/// Who may come in.
#[derive(Default)]
pub(super) struct Door {
    keys: Credentials<KeyId, KeyPowers>,
    tokens: Credentials<TokenId, UserId>,
    members: RwLock<HashMap<(UserId, OrganisationId), Role>>,
}

impl Door {
    /// The bearer of this key.
    pub(super) fn by_key(
        &self,
        text: &str,
        now: Timestamp,
    ) -> Result<Authenticated, Unauthenticated> {
        let Some(Presented::Key(id)) = credential::read(text) else { return Err(Unauthenticated) };
        let powers = self.keys.check(id, text, now)?;
        Ok(Authenticated::by_key(id, powers.organisation, powers.scopes))
    }

    /// The bearer of this token.
    pub(super) fn by_token(&self, text: &str, now: Timestamp) -> Result<Person, Unauthenticated> {
        let Some(Presented::Token(id)) = credential::read(text) else {
            return Err(Unauthenticated);
        };
        self.tokens.check(id, text, now).map(|user| Person::by_token(user, id))
    }

    /// The user as a member of the organisation, if they are one.
    pub(super) fn member(
        &self,
        person: &Person,
        organisation: OrganisationId,
    ) -> Option<Authenticated> {
        let members = self.members.read().unwrap_or_else(PoisonError::into_inner);
        let role = members.get(&(person.user(), organisation))?;
        Some(Authenticated::by_member(person, organisation, role.scopes()))
    }

    /// A bearer that was let in before, with what they may do by now.
    pub(super) fn again(
        &self,
        before: &Authenticated,
        now: Timestamp,
    ) -> Result<Authenticated, Unauthenticated> {
        let organisation = before.organisation().organisation();
        let actor = before.actor();
        let bearer = match actor.who {
            Who::Key(id) => {
                let powers = self.keys.again(id, now)?;
                Authenticated::by_key(id, powers.organisation, powers.scopes)
            }
            Who::User { token, .. } => {
                let person = Person::by_token(self.tokens.again(token, now)?, token);
                self.member(&person, organisation).ok_or(Unauthenticated)?
            }
            Who::Process | Who::Gateway => return Ok(*before),
        };
        Ok(bearer.seen_at(actor.source))
    }

    pub(super) fn apply(&self, change: DoorChange) {
        match change {
            DoorChange::KeyAdded(entry) => {
                self.keys.write().insert(entry.id, entry);
            }
            DoorChange::KeyRevoked(id) => {
                self.keys.write().remove(&id);
            }
            DoorChange::TokenAdded(entry) => {
                self.tokens.write().insert(entry.id, entry);
            }
            DoorChange::TokenRevoked(id) => {
                self.tokens.write().remove(&id);
            }
            DoorChange::Member(user, organisation, role) => {
                let mut members = self.members.write().unwrap_or_else(PoisonError::into_inner);
                match role {
                    Some(role) => members.insert((user, organisation), role),
                    None => members.remove(&(user, organisation)),
                };
            }
            DoorChange::UserRemoved(gone) => {
                self.tokens.write().retain(|_, entry| entry.good_for != gone);
                let mut members = self.members.write().unwrap_or_else(PoisonError::into_inner);
                members.retain(|(user, _), _| *user != gone);
            }
        }
    }

    /// These and no others; when the credentials that stay were last used is kept.
    fn replace(&self, list: DoorList) {
        self.keys.replace(list.keys);
        self.tokens.replace(list.tokens);
        let members = list.members.into_iter().collect();
        *self.members.write().unwrap_or_else(PoisonError::into_inner) = members;
    }

    pub(super) fn key_last_used(&self, id: KeyId) -> Option<Timestamp> {
        self.keys.last_used(id)
    }

    pub(super) fn token_last_used(&self, id: TokenId) -> Option<Timestamp> {
        self.tokens.last_used(id)
    }
}

impl Store {
    /// Lets the bearer of an organisation's key in, or not. Answers from memory, in a time that does
    /// not tell a wrong secret from an unknown key.
    ///
    /// # Errors
    /// [`Unauthenticated`], whatever is wrong with the key.
    pub fn authenticate(&self, key: &str) -> Result<Authenticated, Unauthenticated> {
        self.0.door.by_key(key, self.now())
    }

    /// Finds out whose personal access token it is, as [`Store::authenticate`] does for keys.
    ///
    /// # Errors
    /// [`Unauthenticated`], whatever is wrong with the token.
    pub fn identify(&self, token: &str) -> Result<Person, Unauthenticated> {
        self.0.door.by_token(token, self.now())
    }

    /// The user as a member of an organisation, with what their role holds; `None` if they are none,
    /// or there is no such organisation.
    #[must_use]
    pub fn member_of(
        &self,
        person: &Person,
        organisation: OrganisationId,
    ) -> Option<Authenticated> {
        self.0.door.member(person, organisation)
    }

    /// A bearer that was let in some time ago, with what they may do by now: for replies that last.
    ///
    /// # Errors
    /// [`Unauthenticated`] if the credential has expired or was revoked meanwhile, or if its user
    /// belongs to the organisation no more.
    pub fn still_good(&self, bearer: &Authenticated) -> Result<Authenticated, Unauthenticated> {
        self.0.door.again(bearer, self.now())
    }

    /// Writes down when credentials were last used, some at a time. The journal's writer calls it now
    /// and then.
    ///
    /// # Errors
    /// As the database fails; nothing is lost but this.
    pub async fn flush_last_used(&self) -> Result<(), StoreError> {
        let (keys, tokens) = (self.0.door.keys.unwritten(), self.0.door.tokens.unwritten());
        if keys.is_empty() && tokens.is_empty() {
            return Ok(());
        }
        let mut tx = self.0.db.write().await?;
        for (id, at_us) in &keys {
            keys::set_last_used(&mut tx, *id, *at_us).await?;
        }
        for (id, at_us) in &tokens {
            tokens::set_last_used(&mut tx, *id, *at_us).await?;
        }
        self.commit(tx, After::default()).await?;
        self.0.door.keys.written(&keys);
        self.0.door.tokens.written(&tokens);
        Ok(())
    }

    /// Reads everything the door has to know.
    pub(super) async fn load_door(&self) -> Result<(), StoreError> {
        let mut tx = self.0.db.read().await?;
        let list = DoorList {
            keys: keys::entries(&mut tx).await?,
            tokens: tokens::entries(&mut tx).await?,
            members: memberships::roles(&mut tx).await?,
        };
        self.0.door.replace(list);
        Ok(())
    }
}
