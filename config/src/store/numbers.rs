//! Verbs on phone numbers. Slots are written by publishing only.

use super::routes::Touched;
use super::rows::{
    and, and_holds, and_period, free_stamp, free_stamp_in, paged, parsed, parsed_opt, raw, time,
};
use super::sql::{self, Connection, QueryBuilder, Row};
use super::{After, Change, Store, StoreError};
use crate::credential::ScopedTo;
use crate::ids::{AgentId, OrganisationId, TrunkId};
use crate::model::{
    E164, NewPhoneNumber, NumberChange, NumberFilter, Page, PhoneNumber, SlotAgent, SlotVersion,
};

const FREE_STAMP: &str = free_stamp_in!("phone_numbers");

/// Numbers with their slots spelled out, up to the WHERE clause.
pub(super) const SELECT: &str = "
    SELECT t.*, iv.version AS inbound_version, ia.id AS inbound_agent, ia.name AS inbound_name,
           ov.version AS outbound_version, oa.id AS outbound_agent, oa.name AS outbound_name
    FROM phone_numbers t
    LEFT JOIN agent_versions iv ON iv.id = t.inbound_agent_version_id
    LEFT JOIN agents ia ON ia.id = iv.agent_id
    LEFT JOIN agent_versions ov ON ov.id = t.outbound_agent_version_id
    LEFT JOIN agents oa ON oa.id = ov.agent_id";

impl Store {
    /// Registers a number on a trunk of the customer's own.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] for an unknown trunk; [`StoreError::Refused`] for a managed trunk or
    /// beyond the organisation's limit; [`StoreError::Conflict`] if anybody has the number already.
    pub async fn register_number(
        &self,
        scope: &ScopedTo<OrganisationId>,
        new: NewPhoneNumber,
    ) -> Result<PhoneNumber, StoreError> {
        let mut tx = self.0.db.write().await?;
        let managed = managed_trunk(&mut tx, scope, &new.trunk_id.to_string()).await?;
        if managed.ok_or_else(|| StoreError::not_found("Trunk"))? {
            return Err(StoreError::refused("Numbers cannot be registered on a managed trunk"));
        }
        if exists(&mut tx, &new.phone_number).await? {
            return Err(StoreError::Conflict("Phone number is already registered".to_owned()));
        }
        self.refuse_over_limit(&mut tx, scope).await?;
        let row = (&new.phone_number, new.trunk_id, new.outbound_shareable);
        self.insert_number(&mut tx, scope, row).await?;
        let number = load(&mut tx, scope, &new.phone_number).await?;
        tx.note(Change::of(scope, "number.create").object(&new.phone_number).after(&number)?);
        self.commit(tx, After::routes(Touched::number(&number.phone_number))).await?;
        Ok(number)
    }

    /// One number.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if the organisation has no such number.
    pub async fn number(
        &self,
        scope: &ScopedTo<OrganisationId>,
        number: &E164,
    ) -> Result<PhoneNumber, StoreError> {
        let mut tx = self.0.db.read().await?;
        load(&mut tx, scope, number).await
    }

    /// The organisation's numbers, newest first.
    ///
    /// # Errors
    /// As the database fails.
    pub async fn numbers(
        &self,
        scope: &ScopedTo<OrganisationId>,
        filter: &NumberFilter,
        page: Page,
    ) -> Result<Vec<PhoneNumber>, StoreError> {
        let mut query = QueryBuilder::new(SELECT);
        query.push(" WHERE t.organization_id = ").push_bind(scope.organisation().to_string());
        and_holds(&mut query, "t.phone_number", filter.phone_number.as_ref());
        and(&mut query, "t.trunk_id =", filter.trunk_id.map(|id| id.to_string()));
        and_period(&mut query, &filter.period);
        paged(&mut query, page);
        let mut tx = self.0.db.read().await?;
        query.build().fetch_all(&mut tx).await?.iter().map(from_row).collect()
    }

    /// Changes the one thing about a number that can be changed.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if the organisation has no such number.
    pub async fn update_number(
        &self,
        scope: &ScopedTo<OrganisationId>,
        number: &E164,
        change: NumberChange,
    ) -> Result<PhoneNumber, StoreError> {
        let mut tx = self.0.db.write().await?;
        let note = Change::of(scope, "number.update").object(number);
        let note = note.before(&load(&mut tx, scope, number).await?)?;
        sql::query(
            "UPDATE phone_numbers SET outbound_shareable = ?, updated_at = ?
             WHERE phone_number = ? AND organization_id = ?",
        )
        .bind(change.outbound_shareable)
        .bind(self.now().micros())
        .bind(number.as_str())
        .bind(scope.organisation().to_string())
        .execute(&mut tx)
        .await?;
        let number = load(&mut tx, scope, number).await?;
        tx.note(note.after(&number)?);
        self.commit(tx, After::routes(Touched::number(&number.phone_number))).await?;
        Ok(number)
    }

    /// Gives a number up.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::Refused`] on a managed trunk.
    pub async fn delete_number(
        &self,
        scope: &ScopedTo<OrganisationId>,
        number: &E164,
    ) -> Result<(), StoreError> {
        let mut tx = self.0.db.write().await?;
        let before = load(&mut tx, scope, number).await?;
        let trunk = before.trunk_id.to_string();
        if managed_trunk(&mut tx, scope, &trunk).await? == Some(true) {
            return Err(StoreError::refused("Numbers of a managed trunk are released there"));
        }
        sql::query("DELETE FROM phone_numbers WHERE phone_number = ?")
            .bind(number.as_str())
            .execute(&mut tx)
            .await?;
        tx.note(Change::of(scope, "number.delete").object(number).before(&before)?);
        self.commit(tx, After::routes(Touched::number(number))).await
    }

