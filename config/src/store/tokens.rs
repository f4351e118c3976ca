//! Verbs on personal access tokens.
//!
//! Only the user makes tokens of their own, with one they have; the first comes from the operator. An
//! organisation's admin never does: the token would open the user's other organisations too.

use super::door::{DoorChange, TokenEntry};
use super::rows::{free_stamp, free_stamp_in, paged, parsed, raw, time, time_opt};
use super::sql::{self, Connection, QueryBuilder, Row};
use super::users::load_user;
use super::{After, Change, Store, StoreError};
use crate::clock::Timestamp;
use crate::credential::{self, Actor, Operator, Person};
use crate::ids::{TokenId, UserId};
use crate::limits::USER_TOKENS;
use crate::model::{NewPersonalToken, Page, PersonalToken};
use crate::secret::Secret;

const FREE_STAMP: &str = free_stamp_in!("personal_tokens");

impl Store {
    /// Makes a token of one's own. Returns its text too: it cannot be had again. One that is not
    /// said to expire expires with the token that makes it.
    ///
    /// # Errors
    /// [`StoreError::Refused`] if it would outlive the token that makes it, or at the limit.
    pub async fn create_token(
        &self,
        person: &Person,
        mut new: NewPersonalToken,
    ) -> Result<(PersonalToken, Secret<String>), StoreError> {
        new.validate()?;
        let mut tx = self.0.db.write().await?;
        let maker = load_token(&mut tx, person, person.token()).await?;
        if let Some(end) = maker.expires_at {
            if new.expires_at.is_some_and(|at| at > end) {
                return Err(StoreError::refused("a token cannot outlive the token that makes it"));
            }
            new.expires_at = new.expires_at.or(Some(end));
        }
        let (entry, token, text) = self.insert_token(&mut tx, person.user(), &new).await?;
        tx.note(change(person.actor(), "token.create", token.token_id).after(&token)?);
        self.commit(tx, After::door(DoorChange::TokenAdded(entry))).await?;
        Ok((token, text))
    }

    /// Makes a token for any user: their first, or one instead of those they have lost.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if there is no such user; [`StoreError::Refused`] at the limit.
    pub async fn create_token_for(
        &self,
        by: &Operator,
        user: UserId,
        new: NewPersonalToken,
    ) -> Result<(PersonalToken, Secret<String>), StoreError> {
        new.validate()?;
        let mut tx = self.0.db.write().await?;
        load_user(&mut tx, user).await?;
        let (entry, token, text) = self.insert_token(&mut tx, user, &new).await?;
        tx.note(change(by.actor(), "token.create", token.token_id).after(&token)?);
        self.commit(tx, After::door(DoorChange::TokenAdded(entry))).await?;
        Ok((token, text))
    }

    /// One's own tokens, newest first.
    ///
    /// # Errors
    /// As the database fails.
    pub async fn tokens(
        &self,
        person: &Person,
        page: Page,
    ) -> Result<Vec<PersonalToken>, StoreError> {
        let mut query = QueryBuilder::new("SELECT t.* FROM personal_tokens t WHERE t.user_id = ");
        query.push_bind(person.user().to_string());
        paged(&mut query, page);
        let mut tx = self.0.db.read().await?;
        let rows = query.build().fetch_all(&mut tx).await?;
        let mut tokens = rows.iter().map(from_row).collect::<Result<Vec<_>, _>>()?;
        for token in &mut tokens {
            token.last_used_at = self.0.door.token_last_used(token.token_id).or(token.last_used_at);
        }
        Ok(tokens)
    }

    /// Ends a token of one's own: when this returns, it opens nothing any more.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if the user has no such token.
    pub async fn revoke_token(&self, person: &Person, id: TokenId) -> Result<(), StoreError> {
        let mut tx = self.0.db.write().await?;
        let token = load_token(&mut tx, person, id).await?;
        sql::query("DELETE FROM personal_tokens WHERE id = ?")
            .bind(id.to_string())
            .execute(&mut tx)
            .await?;
        tx.note(change(person.actor(), "token.revoke", id).before(&token)?);
        self.commit(tx, After::door(DoorChange::TokenRevoked(id))).await
    }

