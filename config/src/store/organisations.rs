//! Verbs on organisations, their trees, and the first start.
//!
//! An organisation's parent never changes, so there are no circles. Whoever may manage child
//! organisations reaches all below their own; nothing reaches upwards or sideways.

use super::database::Write;
use super::door::DoorChange;
use super::routes::Touched;
use super::rows::{free_stamp, free_stamp_in, paged, parsed, parsed_opt, raw, time};
use super::sql::{self, Connection, QueryBuilder, Row};
use super::{After, Change, Store, StoreError, users};
use crate::credential::{Authenticated, Grants, Operator, Role, Scope, ScopedTo, Who};
use crate::ids::OrganisationId;
use crate::limits::{ORGANISATION_CHILDREN, ORGANISATION_DEPTH};
use crate::model::{
    NewApiKey, NewMember, NewOrganisation, Organisation, OrganisationChange, Page, check_name,
};
use crate::secret::Secret;

const FREE_STAMP: &str = free_stamp_in!("organisations");

/// An organisation and all above it, as a table `up`.
const UPWARDS: &str = "WITH RECURSIVE up (id, parent_id) AS (
         SELECT id, parent_id FROM organisations WHERE id = ?1
         UNION ALL
         SELECT o.id, o.parent_id FROM organisations o JOIN up ON o.id = up.parent_id
     ) SELECT id FROM up";

impl Store {
    /// On a store without organisations, makes one and an `ak_` key for it that is also the
    /// operator's. `None` if there are any.
    ///
    /// # Errors
    /// As the database fails.
    pub async fn bootstrap(&self) -> Result<Option<(Organisation, Secret<String>)>, StoreError> {
        let mut tx = self.0.db.write().await?;
        let sql = "SELECT EXISTS (SELECT 1 FROM organisations)";
        if sql::query(sql).fetch_scalar(&mut tx).await? {
            return Ok(None);
        }
        let by = Operator::by_process();
        let organisation = self.insert_organisation(&mut tx, "default", None, None).await?;
        note_created(&mut tx, Change::of_node(by.actor(), CREATED), &organisation)?;
        let new = NewApiKey {
            name: "first key".to_owned(),
            expires_at: None,
            grants: Grants::bootstrap(),
        };
        let (entry, key, text) = self.insert_key(&mut tx, organisation.id, &new).await?;
        let scope = by.within(organisation.id);
        tx.note(Change::of(&scope, "key.create").object(key.key_id).after(&key)?);
        let routes = Some(Touched::organisation(organisation.id));
        self.commit(tx, After { routes, ..After::door(DoorChange::KeyAdded(entry)) }).await?;
        Ok(Some((organisation, text)))
    }

    /// Makes an organisation that is part of no other.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] for an empty or oversized name.
    pub async fn create_organisation(
        &self,
        by: &Operator,
        name: &str,
        max_phone_numbers: Option<u32>,
    ) -> Result<Organisation, StoreError> {
        check_name("name", name)?;
        let mut tx = self.0.db.write().await?;
        let made = self.insert_organisation(&mut tx, name, None, max_phone_numbers).await?;
        note_created(&mut tx, Change::of_node(by.actor(), CREATED), &made)?;
        self.commit(tx, After::routes(Touched::organisation(made.id))).await?;
        Ok(made)
    }

