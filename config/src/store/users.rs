//! Verbs on users: what the operator does, and what a user may know of themselves.

use super::door::DoorChange;
use super::rows::{free_stamp, free_stamp_in, paged, parsed, raw, time, word};
use super::sql::{self, Connection, QueryBuilder, Row};
use super::{After, Change, Store, StoreError, memberships};
use crate::credential::{Operator, Person};
use crate::ids::{OrganisationId, UserId};
use crate::model::{Email, Membership, NewUser, Page, User};

const FREE_STAMP: &str = free_stamp_in!("users");

impl Store {
    /// Makes a user, who belongs nowhere yet.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] if the address is another user's.
    pub async fn create_user(&self, by: &Operator, new: NewUser) -> Result<User, StoreError> {
        let mut tx = self.0.db.write().await?;
        if user_by_email(&mut tx, &new.email).await?.is_some() {
            return Err(StoreError::Conflict("A user has this email already".to_owned()));
        }
        let user = self.insert_user(&mut tx, new.email).await?;
        tx.note(Change::of_node(by.actor(), "user.create").object(user.id).after(&user)?);
        self.commit(tx, After::default()).await?;
        Ok(user)
    }

    /// The user with this address.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if there is none.
    pub async fn user_with_email(&self, _by: &Operator, email: &Email) -> Result<User, StoreError> {
        let mut tx = self.0.db.read().await?;
        user_by_email(&mut tx, email).await?.ok_or_else(|| StoreError::not_found("User"))
    }

    /// All users, newest first.
    ///
    /// # Errors
    /// As the database fails.
    pub async fn users(&self, _by: &Operator, page: Page) -> Result<Vec<User>, StoreError> {
        let mut query = QueryBuilder::new("SELECT t.* FROM users t WHERE TRUE");
        paged(&mut query, page);
        let mut tx = self.0.db.read().await?;
        query.build().fetch_all(&mut tx).await?.iter().map(from_row).collect()
    }

    /// Removes a user with their tokens and memberships: when this returns, none of the tokens opens
    /// anything any more.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::Conflict`] if an organisation would be left without
    /// an admin.
    pub async fn delete_user(&self, by: &Operator, id: UserId) -> Result<(), StoreError> {
        let mut tx = self.0.db.write().await?;
        let user = load_user(&mut tx, id).await?;
        let of = sql::query("SELECT organization_id FROM memberships WHERE user_id = ?");
        for row in of.bind(id.to_string()).fetch_all(&mut tx).await? {
            let organisation: OrganisationId = parsed(&row, "organization_id")?;
            memberships::keep_an_admin(&mut tx, organisation, id).await?;
        }
        sql::query("DELETE FROM users WHERE id = ?").bind(id.to_string()).execute(&mut tx).await?;
        tx.note(Change::of_node(by.actor(), "user.delete").object(id).before(&user)?);
        self.commit(tx, After::door(DoorChange::UserRemoved(id))).await
    }

    /// The organisations a user belongs to, by name.
    ///
    /// # Errors
    /// As the database fails.
    pub async fn organisations_of(&self, person: &Person) -> Result<Vec<Membership>, StoreError> {
        let mut tx = self.0.db.read().await?;
        let rows = sql::query(
            "SELECT o.id, o.name, m.role FROM memberships m
             JOIN organisations o ON o.id = m.organization_id
             WHERE m.user_id = ? ORDER BY o.name, o.id",
        )
        .bind(person.user().to_string())
        .fetch_all(&mut tx)
        .await?;
        let read = |row: &Row| {
            Ok(Membership {
                organization_id: parsed(row, "id")?,
                name: raw(row, "name")?,
                role: word(row, "role")?,
            })
        };
        rows.iter().map(read).collect()
    }

    pub(super) async fn insert_user(
        &self,
        tx: &mut Connection,
        email: Email,
    ) -> Result<User, StoreError> {
        let created_at = free_stamp(tx, FREE_STAMP, self.now()).await?;
        let user = User { id: UserId::random(), email, created_at };
        sql::query("INSERT INTO users (id, email, created_at) VALUES (?, ?, ?)")
            .bind(user.id.to_string())
            .bind(user.email.as_str())
            .bind(created_at.micros())
            .execute(tx)
            .await?;
        Ok(user)
    }
}

pub(super) async fn user_by_email(
    tx: &mut Connection,
    email: &Email,
) -> Result<Option<User>, StoreError> {
    let row = sql::query("SELECT * FROM users WHERE email = ?").bind(email.as_str());
    row.fetch_optional(tx).await?.as_ref().map(from_row).transpose()
}

pub(super) async fn load_user(tx: &mut Connection, id: UserId) -> Result<User, StoreError> {
    let row = sql::query("SELECT * FROM users WHERE id = ?").bind(id.to_string());
    let row = row.fetch_optional(tx).await?.ok_or_else(|| StoreError::not_found("User"))?;
    from_row(&row)
}

fn from_row(row: &Row) -> Result<User, StoreError> {
    Ok(User {
        id: parsed(row, "id")?,
        email: parsed(row, "email")?,
        created_at: time(row, "created_at")?,
    })
}