    async fn insert_token(
        &self,
        tx: &mut Connection,
        user: UserId,
        new: &NewPersonalToken,
    ) -> Result<(TokenEntry, PersonalToken, Secret<String>), StoreError> {
        let held: i64 = sql::query("SELECT count(*) FROM personal_tokens WHERE user_id = ?")
            .bind(user.to_string())
            .fetch_scalar(tx)
            .await?;
        if held >= i64::from(USER_TOKENS.value_u32()) {
            return Err(StoreError::refused("Token limit reached"));
        }
        let minted = credential::mint::<TokenId>().map_err(super::keys::no_randomness)?;
        let created_at = free_stamp(tx, FREE_STAMP, self.now()).await?;
        sql::query(
            "INSERT INTO personal_tokens (id, user_id, name, hash, expires_at, created_at)
             VALUES (?, ?, ?, ?, ?, ?)",
        )
        .bind(minted.id.to_string())
        .bind(user.to_string())
        .bind(&new.name)
        .bind(minted.hash.to_vec())
        .bind(new.expires_at)
        .bind(created_at.micros())
        .execute(tx)
        .await?;
        let token = PersonalToken {
            token_id: minted.id,
            user_id: user,
            name: new.name.clone(),
            expires_at: new.expires_at,
            last_used_at: None,
            created_at,
        };
        let entry = TokenEntry::new(minted.id, user, minted.hash, new.expires_at);
        Ok((entry, token, minted.text))
    }
}

/// All tokens, for the door.
pub(super) async fn entries(tx: &mut Connection) -> Result<Vec<TokenEntry>, StoreError> {
    let rows =
        sql::query("SELECT id, user_id, hash, expires_at FROM personal_tokens").fetch_all(tx);
    let read = |row: &Row| {
        let hash: Vec<u8> = raw(row, "hash")?;
        let hash = hash.try_into().map_err(|_| StoreError::Fault)?;
        let (id, user) = (parsed(row, "id")?, parsed(row, "user_id")?);
        Ok(TokenEntry::new(id, user, hash, raw(row, "expires_at")?))
    };
    rows.await?.iter().map(read).collect()
}

/// Writes down when a token was last used.
pub(super) async fn set_last_used(
    tx: &mut Connection,
    id: TokenId,
    at_us: i64,
) -> Result<(), StoreError> {
    let sql = "UPDATE personal_tokens SET last_used_at = ?1
               WHERE id = ?2 AND coalesce(last_used_at, 0) < ?1";
    sql::query(sql).bind(at_us).bind(id.to_string()).execute(tx).await?;
    Ok(())
}

/// A user's tokens concern no organisation.
fn change(by: Actor, action: &'static str, id: TokenId) -> Change {
    Change::of_node(by, action).object(id)
}

async fn load_token(
    tx: &mut Connection,
    person: &Person,
    id: TokenId,
) -> Result<PersonalToken, StoreError> {
    let row = sql::query("SELECT * FROM personal_tokens WHERE id = ? AND user_id = ?")
        .bind(id.to_string())
        .bind(person.user().to_string())
        .fetch_optional(tx)
        .await?
        .ok_or_else(|| StoreError::not_found("Personal access token"))?;
    from_row(&row)
}

fn from_row(row: &Row) -> Result<PersonalToken, StoreError> {
    let expires_at: Option<i64> = raw(row, "expires_at")?;
    let last_used_at: Option<Timestamp> = time_opt(row, "last_used_at")?;
    Ok(PersonalToken {
        token_id: parsed(row, "id")?,
        user_id: parsed(row, "user_id")?,
        name: raw(row, "name")?,
        expires_at,
        last_used_at,
        created_at: time(row, "created_at")?,
    })
}