    /// Makes the row of a number on a trunk, shareable or not.
    pub(super) async fn insert_number(
        &self,
        tx: &mut Connection,
        scope: &ScopedTo<OrganisationId>,
        (number, trunk, shareable): (&E164, TrunkId, bool),
    ) -> Result<(), StoreError> {
        let at = free_stamp(tx, FREE_STAMP, self.now()).await?;
        sql::query("INSERT INTO phone_numbers VALUES (?, ?, ?, NULL, NULL, ?, ?, ?)")
            .bind(number.as_str())
            .bind(scope.organisation().to_string())
            .bind(trunk.to_string())
            .bind(shareable)
            .bind(at.micros())
            .bind(at.micros())
            .execute(&mut *tx)
            .await?;
        Ok(())
    }

    /// Numbers that are being bought count already.
    pub(super) async fn refuse_over_limit(
        &self,
        tx: &mut Connection,
        scope: &ScopedTo<OrganisationId>,
    ) -> Result<(), StoreError> {
        let row = sql::query(
            "SELECT max_phone_numbers AS own_limit,
                    (SELECT count(*) FROM phone_numbers n WHERE n.organization_id = o.id)
                    + (SELECT count(*) FROM number_orders b
                       WHERE b.organization_id = o.id AND b.state = 'buying') AS held
             FROM organisations o WHERE o.id = ?",
        )
        .bind(scope.organisation().to_string())
        .fetch_optional(tx)
        .await?
        .ok_or_else(|| StoreError::not_found("Organization"))?;
        let own_limit: Option<u32> = raw(&row, "own_limit")?;
        let held: i64 = raw(&row, "held")?;
        if held >= i64::from(own_limit.unwrap_or(self.0.options.max_phone_numbers)) {
            return Err(StoreError::refused("Phone number limit reached"));
        }
        Ok(())
    }
}

/// Whether the organisation's trunk is managed; `None` if it has no such trunk.
async fn managed_trunk(
    tx: &mut Connection,
    scope: &ScopedTo<OrganisationId>,
    id: &str,
) -> Result<Option<bool>, StoreError> {
    let sql = "SELECT managed_account_id IS NOT NULL FROM trunks
               WHERE id = ? AND organization_id = ?";
    let query = sql::query(sql).bind(id).bind(scope.organisation().to_string());
    query.fetch_scalar_optional(tx).await
}

/// Whether anybody has the number, or has it on order.
pub(super) async fn exists(tx: &mut Connection, number: &E164) -> Result<bool, StoreError> {
    let sql = "SELECT EXISTS (SELECT 1 FROM phone_numbers WHERE phone_number = ?1)
               OR EXISTS (SELECT 1 FROM number_orders WHERE phone_number = ?1)";
    sql::query(sql).bind(number.as_str()).fetch_scalar(tx).await
}

pub(super) async fn load(
    tx: &mut Connection,
    scope: &ScopedTo<OrganisationId>,
    number: &E164,
) -> Result<PhoneNumber, StoreError> {
    let mut query = QueryBuilder::new(SELECT);
    query.push(" WHERE t.organization_id = ").push_bind(scope.organisation().to_string());
    query.push(" AND t.phone_number = ").push_bind(number.as_str());
    let row = query.build().fetch_optional(tx).await?;
    from_row(&row.ok_or_else(|| StoreError::not_found(format!("Phone number {number}")))?)
}

/// The numbers with any version of an agent in a slot, newest first.
pub(super) async fn of_agent(
    tx: &mut Connection,
    agent: AgentId,
) -> Result<Vec<PhoneNumber>, StoreError> {
    let mut query = QueryBuilder::new(SELECT);
    query.push(" WHERE (ia.id = ").push_bind(agent.to_string());
    query.push(" OR oa.id = ").push_bind(agent.to_string()).push(")");
    paged(&mut query, Page::first(Page::MAX));
    query.build().fetch_all(tx).await?.iter().map(from_row).collect()
}

fn from_row(row: &Row) -> Result<PhoneNumber, StoreError> {
    let inbound = SlotColumns {
        id: "inbound_agent_version_id",
        version: "inbound_version",
        agent: "inbound_agent",
        name: "inbound_name",
    };
    let outbound = SlotColumns {
        id: "outbound_agent_version_id",
        version: "outbound_version",
        agent: "outbound_agent",
        name: "outbound_name",
    };
    Ok(PhoneNumber {
        phone_number: parsed(row, "phone_number")?,
        organization_id: parsed(row, "organization_id")?,
        trunk_id: parsed(row, "trunk_id")?,
        inbound_agent_version_id: parsed_opt(row, inbound.id)?,
        outbound_agent_version_id: parsed_opt(row, outbound.id)?,
        outbound_shareable: raw(row, "outbound_shareable")?,
        inbound_agent_version: slot(row, &inbound)?,
        outbound_agent_version: slot(row, &outbound)?,
        created_at: time(row, "created_at")?,
        updated_at: time(row, "updated_at")?,
    })
}

struct SlotColumns {
    id: &'static str,
    version: &'static str,
    agent: &'static str,
    name: &'static str,
}

fn slot(row: &Row, columns: &SlotColumns) -> Result<Option<SlotVersion>, StoreError> {
    let Some(id) = parsed_opt(row, columns.id)? else { return Ok(None) };
    let agent = SlotAgent { id: parsed(row, columns.agent)?, name: raw(row, columns.name)? };
    Ok(Some(SlotVersion { id, version: raw(row, columns.version)?, agent }))
}