    /// Makes an organisation that is part of `parent`, and may register as many numbers unless
    /// something else is said. A user who makes one is its first admin.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] for an empty or oversized name; [`StoreError::Refused`] at the limit of
    /// children or of depth.
    pub async fn create_child_organisation(
        &self,
        parent: &ScopedTo<OrganisationId>,
        new: NewOrganisation,
    ) -> Result<Organisation, StoreError> {
        new.validate()?;
        let mut tx = self.0.db.write().await?;
        let above = load(&mut tx, parent.organisation()).await?;
        refuse_at_limits(&mut tx, parent.organisation()).await?;
        let most = new.max_phone_numbers.or(above.max_phone_numbers);
        let made = self.insert_organisation(&mut tx, &new.name, Some(above.id), most).await?;
        note_created(&mut tx, Change::of(parent, CREATED), &made)?;
        let mut after = After::routes(Touched::organisation(made.id));
        if let Who::User { user, .. } = parent.actor().who {
            let email = users::load_user(&mut tx, user).await?.email;
            let member = NewMember { email, name: String::new(), role: Role::Admin };
            let member = self.insert_member(&mut tx, made.id, user, &member).await?;
            let scope = ScopedTo::by(parent.actor(), made.id);
            tx.note(Change::of(&scope, "member.add").object(user).after(&member)?);
            after.door = Some(DoorChange::Member(user, made.id, Some(Role::Admin)));
        }
        self.commit(tx, after).await?;
        Ok(made)
    }

    /// An organisation within the bearer's reach: their own; with `child_organizations:manage` one
    /// below it; for the operator, if it is passed, any.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if there is none, or it is out of reach.
    pub async fn reach(
        &self,
        bearer: &Authenticated,
        id: OrganisationId,
        operator: Option<Operator>,
    ) -> Result<ScopedTo<OrganisationId>, StoreError> {
        let own = bearer.organisation();
        if id == own.organisation() {
            return Ok(own);
        }
        let mut tx = self.0.db.read().await?;
        let line: Vec<String> =
            sql::query(UPWARDS).bind(id.to_string()).fetch_scalars(&mut tx).await?;
        let below = bearer.scopes().holds(Scope::ChildOrganizationsManage)
            && line.contains(&own.organisation().to_string());
        if line.is_empty() || !(below || operator.is_some()) {
            return Err(StoreError::not_found("Organization"));
        }
        Ok(ScopedTo::by(bearer.actor(), id))
    }

    /// One's own organisation.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if it is gone.
    pub async fn organisation(
        &self,
        scope: &ScopedTo<OrganisationId>,
    ) -> Result<Organisation, StoreError> {
        let mut tx = self.0.db.read().await?;
        load(&mut tx, scope.organisation()).await
    }

