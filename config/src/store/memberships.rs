//! Verbs on the members of an organisation.
//!
//! Nobody gives a role that holds more than they hold themselves, nor takes one away, and an
//! organisation that has an admin keeps one. A user that belongs nowhere and has no token is
//! forgotten with their last membership.

use super::door::DoorChange;
use super::rows::{free_stamp, free_stamp_in, paged, parsed, raw, time, to_word, word};
use super::sql::{self, Connection, QueryBuilder, Row};
use super::users::user_by_email;
use super::{After, Change, Store, StoreError};
use crate::credential::{Role, ScopeSet, ScopedTo};
use crate::ids::{OrganisationId, UserId};
use crate::limits::ORGANISATION_MEMBERS;
use crate::model::{Member, MemberChange, NewMember, Page};

const FREE_STAMP: &str = free_stamp_in!("memberships");

impl Store {
    /// The organisation's members, newest first.
    ///
    /// # Errors
    /// As the database fails.
    pub async fn members(
        &self,
        scope: &ScopedTo<OrganisationId>,
        page: Page,
    ) -> Result<Vec<Member>, StoreError> {
        let mut query = QueryBuilder::new(
            "SELECT t.*, u.email FROM memberships t JOIN users u ON u.id = t.user_id
             WHERE t.organization_id = ",
        );
        query.push_bind(scope.organisation().to_string());
        paged(&mut query, page);
        let mut tx = self.0.db.read().await?;
        query.build().fetch_all(&mut tx).await?.iter().map(from_row).collect()
    }

    /// One member.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if the user does not belong to the organisation.
    pub async fn member(
        &self,
        scope: &ScopedTo<OrganisationId>,
        user: UserId,
    ) -> Result<Member, StoreError> {
        let mut tx = self.0.db.read().await?;
        load_member(&mut tx, scope, user).await
    }

    /// Makes somebody a member; a user that the node does not know yet is made. What comes back does
    /// not tell the two apart.
    ///
    /// # Errors
    /// [`StoreError::Refused`] if the role holds more than `held`, or at the limit of members;
    /// [`StoreError::Conflict`] if the user belongs to the organisation already.
    pub async fn add_member(
        &self,
        scope: &ScopedTo<OrganisationId>,
        held: ScopeSet,
        new: NewMember,
    ) -> Result<Member, StoreError> {
        new.validate()?;
        refuse_more_than(held, new.role)?;
        let mut tx = self.0.db.write().await?;
        refuse_at_limit(&mut tx, scope).await?;
        let user = match user_by_email(&mut tx, &new.email).await? {
            Some(user) => user,
            None => self.insert_user(&mut tx, new.email.clone()).await?,
        };
        if find_member(&mut tx, scope, user.id).await?.is_some() {
            let why = "The user is a member of the organization already";
            return Err(StoreError::Conflict(why.to_owned()));
        }
        let member = self.insert_member(&mut tx, scope.organisation(), user.id, &new).await?;
        tx.note(Change::of(scope, "member.add").object(user.id).after(&member)?);
        let role = Some(new.role);
        self.commit(tx, After::door(DoorChange::Member(user.id, scope.organisation(), role)))
            .await?;
        Ok(member)
    }

    /// Changes a member.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::Refused`] if the role they have or would get holds
    /// more than `held`; [`StoreError::Conflict`] if nobody else is an admin.
    pub async fn update_member(
        &self,
        scope: &ScopedTo<OrganisationId>,
        held: ScopeSet,
        user: UserId,
        change: MemberChange,
    ) -> Result<Member, StoreError> {
        change.validate()?;
        let mut tx = self.0.db.write().await?;
        let before = load_member(&mut tx, scope, user).await?;
        let mut member = before.clone();
        if let Some(name) = change.name {
            member.name = name;
        }
        if let Some(role) = change.role.filter(|role| *role != before.role) {
            refuse_more_than(held, before.role)?;
            refuse_more_than(held, role)?;
            if before.role == Role::Admin {
                keep_an_admin(&mut tx, scope.organisation(), user).await?;
            }
            member.role = role;
        }
        member.updated_at = self.now();
        sql::query(
            "UPDATE memberships SET name = ?, role = ?, updated_at = ?
             WHERE organization_id = ? AND user_id = ?",
        )
        .bind(&member.name)
        .bind(to_word(member.role)?)
        .bind(member.updated_at.micros())
        .bind(scope.organisation().to_string())
        .bind(user.to_string())
        .execute(&mut tx)
        .await?;
        let note = Change::of(scope, "member.update").object(user);
        tx.note(note.before(&before)?.after(&member)?);
        let role = Some(member.role);
        self.commit(tx, After::door(DoorChange::Member(user, scope.organisation(), role))).await?;
        Ok(member)
    }