    /// One's own organisation, and if `below` all that are part of it, newest first.
    ///
    /// # Errors
    /// As the database fails.
    pub async fn organisations_from(
        &self,
        scope: &ScopedTo<OrganisationId>,
        below: bool,
        page: Page,
    ) -> Result<Vec<Organisation>, StoreError> {
        let mut query = if below {
            let mut query = QueryBuilder::new(
                "WITH RECURSIVE tree (id) AS (SELECT id FROM organisations WHERE id = ",
            );
            query.push_bind(scope.organisation().to_string()).push(
                " UNION ALL
                  SELECT o.id FROM organisations o JOIN tree ON o.parent_id = tree.id
                 ) SELECT t.* FROM organisations t JOIN tree ON tree.id = t.id WHERE TRUE",
            );
            query
        } else {
            let mut query = QueryBuilder::new("SELECT t.* FROM organisations t WHERE t.id = ");
            query.push_bind(scope.organisation().to_string());
            query
        };
        paged(&mut query, page);
        let mut tx = self.0.db.read().await?;
        query.build().fetch_all(&mut tx).await?.iter().map(from_row).collect()
    }

    /// All organisations, newest first.
    ///
    /// # Errors
    /// As the database fails.
    pub async fn organisations(
        &self,
        _by: &Operator,
        page: Page,
    ) -> Result<Vec<Organisation>, StoreError> {
        let mut query = QueryBuilder::new("SELECT t.* FROM organisations t WHERE TRUE");
        paged(&mut query, page);
        let mut tx = self.0.db.read().await?;
        query.build().fetch_all(&mut tx).await?.iter().map(from_row).collect()
    }

    /// Changes an organisation.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if it is gone; [`StoreError::Invalid`] for an empty or oversized name.
    pub async fn update_organisation(
        &self,
        scope: &ScopedTo<OrganisationId>,
        change: OrganisationChange,
    ) -> Result<Organisation, StoreError> {
        change.validate()?;
        let mut tx = self.0.db.write().await?;
        let before = load(&mut tx, scope.organisation()).await?;
        let mut organisation = before.clone();
        if let Some(name) = change.name {
            organisation.name = name;
        }
        if let Some(most) = change.max_phone_numbers {
            organisation.max_phone_numbers = most;
        }
        organisation.updated_at = self.now();
        sql::query(
            "UPDATE organisations SET name = ?, max_phone_numbers = ?, updated_at = ? WHERE id = ?",
        )
        .bind(&organisation.name)
        .bind(organisation.max_phone_numbers)
        .bind(organisation.updated_at.micros())
        .bind(organisation.id.to_string())
        .execute(&mut tx)
        .await?;
        let note = Change::of(scope, "organization.update").object(organisation.id);
        tx.note(note.before(&before)?.after(&organisation)?);
        self.commit(tx, After::routes(Touched::organisation(organisation.id))).await?;
        Ok(organisation)
    }

    async fn insert_organisation(
        &self,
        tx: &mut Connection,
        name: &str,
        parent_id: Option<OrganisationId>,
        max_phone_numbers: Option<u32>,
    ) -> Result<Organisation, StoreError> {
        let id = OrganisationId::random();
        let at = free_stamp(tx, FREE_STAMP, self.now()).await?;
        sql::query(
            "INSERT INTO organisations
                 (id, parent_id, name, max_phone_numbers, created_at, updated_at)
             VALUES (?, ?, ?, ?, ?, ?)",
        )
        .bind(id.to_string())
        .bind(parent_id.map(|id| id.to_string()))
        .bind(name)
        .bind(max_phone_numbers)
        .bind(at.micros())
        .bind(at.micros())
        .execute(tx)
        .await?;
        let name = name.to_owned();
        Ok(Organisation { id, parent_id, name, max_phone_numbers, created_at: at, updated_at: at })
    }
}

const CREATED: &str = "organization.create";

fn note_created(tx: &mut Write, change: Change, made: &Organisation) -> Result<(), StoreError> {
    tx.note(change.object(made.id).after(made)?);
    Ok(())
}

async fn refuse_at_limits(tx: &mut Connection, parent: OrganisationId) -> Result<(), StoreError> {
    let children: i64 = sql::query("SELECT count(*) FROM organisations WHERE parent_id = ?")
        .bind(parent.to_string())
        .fetch_scalar(tx)
        .await?;
    if children >= i64::from(ORGANISATION_CHILDREN.value_u32()) {
        return Err(StoreError::refused("Organization limit reached"));
    }
    let line: Vec<String> = sql::query(UPWARDS).bind(parent.to_string()).fetch_scalars(tx).await?;
    if line.len() >= ORGANISATION_DEPTH.value_usize() {
        return Err(StoreError::refused("Organizations cannot be nested any deeper"));
    }
    Ok(())
}

async fn load(tx: &mut Connection, id: OrganisationId) -> Result<Organisation, StoreError> {
    let row = sql::query("SELECT * FROM organisations WHERE id = ?").bind(id.to_string());
    let row = row.fetch_optional(tx).await?;
    row.as_ref().map(from_row).ok_or_else(|| StoreError::not_found("Organization"))?
}

fn from_row(row: &Row) -> Result<Organisation, StoreError> {
    Ok(Organisation {
        id: parsed(row, "id")?,
        parent_id: parsed_opt(row, "parent_id")?,
        name: raw(row, "name")?,
        max_phone_numbers: raw(row, "max_phone_numbers")?,
        created_at: time(row, "created_at")?,
        updated_at: time(row, "updated_at")?,
    })
}