    /// Ends a membership: when this returns, the user's tokens open nothing of the organisation.
    ///
    /// # Errors
    /// As [`Store::update_member`].
    pub async fn remove_member(
        &self,
        scope: &ScopedTo<OrganisationId>,
        held: ScopeSet,
        user: UserId,
    ) -> Result<(), StoreError> {
        let mut tx = self.0.db.write().await?;
        let member = load_member(&mut tx, scope, user).await?;
        refuse_more_than(held, member.role)?;
        if member.role == Role::Admin {
            keep_an_admin(&mut tx, scope.organisation(), user).await?;
        }
        sql::query("DELETE FROM memberships WHERE organization_id = ? AND user_id = ?")
            .bind(scope.organisation().to_string())
            .bind(user.to_string())
            .execute(&mut tx)
            .await?;
        sql::query(
            "DELETE FROM users WHERE id = ?1
             AND NOT EXISTS (SELECT 1 FROM memberships WHERE user_id = ?1)
             AND NOT EXISTS (SELECT 1 FROM personal_tokens WHERE user_id = ?1)",
        )
        .bind(user.to_string())
        .execute(&mut tx)
        .await?;
        tx.note(Change::of(scope, "member.remove").object(user).before(&member)?);
        self.commit(tx, After::door(DoorChange::Member(user, scope.organisation(), None))).await
    }

    pub(super) async fn insert_member(
        &self,
        tx: &mut Connection,
        organisation: OrganisationId,
        user: UserId,
        new: &NewMember,
    ) -> Result<Member, StoreError> {
        let at = free_stamp(tx, FREE_STAMP, self.now()).await?;
        sql::query(
            "INSERT INTO memberships
                 (organization_id, user_id, name, role, created_at, updated_at)
             VALUES (?, ?, ?, ?, ?, ?)",
        )
        .bind(organisation.to_string())
        .bind(user.to_string())
        .bind(&new.name)
        .bind(to_word(new.role)?)
        .bind(at.micros())
        .bind(at.micros())
        .execute(tx)
        .await?;
        Ok(Member {
            user_id: user,
            email: new.email.clone(),
            name: new.name.clone(),
            role: new.role,
            created_at: at,
            updated_at: at,
        })
    }
}

/// All memberships, for the door.
pub(super) async fn roles(
    tx: &mut Connection,
) -> Result<Vec<((UserId, OrganisationId), Role)>, StoreError> {
    let rows = sql::query("SELECT user_id, organization_id, role FROM memberships").fetch_all(tx);
    let read = |row: &Row| {
        Ok(((parsed(row, "user_id")?, parsed(row, "organization_id")?), word(row, "role")?))
    };
    rows.await?.iter().map(read).collect()
}

/// Refuses to take the organisation's last admin away.
pub(super) async fn keep_an_admin(
    tx: &mut Connection,
    organisation: OrganisationId,
    leaving: UserId,
) -> Result<(), StoreError> {
    let admins = "SELECT user_id FROM memberships WHERE organization_id = ? AND role = ?";
    let admins: Vec<String> = sql::query(admins)
        .bind(organisation.to_string())
        .bind(to_word(Role::Admin)?)
        .fetch_scalars(tx)
        .await?;
    let leaving = leaving.to_string();
    if admins.contains(&leaving) && admins.len() == 1 {
        return Err(StoreError::Conflict("An organization must keep an admin".to_owned()));
    }
    Ok(())
}

fn refuse_more_than(held: ScopeSet, role: Role) -> Result<(), StoreError> {
    if held.covers(role.scopes()) {
        return Ok(());
    }
    Err(StoreError::refused("a role cannot be given or taken by one who holds less"))
}

async fn refuse_at_limit(
    tx: &mut Connection,
    scope: &ScopedTo<OrganisationId>,
) -> Result<(), StoreError> {
    let members: i64 = sql::query("SELECT count(*) FROM memberships WHERE organization_id = ?")
        .bind(scope.organisation().to_string())
        .fetch_scalar(tx)
        .await?;
    if members >= i64::from(ORGANISATION_MEMBERS.value_u32()) {
        return Err(StoreError::refused("Member limit reached"));
    }
    Ok(())
}

async fn find_member(
    tx: &mut Connection,
    scope: &ScopedTo<OrganisationId>,
    user: UserId,
) -> Result<Option<Member>, StoreError> {
    let row = sql::query(
        "SELECT t.*, u.email FROM memberships t JOIN users u ON u.id = t.user_id
         WHERE t.organization_id = ? AND t.user_id = ?",
    );
    let row = row.bind(scope.organisation().to_string()).bind(user.to_string());
    row.fetch_optional(tx).await?.as_ref().map(from_row).transpose()
}

async fn load_member(
    tx: &mut Connection,
    scope: &ScopedTo<OrganisationId>,
    user: UserId,
) -> Result<Member, StoreError> {
    find_member(tx, scope, user).await?.ok_or_else(|| StoreError::not_found("User"))
}

fn from_row(row: &Row) -> Result<Member, StoreError> {
    Ok(Member {
        user_id: parsed(row, "user_id")?,
        email: parsed(row, "email")?,
        name: raw(row, "name")?,
        role: word(row, "role")?,
        created_at: time(row, "created_at")?,
        updated_at: time(row, "updated_at")?,
    })
}
